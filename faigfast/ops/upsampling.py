"""Nearest-neighbour upsampling on a CPU, into memory of the extension's pool."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from faigfast.backend.cpu.allocator import empty
from faigfast.ops.registry import in_use

aten = torch.ops.aten


def serves(x: Tensor) -> bool:
    """Whether `upsample_nearest` serves images [..., C, H, W], and the backend is "cpu"."""
    plain = type(x) is Tensor and x.dtype == torch.float32 and x.device.type == "cpu"
    return in_use().backend == "cpu" and plain and x.movedim(-3, -1).is_contiguous()


def upsample_nearest(
    x: Tensor, output_size: Sequence[int] | None, scale_factors: Sequence[float] | None
) -> Tensor:
    """As `aten::upsample_nearest2d.vec`, of float32 on a CPU.

    Parameters
    ----------
    x : Tensor
        [B, C, H, W], dense and channels-last.
    output_size : sequence of int, optional
        Height and width of the result.
    scale_factors : sequence of float, optional
        Used where there is no size.
    """
    size, factors = output_size, scale_factors
    if size is None:
        assert factors is not None
        size = [int(extent * factor) for extent, factor in zip(x.shape[2:], factors, strict=True)]
    return _Nearest.apply(x, list(size), list(factors or (None, None)))


def _images(batch: int, channels: int, height: int, width: int) -> Tensor:
    return empty(batch, height, width, channels).movedim(-1, 1)


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: list[int], factors: list[float | None]) -> Tensor:
        ctx.geometry = size, x.shape, *factors
        return aten.upsample_nearest2d.out(x, size, *factors, out=_images(*x.shape[:2], *size))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None, None]:
        gx = _images(*ctx.geometry[1])
        aten.upsample_nearest2d_backward.grad_input(gy, *ctx.geometry, grad_input=gx)
        return gx, None, None
