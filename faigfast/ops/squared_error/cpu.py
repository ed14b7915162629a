"""Squared errors and their gradient by C++ kernels: float32 on a CPU."""

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.cpu.allocator import empty
from faigfast.ops.path_values import address
from faigfast.ops.registry import kernel
from faigfast.ops.squared_error import operation as _squared_error  # noqa: F401  registers the operation


def _refuses(*parts: Tensor) -> str:
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    for part in parts:
        if part.device.type != "cpu":
            return f"tensors are on {part.device}"
        if part.dtype != torch.float32:
            return f"tensors are of {part.dtype}"
    return "" if parts[0].numel() else "there is nothing to compute"


@kernel("simd", "squared_error", _refuses, "cpu")
def squared_error(y: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.squared_error.operation.squared_error`."""
    y, gt = y.contiguous(), gt.contiguous()
    losses, most = y.new_empty(y.shape[:2]), y.new_empty(y.shape[:2])
    _extension.module.squared_error(  # type: ignore[union-attr]
        y=address(y), gt=address(gt), losses=address(losses), most=address(most),
        shape=y.shape, threads=torch.get_num_threads(),
    )  # fmt: skip
    return losses, most


@kernel("simd", "squared_error_backward", _refuses, "cpu")
def squared_error_backward(y: Tensor, gt: Tensor, weights: Tensor) -> Tensor:
    """As `faigfast.ops.squared_error.operation.squared_error_backward`."""
    y, gt, weights = y.contiguous(), gt.contiguous(), weights.contiguous()
    gy = empty(*y.shape)
    _extension.module.squared_error_backward(  # type: ignore[union-attr]
        y=address(y), gt=address(gt), weights=address(weights), gy=address(gy),
        shape=y.shape, threads=torch.get_num_threads(),
    )  # fmt: skip
    return gy
