"""Squared errors of all images at all points, and their gradient in one pass."""

from typing import Any

from torch import Tensor

from faigfast.ops.line import wide
from faigfast.ops.table import operation


@operation
def squared_error(y: Tensor, gt: Tensor) -> Tensor:
    """‖y − gt‖², summed over each image at each point, as `faigfast.objective.squared_error`.

    Parameters
    ----------
    y : Tensor
        [P, N, *own].
    gt : Tensor
        [N, *own].

    Returns
    -------
    Tensor
        [P, N], in at least float32.
    """
    kind = wide(y.dtype)
    return (y.to(kind) - gt.to(kind)).square().flatten(2).sum(2)


@operation
def squared_error_backward(weights: Tensor, y: Tensor, gt: Tensor) -> Tensor:
    """Give 2·weights·(y − gt), for the gradient at each loss: weights [P, N]."""
    kind = wide(y.dtype)
    factor = 2 * weights.to(kind).view(*weights.shape, *[1] * (y.ndim - 2))
    return (factor * (y.to(kind) - gt.to(kind))).to(y.dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None]:
    return squared_error_backward(weights, *ctx.saved_tensors), None


squared_error.register_autograd(_backward, setup_context=_setup_context)
