"""Wrong and unusual values of every option of `attribute`."""

import collections
import math
from fractions import Fraction
from random import Random
from typing import Any

import numpy as np
import torch
from call import Call, Mutation
from oracle import filter_keys

NAN, INF = math.nan, math.inf

VALUES: dict[str, list[Any]] = {
    "rule": [
        None, 3, "", "Left", b"left", ["left"], NAN, "left\n", "simpson", object(), {},
        "left", "right", "midpoint", "graded", "trapezoid", "gauss-legendre", np.str_("left"),
    ],
    "steps": [
        0, -1, 2.5, "3", True, NAN, INF, [3], 3 + 0j, 10**7, 10**30, -(10**30), np.float64(3),
        1, 5, np.int64(3), np.uint8(3), Fraction(3, 1), torch.tensor(3), torch.tensor([3, 4]),
    ],
    "tol": [
        0, -1, 0.0, NAN, INF, -INF, "0.1", True, [0.1], 1j, 1e-300, torch.tensor(0.1),
        0.5, np.float32(0.5), Fraction(1, 2), 10**400,
    ],
    "emulate": [None, 1, 0, "yes", [], np.True_, torch.tensor(True), NAN],
    "signed": [None, 1, "no", [], np.True_, torch.tensor(True), True],
    "per_image": [None, 0, "no", {}, np.False_, torch.tensor(False), False],
    "backend": [
        None, 0, "", "CPU", "cuda", "triton", "gpu", b"cpu", ["cpu"], object(), "cpu\n",
        "torch", "reference", "cpu", "auto",
    ],
    "precision": [
        None, 32, "", "float32", torch.float32, "tf32", "bf16x3", "fp8", ["fp32"], NAN,
        "fp64", "fp32", "bf16", "fp16", "auto",
    ],
    "memory": [
        0, -1, 1.5, "1 GB", True, NAN, [2**30], 1e9, 10**30, -(10**30), torch.tensor(2**30),
        1, 1000, 2**20, 2**63, np.int64(2**30),
    ],
    "progress": ["x", "", 2, [1], NAN, object(), print, 1, None, np.True_, True],
    "devices": [
        "cuda:0", "x", "", 3, [], ["x"], [None], [3], [["cpu"]], object(), ["meta"], "cpu",
        torch.device("cuda"), ["cuda:99"], {"cpu"}, NAN, True, "all",
    ],
}  # fmt: skip
UNKNOWN = ["step", "Rule", "lr", "model_a"]


def _set(argument: str, value: Any) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.options[argument] = value
        if argument == "tol":
            call.options.pop("steps", None)

    shown = value if len(str(value)) < 30 else type(value).__name__
    words = argument if argument != "devices" else "devices?|cuda|GPU|meta"
    return Mutation(f"{argument}={shown!r}", change, words)


def _together(words: str, refused: bool = False, **options: Any) -> Mutation:
    shown = ", ".join(f"{key}={value!r}" for key, value in options.items())

    def change(call: Call, random: Random) -> None:
        call.options.update(options)

    return Mutation(shown, change, words, refused)


def _unknown(argument: str) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.options[argument] = 1

    return Mutation(f"unknown option {argument}", change, argument, refused=True, alone=True)


COMBINATIONS = [
    _together("steps|gauss|memory", rule="gauss-legendre", steps=10**6),
    _together("steps|gauss|memory", rule="gauss-legendre", steps=1000),
    _together("steps|gauss", rule="gauss-legendre", steps=300),
    _together("steps|gauss", rule="gauss-kronrod", steps=10**6 + 1),
    _together("steps|gauss", rule="gauss-kronrod", steps=4),
    _together("steps|gauss", rule="gauss-kronrod", steps=21),
    _together("steps|trapezoid", rule="trapezoid", steps=1),
    _together("tol|rule", rule="gauss-legendre", tol=0.1, steps=None),
    _together("tol|rule", rule="gauss-kronrod", tol=0.1, steps=None),
    _together("tol|steps", tol=0.1, steps=1),
    _together("tol|steps", rule="graded", tol=0.3, steps=50),
    _together("tol|steps", rule="left", tol=0.3, steps=40),
    _together("tol|steps", rule="trapezoid", tol=1e9, steps=40),
    _together("emulate|tol", emulate=True, tol=0.1, steps=None),
    _together("emulate|rule|left", emulate=True, rule="midpoint"),
    _together("emulate|steps", emulate=True, rule="left", steps=30),
    _together("emulate|steps", emulate=True, rule="left", steps=100),
    _together("emulate|steps", emulate=True, rule="right", steps=10**6),
    _together("precision|backend|cpu", backend="cpu", precision="fp64"),
    _together("precision|backend|cpu", backend="cpu", precision="bf16"),
    _together("precision|backend", backend="reference", precision="fp16"),
    _together("precision|backend", backend="torch", precision="tf32"),
    _together("memory", backend="torch", memory=1),
    _together("memory", backend="reference", memory=1),
    _together("devices", devices=["cpu"], progress=True),
    _together("per_image", per_image=False, signed=True),
]

SELECTIONS: list[tuple[str, Any, bool | None]] = [
    # name, value (a function of the first key), whether it selects the first layer or all (None)
    ("a name", lambda key: key, True),
    ("a list", lambda key: [key], True),
    ("a generator", lambda key: (name for name in [key]), True),
    ("a set of equal names", lambda key: {key, str(key)}, True),
    ("a dict", lambda key: {key: 1}, True),
    ("a star", lambda key: "*", None),
    ("a predicate", lambda key: lambda name, value: name == key, True),
    ("a predicate of a numpy bool", lambda key: lambda name, value: np.bool_(name == key), True),
    ("a predicate of a tensor", lambda key: lambda name, value: torch.tensor(name == key), True),
    ("a class as predicate", lambda key: collections.namedtuple("Pair", "name value"), None),
]
BAD_SELECTIONS: list[tuple[str, Any]] = [
    ("a number", 3),
    ("an empty list", []),
    ("an empty string", ""),
    ("no match", "none.*"),
    ("bytes", b"0.weight"),
    ("a list of None", [None]),
    ("a list of lists", [["0.weight"]]),
    ("an array", np.zeros(3)),
    ("an open bracket", "[0.weight"),
    ("False", False),
    ("a predicate of one argument", lambda name: True),
    ("a predicate of three arguments", lambda name, value, more: True),
    ("a predicate without arguments", lambda: True),
    ("a predicate of keywords", lambda *, name, value: True),
    ("a predicate of nothing", lambda name, value: False),
    ("a predicate of None", lambda name, value: None),
    ("a predicate of a tensor of numbers", lambda name, value: value),
    ("a predicate of an array", lambda name, value: np.ones(3, bool)),
    ("a class of one argument", int),
]


def _selection(name: str, make: Any, first: bool | None) -> Mutation:
    def change(call: Call, random: Random) -> None:
        key = filter_keys(call.target)[0]
        call.options["parameters"] = make(key)
        call.layers = {key} if first else None

    return Mutation(f"parameters as {name}", change, "parameters", alone=True)


def _bad_selection(name: str, value: Any) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.options["parameters"] = value

    return Mutation(f"parameters as {name}", change, "parameters|predicate", refused=True)


def _raising_predicate(call: Call, random: Random) -> None:
    def predicate(name: str, value: Any) -> bool:
        raise KeyError(name)

    call.options["parameters"] = predicate


def _writing_predicate(call: Call, random: Random) -> None:
    def predicate(name: str, value: torch.Tensor) -> bool:
        value.zero_()
        return True

    call.options["parameters"] = predicate


MUTATIONS = [
    *(_set(argument, value) for argument, values in VALUES.items() for value in values),
    *(_unknown(argument) for argument in UNKNOWN),
    *COMBINATIONS,
    *(_selection(*entry) for entry in SELECTIONS),
    *(_bad_selection(*entry) for entry in BAD_SELECTIONS),
    Mutation("parameters raises", _raising_predicate, "parameters", True, own=(KeyError,)),
    Mutation("parameters writes on the weights", _writing_predicate, "parameters|network"),
]
