"""Squared errors of all images at all points, and their gradient in one pass."""

from typing import Any

from torch import Tensor

from faigfast.ops.line import wide
from faigfast.ops.table import operation


@operation
def squared_error(y: Tensor, gt: Tensor) -> Tensor:
    """Σ (y − gt)² of each image at each point, as `faigfast.objective.squared_error`.

    Parameters
    ----------
    y : Tensor
        [P, N, E].
    gt : Tensor
        [N, E], of y's type or float32.

    Returns
    -------
    Tensor
        [P, N], in at least float32.
    """
    return (y.to(wide(y.dtype)) - gt).square().sum(2)


@operation
def squared_error_backward(y: Tensor, gt: Tensor, weights: Tensor) -> Tensor:
    """Give 2·weights·(y − gt) in the type of y, for the gradient at each loss: weights [P, N]."""
    difference = y.to(wide(y.dtype)) - gt
    return (2 * weights.unsqueeze(2) * difference).to(y.dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
    return squared_error_backward(*ctx.saved_tensors, weights), None


squared_error.register_autograd(_backward, setup_context=_setup_context)
