"""Squared errors of all images at all points, whose gradient comes in the type of activations."""

from typing import Any

import torch
from torch import Tensor

from faigfast.ops.path_values import wide
from faigfast.ops.registry import in_use, operation


@operation
def squared_error(y: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Σ (y − gt)² of each image at each point, in at least float32.

    Parameters
    ----------
    y : Tensor
        [P, N, E].
    gt : Tensor
        [N, E].

    Returns
    -------
    losses : Tensor
        [P, N].
    most : Tensor
        [P, N], the largest |y − gt|.
    """
    difference = y.to(wide(y.dtype)) - gt
    return difference.square().sum(2), torch.linalg.vector_norm(difference, torch.inf, 2)


@operation
def squared_error_backward(y: Tensor, gt: Tensor, weights: Tensor) -> Tensor:
    """Gradient 2 · weight · (y − gt) in the type of y, of weights [P, N]."""
    difference = y.to(wide(y.dtype)) - gt
    return (2 * weights.unsqueeze(2) * difference).to(y.dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, weights: Tensor | None, _: Any) -> tuple[Tensor | None, None]:
    if weights is None:
        return None, None
    y, gt, most = ctx.saved_tensors
    scale = in_use().scale
    if scale is not None:
        weights = weights * scale.factor((2 * weights * most).abs().amax(0))
    return squared_error_backward(y, gt, weights), None


squared_error.register_autograd(_backward, setup_context=_setup_context)


def flat(value: Tensor, first: int) -> Tensor:
    """Flatten all but the first dimensions; channels go last, where kernels leave them."""
    return (value.movedim(-3, -1) if value.ndim >= first + 3 else value).flatten(first)


def fits(output: Tensor, points: int, gt: Tensor) -> bool:
    """Whether an output [P, N, 1, *own] has the shape of gt at every point, and a type for sums."""
    known = output.dtype in (torch.float16, torch.bfloat16, torch.float32)
    return known and output.shape == (points, len(gt), 1, *gt.shape[1:])
