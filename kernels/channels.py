"""Affine maps and PReLU of channels at many points of the line, and their gradients."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels.launch import Launch
from faigfast.kernels.parts import on_line

BLOCK = 2048  # elements of a tile
SIZES = ("images", "length", "size", "x_point")


@triton.jit
def line_of(w0, dw, c, alpha, C: tl.constexpr, SHARED: tl.constexpr):
    """Give γ(α) of channels c as a row, or one value for all channels if SHARED."""
    if SHARED:
        return on_line(w0, dw, c * 0, c < C, alpha)[None, :]
    else:
        return on_line(w0, dw, c, c < C, alpha)[None, :]


@triton.jit(do_not_specialize=SIZES)
def channels_forward(
    x, w0, dw, b0, db, alpha, y, images, length, size, x_point,
    C: tl.constexpr, SHARED: tl.constexpr, J: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """J × N elements of one image at one point: x·γ + γ_b, or PReLU without b0."""
    blocks = tl.cdiv(length * size, J)
    sample = tl.program_id(2).to(tl.int64)  # point · images + image
    point = sample // images
    a = tl.load(alpha + point)
    c = tl.program_id(1) * N + tl.arange(0, N)
    j = (tl.program_id(0) % blocks) * J + tl.arange(0, J)
    at = ((j // size) * (C * size) + j % size)[:, None] + c[None, :] * size
    mask = (j < length * size)[:, None] & (c < C)[None, :]
    whole = length * size * C
    value = tl.load(x + point * x_point + (sample % images) * whole + at, mask=mask, other=0.0)
    value = value.to(tl.float32)
    w = line_of(w0, dw, c, a, C, SHARED)
    if b0 is not None:
        value = value * w + on_line(b0, db, c, c < C, a)[None, :]
    else:
        value = tl.where(value > 0, value, value * w)
    tl.store(y + sample * whole + at, value.to(y.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def channels_backward(
    gy, x, w0, dw, alpha, gx, gw, gb, images, length, size, x_point,
    C: tl.constexpr, SHARED: tl.constexpr, PRELU: tl.constexpr, J: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """All of N channels of one image at one point: gx, and the sums gw and gb [P, N, C]."""
    sample = tl.program_id(1).to(tl.int64)
    point = sample // images
    a = tl.load(alpha + point)
    c = tl.program_id(0) * N + tl.arange(0, N)
    w = line_of(w0, dw, c, a, C, SHARED)
    whole = length * size * C
    x += point * x_point + (sample % images) * whole
    gy += sample * whole
    total_w = tl.zeros((N,), dtype=tl.float32)
    total_b = tl.zeros((N,), dtype=tl.float32)
    for block in range(tl.cdiv(length * size, J)):
        j = block * J + tl.arange(0, J)
        at = ((j // size) * (C * size) + j % size)[:, None] + c[None, :] * size
        mask = (j < length * size)[:, None] & (c < C)[None, :]
        g = tl.load(gy + at, mask=mask, other=0.0).to(tl.float32)
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        if gw is not None:
            total_w += tl.sum(g * (tl.minimum(value, 0.0) if PRELU else value), axis=0)
        if gb is not None:
            total_b += tl.sum(g, axis=0)
        if gx is not None:
            g = tl.where(value > 0, g, g * w) if PRELU else g * w
            tl.store(gx + sample * whole + at, g.to(gx.dtype.element_ty), mask=mask)
    if gw is not None:
        tl.store(gw + sample * C + c, total_w, mask=c < C)
    if gb is not None:
        tl.store(gb + sample * C + c, total_b, mask=c < C)


def forward_launch(
    x: Tensor, w: tuple[Tensor, Tensor | None], b: tuple[Tensor | None, Tensor | None],
    alpha: Tensor, y: Tensor,
) -> Launch:  # fmt: skip
    """Prepare y = x·γ + γ_b, or PReLU if b is (None, None).

    Parameters
    ----------
    x, y : Tensor
        [P, N, L, C, S] (x [1, …] if all points share it), contiguous.
    w, b : tuple of Tensor
        [C], baseline and Δ; w [1] if all channels share it.
    """
    arguments, j, n = _common(x, w, alpha, len(alpha))
    grid = (triton.cdiv(y.shape[2] * y.shape[4], j), triton.cdiv(y.shape[3], n), len(y) * len(y[0]))
    return Launch(channels_forward, grid, {**arguments, "x": x, "b0": b[0], "db": b[1], "y": y})


def backward_launch(
    gy: Tensor, x: Tensor, w: tuple[Tensor, Tensor | None], alpha: Tensor, gx: Tensor | None,
    gw: Tensor | None, gb: Tensor | None, prelu: bool,
) -> Launch:  # fmt: skip
    """Prepare gx [P, N, L, C, S], gw and gb [P, N, C] in float32; None skips a gradient."""
    arguments, _, n = _common(x, w, alpha, len(gy))
    arguments |= {"gy": gy, "x": x, "gx": gx, "gw": gw, "gb": gb, "PRELU": prelu}
    grid = (triton.cdiv(gy.shape[3], n), len(gy) * gy.shape[1])
    return Launch(channels_backward, grid, arguments)


def _common(
    x: Tensor, w: tuple[Tensor, Tensor | None], alpha: Tensor, points: int
) -> tuple[dict[str, Any], int, int]:
    _, images, length, channels, size = x.shape
    # Tiles follow memory: adjacent channels, or adjacent pixels of one channel.
    n = min(int(triton.next_power_of_2(channels)), 32) if size < 32 else 1
    j = BLOCK // n
    return {
        "w0": w[0], "dw": w[1], "alpha": alpha, "images": images, "length": length, "size": size,
        "x_point": x[0].numel() if len(x) > 1 else 0, "C": channels,
        "SHARED": w[0].numel() == 1 and channels > 1, "J": j, "N": n,
    }, j, n  # fmt: skip
