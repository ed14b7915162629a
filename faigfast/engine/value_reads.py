"""Reads and writes that depend on values, as a functional trace computes them: without Python.

`t.item()` becomes the detached scalar. `y[m] = 2 * x[m] + 1` becomes `where(m, 2 * x + 1, y)`,
whose shapes do not depend on values. Selected values may be shifted, scaled and taken modulo
numbers; another operation may have no finite gradient at the pixels outside the mask.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from faigfast.engine.not_captured import NotCaptured

Number = bool | int | float
NodeOf = Callable[[Tensor], fx.Node | None]
MASKED = "data-dependent: an index by a mask of values"


def replacement_of(func: Any, args: tuple[Any, ...], node_of: NodeOf) -> Callable[[], Any] | None:
    """Give the computation that replaces a call in a functional trace; None: the call stays.

    Parameters
    ----------
    func : callable
        A function or method of torch.
    args : tuple
        Its arguments.
    node_of : callable
        From a tensor to its node in the trace; None for a constant.
    """
    if func is Tensor.item:
        if not args[0].is_floating_point() or node_of(args[0]) is None:
            return None
        return lambda: args[0].detach().clone().reshape(())
    if func not in (Tensor.__getitem__, Tensor.__setitem__):
        return None
    values, mask, *new = args
    if not _is_mask(mask, values) or node_of(mask) is None:
        return None
    if not new:  # the network may write on the values before it uses what it read
        return lambda: MaskedValues(values.clone(), node_of(mask))
    if isinstance(new[0], MaskedValues):
        return partial(_write_masked, values, mask, new[0], node_of)
    scalar = isinstance(new[0], Number) or (isinstance(new[0], Tensor) and not new[0].ndim)
    return partial(_write, values, mask, new[0]) if scalar else None


class MaskedValues:
    """The values `values[mask]`, computed at every pixel.

    Parameters
    ----------
    values : Tensor
        Of the shape of the mask.
    mask : Node
        The mask in the functional trace, as it was when the values were read.
    """

    def __init__(self, values: Tensor, mask: fx.Node | None) -> None:
        self.values, self.mask = values, mask

    def _with(self, other: Any, operation: Callable[[Tensor, Number], Tensor]) -> "MaskedValues":
        if not isinstance(other, Number):
            raise NotCaptured(MASKED)
        return MaskedValues(operation(self.values, other), self.mask)

    def __add__(self, other: Any) -> "MaskedValues":
        return self._with(other, lambda x, number: x + number)

    def __sub__(self, other: Any) -> "MaskedValues":
        return self._with(other, lambda x, number: x - number)

    def __rsub__(self, other: Any) -> "MaskedValues":
        return self._with(other, lambda x, number: number - x)

    def __mul__(self, other: Any) -> "MaskedValues":
        return self._with(other, lambda x, number: x * number)

    def __truediv__(self, other: Any) -> "MaskedValues":
        return self._with(other, lambda x, number: x / number)

    def __mod__(self, other: Any) -> "MaskedValues":
        return self._with(other, lambda x, number: x % number)

    __radd__, __rmul__ = __add__, __mul__

    def __getattr__(self, name: str) -> Any:
        raise NotCaptured(MASKED)

    def __eq__(self, other: object) -> bool:
        raise NotCaptured(MASKED)

    def __bool__(self) -> bool:
        raise NotCaptured(MASKED)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> Any:
        raise NotCaptured(MASKED)


def _is_mask(index: Any, values: Tensor) -> bool:
    """Whether an index is a mask of all axes."""
    return isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == values.shape


def _write_masked(values: Tensor, mask: Tensor, new: MaskedValues, node_of: NodeOf) -> None:
    if not _same(new.mask, node_of(mask)):
        raise NotCaptured(MASKED)
    _write(values, mask, new.values)


def _write(values: Tensor, mask: Tensor, new: Tensor | Number) -> None:
    """Write `new`, of the shape of `values` or a number, where the mask is True."""
    if not isinstance(new, Tensor):
        new = values.new_full((), new)
    values.copy_(torch.where(mask, new.to(values.dtype), values))


def _same(one: Any, other: Any) -> bool:
    """Whether two nodes of a functional trace, or their arguments, are the same computation."""
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return type(one) is type(other) and one == other
    if one is other:
        return True
    return (
        one.op == other.op == "call_function"
        and one.target == other.target
        and len(one.args) == len(other.args)
        and one.kwargs == other.kwargs
        and all(map(_same, one.args, other.args))
    )
