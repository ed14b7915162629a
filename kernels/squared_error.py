"""Squared errors of images at points of the line, and their gradient in the type of activations."""

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels.launch import Launch

BLOCK = 4096


@triton.jit(do_not_specialize=("images", "size", "blocks"))
def squared_error(y, gt, losses, most, images, size, blocks, BLOCK: tl.constexpr):
    """Sum and largest magnitude of BLOCK differences of one image at one point."""
    sample = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    value = tl.load(y + sample * size + at, mask=mask, other=0.0).to(tl.float32)
    value -= tl.load(gt + (sample % images) * size + at, mask=mask, other=0.0).to(tl.float32)
    to = sample * blocks + tl.program_id(0)
    tl.store(losses + to, tl.sum(value * value, axis=0))
    tl.store(most + to, tl.max(tl.abs(value), axis=0))


@triton.jit(do_not_specialize=("images", "size"))
def squared_error_gradient(y, gt, weights, gy, images, size, BLOCK: tl.constexpr):
    """Gy = 2 · weight · (y − gt) of BLOCK numbers of one image at one point."""
    sample = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    value = tl.load(y + sample * size + at, mask=mask, other=0.0).to(tl.float32)
    value -= tl.load(gt + (sample % images) * size + at, mask=mask, other=0.0).to(tl.float32)
    value *= 2.0 * tl.load(weights + sample)
    tl.store(gy + sample * size + at, value.to(gy.dtype.element_ty), mask=mask)


def blocks_of(size: int) -> int:
    """Count the blocks of an image."""
    return int(triton.cdiv(size, BLOCK))


def loss_launch(y: Tensor, gt: Tensor, losses: Tensor, most: Tensor) -> Launch:
    """Fill losses, most [P, N, blocks] in float32, from y [P, N, E] and gt [N, E], contiguous."""
    points, images, size = y.shape
    arguments = {
        "y": y, "gt": gt, "losses": losses, "most": most, "images": images, "size": size,
        "blocks": losses.shape[2], "BLOCK": BLOCK,
    }  # fmt: skip
    return Launch(squared_error, (losses.shape[2], points * images), arguments)


def gradient_launch(y: Tensor, gt: Tensor, weights: Tensor, gy: Tensor) -> Launch:
    """Fill gy [P, N, E] from weights [P, N] in float32."""
    points, images, size = y.shape
    arguments = {
        "y": y, "gt": gt, "weights": weights, "gy": gy, "images": images, "size": size,
        "BLOCK": BLOCK,
    }  # fmt: skip
    return Launch(squared_error_gradient, (blocks_of(size), points * images), arguments)
