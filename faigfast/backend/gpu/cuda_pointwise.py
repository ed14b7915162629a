"""Score reduction and the gradient of squared errors on an NVIDIA GPU."""

import torch
from torch import Tensor

from faigfast.backend.gpu.cuda_launch import TYPES, extension, on, refuses
from faigfast.ops.path_values import address
from faigfast.ops.registry import kernel
from faigfast.ops.score_reduction import check_arguments
from faigfast.ops.squared_error import operation as squared_error  # noqa: F401  registers it


def _refuses_scores(total: Tensor, delta: Tensor) -> str:
    check_arguments(total, delta)
    return refuses(total, delta, types=(torch.float32, torch.float64))


@kernel("cuda", "score_reduction", _refuses_scores, "cuda")
def scores(total: Tensor, delta: Tensor) -> Tensor:
    """As `faigfast.ops.score_reduction`; channels-last gradients need no copy."""
    taps = delta.shape[2:].numel()
    images, outputs, inputs = total.shape[:3]
    inputs_last = total.movedim(2, -1).is_contiguous()
    if inputs_last:
        total, delta = total.movedim(2, -1), delta.movedim(1, -1)
    total, delta = total.contiguous(), delta.contiguous()
    filter_scores = total.new_empty(images, outputs * inputs)
    with on(total.device) as where:
        extension().score_reduction(
            **where, type=TYPES[total.dtype], images=images, outputs=outputs, inputs=inputs,
            taps=taps, taps_last=not inputs_last, total=address(total), delta=address(delta),
            scores=address(filter_scores),
        )  # fmt: skip
    return filter_scores


def _refuses_errors(y: Tensor, gt: Tensor, weights: Tensor) -> str:
    why = refuses(y, gt)
    if not why and gt.dtype not in (y.dtype, torch.float32):
        why = f"y is of {y.dtype} and gt of {gt.dtype}"
    return why


@kernel("cuda", "squared_error_backward", _refuses_errors, "cuda")
def squared_error_gradient(y: Tensor, gt: Tensor, weights: Tensor) -> Tensor:
    """As `faigfast.ops.squared_error.operation.squared_error_backward`."""
    y, gt = y.contiguous(), gt.contiguous()
    gy, factors = torch.empty_like(y), weights.to(torch.float32).contiguous()
    points, images, size = y.shape
    with on(y.device) as where:
        extension().loss_gradient(
            **where, type=TYPES[y.dtype], gt_type=TYPES[gt.dtype], points=points, images=images,
            size=size, y=address(y), gt=address(gt), weights=address(factors), gy=address(gy),
        )  # fmt: skip
    return gy
