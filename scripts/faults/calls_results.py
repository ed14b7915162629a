"""Malformed calls of results, filter sets and the index: right answers or one clear error."""

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from call import draw_images, kinked, pair, smooth
from snapshot import changes, network_state
from torch import nn
from verdict import fault_of_error


class Fixture:
    """A result of two degradations with its networks, and results that do not go with it."""

    def __init__(self, folder: Path) -> None:
        from faigfast import attribute

        random = Random(0)
        self.baseline, self.target = pair(smooth, torch.float32, random)
        self.other = pair(kinked, torch.float32, random)
        x, gt = draw_images(random, torch.float32)
        batch = {"lq": {"blur": x, "noise": x.flip(-1)}, "gt": gt}
        self.result = attribute(self.baseline, self.target, batch, steps=2)
        self.same = attribute(self.baseline, self.target, batch, steps=2)
        self.more_steps = attribute(self.baseline, self.target, batch, steps=3)
        self.mean = attribute(self.baseline, self.target, batch, steps=2, per_image=False)
        self.one = attribute(self.baseline, self.target, (x, gt), steps=2)
        self.foreign = attribute(*self.other, batch, steps=2)
        self.part = attribute(self.baseline, self.target, batch, steps=2, parameters="0.weight")
        self.best = self.result.top("blur", 0.25)
        self.folder = folder
        self.scores = {name: self.result.mean(name) for name in ("blur", "noise")}

    def ranked(self, count: int, name: str = "blur") -> list[int]:
        """Rank the filters by the contrast of one degradation with the other."""
        other = "noise" if name == "blur" else "blur"
        contrast = self.scores[name] - self.scores[other]
        return sorted(range(len(contrast)), key=lambda k: (-float(contrast[k]), k))[:count]


Act = Callable[[Fixture], Any]
Right = Callable[[Fixture, Any], bool]


@dataclass(frozen=True)
class Deed:
    """One call: what it does, words of an error, and whether an answer is right (None: never)."""

    name: str
    act: Act
    words: str
    right: Right | None = None
    own: tuple[type[BaseException], ...] = ()


def fault_of(deed: Deed, fixture: Fixture) -> str | None:
    """Do a deed and judge it; None if it is fine."""
    networks = fixture.baseline, fixture.target
    before = [network_state(network) for network in networks]
    fault = None
    try:
        answer = deed.act(fixture)
    except Exception as problem:
        fault = fault_of_error(problem, deed.words, deed.own)
    else:
        if deed.right is None:
            fault = f"gave {str(answer)[:80]!r}, which is no answer"
        elif not deed.right(fixture, answer):
            fault = f"gave {str(answer)[:80]!r}, which is wrong"
    after = [network_state(network) for network in networks]
    if changed := [name for pair in zip(before, after, strict=True) for name in changes(*pair)]:
        return f"changed {', '.join(sorted(changed)[:4])}"
    return fault


def _top(fraction: Any, count: int | None = None, name: Any = "blur") -> Deed:
    right: Right | None = None
    if count is not None:
        right = lambda f, given: given.indices.tolist() == f.ranked(count)  # noqa: E731
    return Deed(
        f"top({name!r}, {str(fraction)[:20]})",
        lambda f: f.result.top(name, fraction),
        "fraction|degradation",
        right,
    )


NAMES = [None, "", "Blur", 0, 1.5, b"blur", ["blur"], ("blur", "noise"), {}, math.nan, object()]
TOPS = [
    *map(_top, (0, -0.1, 1.1, math.nan, math.inf, True, "0.1", None, [0.1], 1j, 10**400)),
    *map(_top, (np.float64(math.nan), np.array([0.1]), Fraction(3, 2), slice(1), print)),
    _top(1, 12), _top(1.0, 12), _top(1e-300, 1), _top(5e-324, 1), _top(0.5, 6),
    _top(Fraction(1, 4), 3), _top(np.float32(0.25), 3), _top(np.float64(0.75), 9),
    _top(np.int64(1), 12), _top(0.25, 3),
    *(_top(0.25, None, name) for name in NAMES),
]  # fmt: skip


def _by_name(method: str, name: Any) -> Deed:
    return Deed(
        f"{method}({str(name)[:20]!r})",
        lambda f: getattr(f.result, method)(name),
        "degradation",
    )


def _against(against: Any, right: bool) -> Deed:
    return Deed(
        f"contrast against {str(against)[:20]!r}",
        lambda f: f.result.contrast("blur", against),
        "degradation|against",
        (lambda f, given: given.shape == (12,) and bool(given.isfinite().all())) if right else None,
    )


def _same_images(f: Fixture, given: Any) -> bool:
    doubled = torch.cat([f.result.scores("blur"), f.same.scores("blur")])
    return given.images == 4 and torch.equal(given.scores("blur"), doubled)


def _merge(name: str, others: Callable[[Fixture], Any], right: Right | None = None) -> Deed:
    words = "others|results|settings?|merged|index|degradations|filters"
    return Deed(f"merge({name})", lambda f: f.result.merge(others(f)), words, right)


MERGES = [
    _merge("a result", lambda f: f.same, _same_images),
    _merge("a generator", lambda f: iter([f.same]), _same_images),
    _merge("nothing", lambda f: [], lambda f, given: given.images == 2),
    _merge("itself", lambda f: f.result, lambda f, given: given.images == 4),
    _merge("None", lambda f: None),
    _merge("a number", lambda f: 3),
    _merge("a string", lambda f: "result"),
    _merge("a list of None", lambda f: [f.same, None]),
    _merge("a mapping", lambda f: {"a": f.same}),
    _merge("a mean", lambda f: f.mean),
    _merge("more steps", lambda f: f.more_steps),
    _merge("another pair", lambda f: f.foreign),
    _merge("one degradation", lambda f: f.one),
    _merge("other filters", lambda f: f.part),
    _merge("a set", lambda f: {f.same}, _same_images),
]


def _masked(f: Fixture, given: nn.Module) -> bool:
    return _between(f, given, 0.0)


def _between(f: Fixture, given: nn.Module, strength: float) -> bool:
    """Compare a swapped network, filter by filter."""
    chosen = set(f.best.indices.tolist())
    flat = 0
    for key in ("0.weight", "2.weight"):
        start, end, own = (net.state_dict()[key] for net in (f.baseline, f.target, given))
        for out, inner in np.ndindex(*end.shape[:2]):
            wanted = end[out, inner]
            if flat in chosen:
                wanted = start[out, inner] + strength * (wanted - start[out, inner])
            if not torch.allclose(own[out, inner], wanted, rtol=1e-5, atol=1e-7):
                return False
            flat += 1
    return True


def _swap(strength: Any, right: bool = False) -> Deed:
    return Deed(
        f"swap(strength={str(strength)[:20]!r})",
        lambda f: f.best.swap(f.baseline, f.target, strength),
        "strength",
        (lambda f, given: _between(f, given, float(strength))) if right else None,
    )


def _swap_of(name: str, networks: Callable[[Fixture], tuple[Any, Any]]) -> Deed:
    words = "baseline|target|network|order|filter"
    return Deed(f"swap({name})", lambda f: f.best.swap(*networks(f)), words)


def _pair_of(name: str, networks: Callable[[Fixture], tuple[Any, Any]]) -> Deed:
    words = "baseline|target|network|order|filter"
    return Deed(f"check_pair({name})", lambda f: f.best.check_pair(*networks(f)), words)


WRONG_PAIRS: dict[str, Callable[[Fixture], tuple[Any, Any]]] = {
    "exchanged": lambda f: (f.target, f.baseline),
    "another pair": lambda f: f.other,
    "None": lambda f: (None, f.target),
    "a path": lambda f: (f.baseline, "target.pth"),
    "state dicts": lambda f: (f.baseline.state_dict(), f.target.state_dict()),
    "a class": lambda f: (nn.Conv2d, f.target),
    "two architectures": lambda f: (f.baseline, f.other[1]),
    "meta": lambda f: (copy.deepcopy(f.baseline).to("meta"), f.target),
    "without convolutions": lambda f: (nn.Linear(2, 2), nn.Linear(2, 2)),
}
SWAPS = [
    *map(_swap, (math.nan, math.inf, -math.inf, "0", None, [0], 1j, torch.tensor(0.5), 10**400)),
    *(_swap(strength, True) for strength in (0, 1, 0.5, -1, 2, Fraction(1, 2), np.float32(0.5))),
    _swap(True, True),
    *(_swap_of(*entry) for entry in WRONG_PAIRS.items()),
    *(_pair_of(*entry) for entry in WRONG_PAIRS.items()),
    Deed("swap", lambda f: f.best.swap(f.baseline, f.target), "never", _masked),
    Deed("check_pair", lambda f: f.best.check_pair(f.baseline, f.target), "never",
         lambda f, given: given is None),
]  # fmt: skip


def _filters(name: str, indices: Any, total: Any = None, right: bool = False) -> Deed:
    def act(f: Fixture) -> Any:
        from faigfast import FilterSet

        return FilterSet(indices() if callable(indices) else indices, total)

    answer = (lambda f, given: given.indices.tolist() == list(map(int, indices))) if right else None
    return Deed(f"FilterSet({name})", act, "indices|total", answer)


FILTERS = [
    _filters("None", None),
    _filters("nothing", []),
    _filters("text", "012"),
    _filters("texts", ["0", "1"]),
    _filters("a number", 3),
    _filters("floats", [0.0, 1.0]),
    _filters("booleans", [True, False]),
    _filters("complex", lambda: torch.zeros(2, dtype=torch.complex64)),
    _filters("NaN", [math.nan]),
    _filters("rows", [[0, 1], [2, 3]]),
    _filters("ragged rows", [[0, 1], [2]]),
    _filters("negative", [-1, 0]),
    _filters("twice", [1, 1]),
    _filters("huge", [2**63]),
    _filters("huge negative", [-(2**70)]),
    _filters("uint64", np.array([2**64 - 1], np.uint64)),
    _filters("meta", lambda: torch.zeros(2, dtype=torch.int64, device="meta")),
    _filters("sparse", lambda: torch.tensor([0, 1]).to_sparse()),
    _filters(
        "nested", lambda: torch.nested.nested_tensor([torch.tensor([0]), torch.tensor([1, 2])])
    ),
    _filters("objects", [object()]),
    _filters("a set", {1, 2}),
    _filters("beyond the total", [12], 12),
    _filters("total of text", [1], "12"),
    _filters("total of 0", [0], 0),
    _filters("negative total", [0], -3),
    _filters("fractional total", [0], 2.5),
    _filters("total of NaN", [0], math.nan),
    _filters("total of True", [0], True),
    _filters("total of a list", [0], [12]),
    _filters("a tuple", (3, 1), None, True),
    _filters("an array", np.array([3, 1], np.int32), 12, True),
    _filters("uint8", np.array([3, 1], np.uint8), 12, True),
    _filters("int16", np.array([3, 1], np.int16), 12, True),
    _filters("a range", range(3), 3, True),
]


def _deed(name: str, act: Act, words: str, right: Right | None = None, **options: Any) -> Deed:
    return Deed(name, act, words, right, **options)


def _tensors(f: Fixture, **changed: Any) -> Any:
    """Rebuild the result from its tensors with changed metadata."""
    from faigfast import Attribution

    tensors, metadata = f.result.to_tensors()
    return Attribution.from_tensors(tensors, {**metadata, **changed})


OTHERS = [
    *(_by_name(method, name) for method in ("scores", "mean", "contrast", "ranking")
      for name in NAMES),
    _against("nothing", False), _against(["noise", "fog"], False), _against(3, False),
    _against([None], False), _against([["noise"]], False), _against("", False),
    _against([], True), _against(["noise"], True), _against("noise", True),
    _against(("noise", "noise"), True), _against("blur", True), _against(iter(["noise"]), True),
    _deed("scores of a mean", lambda f: f.mean.scores("blur"), "scores|mean"),
    _deed("top of more than was scored", lambda f: f.part.top("blur", 1), "fraction"),
    _deed("part of a number", lambda f: f.best[0], "slice"),
    _deed("part of a text", lambda f: f.best["a"], "slice"),
    _deed("part of nothing", lambda f: f.best[5:5], "slice|empty|indices"),
    _deed("part of a step of 0", lambda f: f.best[::0], "slice|step"),
    _deed("part backwards", lambda f: f.best[::-1], "slice|step",
          lambda f, given: given.indices.tolist() == f.ranked(3)[::-1]),
    _deed("locate beyond", lambda f: f.result.index.locate(12), "filter", own=(IndexError,)),
    _deed("locate below", lambda f: f.result.index.locate(-1), "filter", own=(IndexError,)),
    _deed("locate a fraction", lambda f: f.result.index.locate(1.5), "filter|integer"),
    _deed("locate a text", lambda f: f.result.index.locate("1"), "filter|integer"),
    _deed("locate an int64", lambda f: f.result.index.locate(np.int64(7)), "filter",
          lambda f, given: given == ("2.weight", 0, 1)),
    _deed("locate a tensor", lambda f: f.result.index.locate(torch.tensor(7)), "filter",
          lambda f, given: given == ("2.weight", 0, 1)),
    _deed("index of None", lambda f: type(f.result.index).of(None), "model"),
    _deed("index of a class", lambda f: type(f.result.index).of(nn.Conv2d), "model"),
    _deed("index of no convolution", lambda f: len(type(f.result.index).of(nn.ReLU())), "model",
          lambda f, given: given == 0),
    _deed("masks of another index", lambda f: f.best.masks(f.foreign.index), "filter|network"),
    _deed("masks of None", lambda f: f.best.masks(None), "index"),
    _deed("frame", lambda f: f.result.to_frame(), "pandas",
          lambda f, given: len(given) == 12 and list(given["flat"]) == list(range(12))),
    _deed("save into nothing", lambda f: f.result.save(""), "path|folder|written|cannot"),
    _deed("save into a folder", lambda f: f.result.save(f.folder), "written|folder"),
    _deed("save to None", lambda f: f.result.save(None), "path"),
    _deed("save to a number", lambda f: f.result.save(3), "path"),
    _deed("save to NUL", lambda f: f.result.save(f.folder / "a\0b"), "path|written|null"),
    _deed("save to a long name", lambda f: f.result.save(f.folder / ("a" * 300)), "written"),
    _deed("filters to None", lambda f: f.best.save(None), "path"),
    _deed("filters to a folder", lambda f: f.best.save(f.folder), "written|folder"),
    _deed("filters to a device", lambda f: f.best.save("/dev/full"), "written|device"),
    _deed("tensors of another format", lambda f: _tensors(f, format="x"), "format"),
    _deed("tensors of shapes as text", lambda f: _tensors(f, shapes="ab"), "shapes"),
    _deed("tensors of no layers", lambda f: _tensors(f, layers=None), "layers"),
    _deed("tensors of fractions", lambda f: _tensors(f, shapes=[[1.5, 2, 3]] * 2), "shapes"),
    _deed("tensors of settings as text", lambda f: _tensors(f, setting="x"), "setting"),
    _deed("tensors of unknown settings", lambda f: _tensors(f, setting={"a": 1}), "setting"),
    _deed("tensors of equal names", lambda f: _tensors(f, degradations=["a", "a"]), "degradations"),
    _deed("tensors of more names", lambda f: _tensors(f, degradations=list("abc")), "expected"),
    _deed("tensors of notes as numbers", lambda f: _tensors(f, notes=[3]), "notes"),
    _deed("save and load", lambda f: _reloaded(f), "never",
          lambda f, given: torch.equal(given.scores("blur"), f.result.scores("blur"))),
    _deed("save a model as text", lambda f: _saved(f, "model.txt"), "path"),
    _deed("save no model", lambda f: _saved(f, "model.pth", None), "model"),
    _deed("save a model like nothing", lambda f: _saved(f, "m.pth", like=f.folder / "x"), "file"),
    _deed("save a model like a number", lambda f: _saved(f, "m.pth", like=3), "like"),
    _deed("assign to a result", lambda f: setattr(f.result, "error", None), "error",
          own=(dataclasses.FrozenInstanceError,)),
]  # fmt: skip


def _reloaded(f: Fixture) -> Any:
    from faigfast import Attribution

    f.result.save(f.folder / "scores.safetensors")
    return Attribution.load(f.folder / "scores.safetensors")


def _saved(f: Fixture, name: str, *model: Any, **options: Any) -> None:
    from faigfast import save_model

    save_model(model[0] if model else f.target, f.folder / name, **options)


DEEDS = [*TOPS, *MERGES, *SWAPS, *FILTERS, *OTHERS]
