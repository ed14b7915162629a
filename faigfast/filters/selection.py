"""The layers that the argument `parameters` selects."""

import fnmatch
import inspect
from collections.abc import Callable, Iterable
from math import prod

from torch import Tensor

from faigfast.filters.index import FilterIndex

Selection = str | Iterable[str] | Callable[[str, Tensor], bool]


def select(
    parameters: Selection | None, index: FilterIndex, state: dict[str, Tensor]
) -> frozenset[str]:
    """Select layers of the index by names, patterns or a predicate."""
    if parameters is None:
        return frozenset(index.layers)
    if callable(parameters):
        answers = {layer: _answer(parameters, layer, state[layer]) for layer in index.layers}
        for layer, answer in answers.items():
            shape, kind = getattr(answer, "shape", ()), str(getattr(answer, "dtype", "bool"))
            if prod(shape) != 1 or "bool" not in kind:
                raise TypeError(
                    f"parameters gives a {type(answer).__name__} {list(shape)} of {kind} for "
                    f"{layer!r}; expected True or False"
                )
        chosen = {layer for layer, answer in answers.items() if answer}
    else:
        if not isinstance(parameters, Iterable):
            raise TypeError(
                f"parameters is a {type(parameters).__name__}; expected names, patterns or a "
                "function"
            )
        chosen = set()
        for pattern in [parameters] if isinstance(parameters, str) else parameters:
            if not isinstance(pattern, str):
                raise TypeError(
                    f"parameters holds a {type(pattern).__name__}; expected names or patterns"
                )
            matches = {layer for layer in index.layers if fnmatch.fnmatchcase(layer, pattern)}
            if not matches:
                raise ValueError(
                    f"parameters holds {pattern!r}, which matches no convolution weight; expected "
                    f"names such as {index.layers[0]!r}"
                )
            chosen |= matches
    if not chosen:
        raise ValueError("parameters selects no convolution weight")
    return frozenset(chosen)


def _answer(predicate: Callable[[str, Tensor], bool], layer: str, weight: Tensor) -> bool:
    try:
        inspect.signature(predicate).bind(layer, weight)
    except ValueError:  # a built-in function without a signature, or a class
        try:
            return predicate(layer, weight)
        except (TypeError, ValueError) as problem:
            raise _not_a_predicate(problem) from None
    except TypeError as problem:
        raise _not_a_predicate(problem) from None
    return predicate(layer, weight)


def _not_a_predicate(problem: Exception) -> TypeError:
    return TypeError(f"parameters is a function, but not of (name, tensor): {problem}")
