"""Gradients that wait: what a convolution's input gets from the end of its block.

Where a block ends in `conv(act(conv(x))) + x`, x has two gradients. That of the sum comes first; it
waits here for the convolution that takes x, whose kernel adds it while it writes its own.
"""

import weakref
from typing import Any

import torch
from torch import Tensor


class Waiting:
    """The gradient of one value on its way past a convolution that takes this value.

    Parameters
    ----------
    source : object
        Stands for the value; only whether it is the same one matters.
    """

    def __init__(self, source: Any) -> None:
        self._source = weakref.ref(source)
        self.open = False
        self._gradient: Tensor | None = None

    def is_for(self, source: Any) -> bool:
        """Whether this is of the same value."""
        return self._source() is source

    def leave(self, gradient: Tensor) -> None:
        """Let a gradient wait, with others that do."""
        self._gradient = gradient if self._gradient is None else self._gradient + gradient

    def take(self) -> Tensor | None:
        """Give what waits; from now on nothing may."""
        self.open = False
        found, self._gradient = self._gradient, None
        return found


def mark(x: Tensor, waiting: Waiting) -> Tensor:
    """Tell the convolution that takes x what may wait for it."""
    x._faigfast_waiting = waiting  # type: ignore[attr-defined]
    return x


def expects(x: Tensor) -> Waiting | None:
    """Open what x was marked with: the convolution that asks takes it in its backward."""
    waiting: Waiting | None = getattr(x, "_faigfast_waiting", None)
    if waiting is not None:
        waiting.open = True
    return waiting


def past(x: Tensor, waiting: Waiting) -> Tensor:
    """Give x itself; its gradient waits if a convolution expects it, else it goes its own way."""
    return _Past.apply(x, waiting)


class _Past(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, waiting: Waiting) -> Tensor:
        ctx.waiting = waiting
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        if not ctx.waiting.open:
            return gradient, None
        ctx.waiting.leave(gradient)
        return None, None
