"""Settings of a plan: a method with its options, and the resources that it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from faigfast.analysis.baselines import OPTION_DEFAULTS
from faigfast.backend.catalogue import choose
from faigfast.backend.precision import check_precision
from faigfast.data.degradations.identity import function_identity
from faigfast.integration.objective import resolve_objective
from faigfast.integration.padding import checked_pad
from faigfast.integration.refinement import schedule
from faigfast.integration.settings import METHODS, WEIGHT_METHODS
from faigfast.io.nearest_name import hint, refuse_unknown
from faigfast.io.own_function import own_function

# The gradient at the target alone is the left rule's one node.
GRADIENT = {"rule": "left", "steps": 1, "tol": None, "emulate": False}
# Not part of a result's identity: it does not depend on them, or they are methods here.
LEFT_OUT = ("memory", "devices", "per_image", "fuse", "model_a", "model_b", "batch")
TAKEN: dict[str, Any] = {"device": "cpu", "cpus": 1, "gpus": 0}
WEIGHT_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"method": name, "parameters": None} | ({"seed": 0} if name == "random" else {})
    for name in WEIGHT_METHODS
}
DEFAULTS: dict[str, Any] = {
    "method": "faig",
    "steps": None,
    **{name: value for name, value in OPTION_DEFAULTS.items() if name not in LEFT_OUT},
}


class Resources(NamedTuple):
    """What one worker takes: processors, GPUs or a part of one, and the device."""

    cpus: float
    gpus: float
    device: str

    @property
    def threads(self) -> int:
        """Threads of a worker, at least one."""
        return max(1, int(self.cpus))


@dataclass(frozen=True)
class MethodSettings:
    """A method with its options, under a name.

    Parameters
    ----------
    name : str
        Such as "rule=left steps=100"; "faig" without options.
    options : dict
        Of `faigfast.attribute`, and `method`; the ones that were given.
    memory : int, optional
        Budget in bytes for activations.
    device : str
        Where it runs.
    cpus, gpus : float
        Of a worker on a cluster; fractions share a GPU.
    """

    name: str
    options: dict[str, Any]
    memory: int | None = None
    device: str = "cpu"
    cpus: float = 1
    gpus: float = 0

    @property
    def method(self) -> str:
        """Name of the method."""
        return str(self.options.get("method", "faig"))

    @property
    def by_weights(self) -> bool:
        """Whether the scores follow from the weights alone, without images."""
        return self.method in WEIGHT_METHODS

    @property
    def defaults(self) -> dict[str, Any]:
        """Values of the options that are not given."""
        return WEIGHT_DEFAULTS[self.method] if self.by_weights else DEFAULTS

    @property
    def resources(self) -> Resources:
        """What one worker takes."""
        return Resources(self.cpus, self.gpus, self.device)

    @property
    def identity(self) -> dict[str, Any]:
        """All options on which the scores depend, in JSON types, with their defaults."""
        everything = self.defaults | self.options
        objective = everything.get("objective", "")
        if not isinstance(objective, str):
            everything["objective"] = function_identity(objective)
        elif ":" in objective:
            everything["objective"] = function_identity(own_function("objective", objective))
        return everything | ({} if self.device == "cpu" else {"device": self.device.split(":")[0]})

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `Attributor`, or of `rank_by` for methods without losses."""
        arguments = {name: value for name, value in self.options.items() if name != "method"}
        if ":" in (objective := str(arguments.get("objective", ""))):
            arguments["objective"] = own_function("objective", objective)
        if self.memory is not None:
            arguments["memory"] = self.memory
        if self.method == "signed":
            arguments["signed"] = True
        if self.method == "gradient":
            arguments |= GRADIENT
        return arguments


def method_settings(given: Any) -> list[MethodSettings]:
    """Read the settings of a plan.

    Raises
    ------
    TypeError, ValueError
        If an option is unknown or out of range, or two settings have one name or are the same.

    Examples
    --------
    >>> [one.name for one in method_settings([{}, {"rule": "left", "steps": 100}])]
    ['faig', 'rule=left steps=100']
    """
    by_name: dict[str, MethodSettings] = {}
    for name, options in _named(given):
        if not isinstance(options, Mapping):
            raise TypeError(f"settings hold {options!r}; expected options of faigfast.attribute")
        one = _checked(name, dict(options))
        if one.name in by_name:
            raise ValueError(f"settings hold {one.name!r} twice; expected each once")
        by_name[one.name] = one
    return list(by_name.values())


def _named(given: Any) -> Iterator[tuple[str | None, Any]]:
    if isinstance(given, Mapping):
        # One setting without a name, or settings by name.
        if all(isinstance(value, Mapping) for value in given.values()):
            yield from given.items()
            return
        given = [given]
    if not isinstance(given, list | tuple):
        raise TypeError(f"settings are {given!r}; expected options of faigfast.attribute")
    for options in given:
        yield None, options


def _checked(name: str | None, options: dict[str, Any]) -> MethodSettings:
    method = options.get("method", "faig")
    if method not in METHODS:
        guess = hint(str(method), METHODS)
        raise ValueError(f"method is {method!r}{guess}; expected one of {', '.join(METHODS)}")
    if method in WEIGHT_METHODS:
        known = [*WEIGHT_DEFAULTS[method], "name", *TAKEN]
        refuse_unknown(
            f"a setting of {method!r}, which looks at the weights alone,", options, known
        )
    else:
        refuse_unknown("a setting", options, [*DEFAULTS, "signed", "memory", "name", *TAKEN])
    if options.pop("signed", False):
        options["method"] = "signed"
    given_name = options.pop("name", None)
    name = name if name is not None else given_name
    resources = {key: options.pop(key, usual) for key, usual in TAKEN.items()}
    memory = options.pop("memory", None)
    everything = DEFAULTS | options
    schedule(*(everything[key] for key in ("rule", "steps", "tol", "emulate")))
    objective = everything["objective"]
    if isinstance(objective, str) and ":" in objective:
        objective = own_function("objective", objective)
    resolve_objective(objective)
    if not isinstance(objective, str) and function_identity(objective) is None:
        raise ValueError(
            f"objective is {objective!r}, which no later run could recognise; expected a name or a "
            "function of a module"
        )
    check_precision(everything["precision"])
    checked_pad(everything["pad"])
    seed = everything.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed!r}; expected an integer from 0 up")
    choose(everything["backend"], torch.device(resources["device"]), everything["precision"])
    parameters = everything["parameters"]
    if callable(parameters):
        raise TypeError(f"parameters are {parameters!r}; expected names or patterns")
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int)):
        raise TypeError(f"memory is {memory!r}; expected a number of bytes")
    for key in ("cpus", "gpus"):
        amount = resources[key]
        if isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            raise ValueError(f"{key} is {amount!r}; expected a number from 0 up")
    one = MethodSettings("", options, memory, **resources)
    return MethodSettings(name or _name_of(one), options, memory, **resources)


def _name_of(one: MethodSettings) -> str:
    """Name a setting after the options that differ from the defaults."""
    parts = [] if one.method == "faig" else [one.method]
    for key, value in one.options.items():
        if key != "method" and value != one.defaults[key]:
            parts.append(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}")
    return " ".join(parts) or "faig"
