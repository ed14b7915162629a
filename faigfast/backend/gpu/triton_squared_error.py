"""Squared errors and their gradient by Triton kernels."""

import torch
from torch import Tensor

from faigfast.backend.gpu.triton_conv import refuses
from faigfast.ops.registry import kernel
from faigfast.ops.squared_error import operation as _squared_error  # noqa: F401  registers the operation


@kernel("triton", "squared_error", lambda y, gt: refuses(y, gt), "cuda", notes_refusal=False)
@kernel("triton", "squared_error", lambda y, gt: refuses(y, gt), "triton")
def squared_error(y: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.squared_error.operation.squared_error`."""
    from faigfast.kernels.squared_error import blocks_of, loss_launch

    losses = y.new_empty(*y.shape[:2], blocks_of(y.shape[2]), dtype=torch.float32)
    most = torch.empty_like(losses)
    loss_launch(y.contiguous(), gt.contiguous(), losses, most).run()
    return losses.sum(2), most.amax(2)


@kernel("triton", "squared_error_backward", lambda y, gt, _: refuses(y, gt), "cuda", False)
@kernel("triton", "squared_error_backward", lambda y, gt, _: refuses(y, gt), "triton")
def squared_error_backward(y: Tensor, gt: Tensor, weights: Tensor) -> Tensor:
    """As `faigfast.ops.squared_error.operation.squared_error_backward`."""
    from faigfast.kernels.squared_error import gradient_launch

    y = y.contiguous()
    gy = torch.empty_like(y)
    gradient_launch(y, gt.contiguous(), weights.float().contiguous(), gy).run()
    return gy
