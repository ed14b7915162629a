"""Gradient at a convolution's own result: the activation's mask, the factor and the shuffle undone.

The same pass sums it for the bias, and g·z for the slope of PReLU, image by image.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels.launch import Launch
from faigfast.kernels.parts import gated, pixel, places, slopes

BLOCK = 4096  # numbers of a tile
SIZES = ("images", "together", "points", "height", "width", "runs", "share")


@triton.jit(do_not_specialize=SIZES)
def mask_gradient(
    gy, saved, s0, ds, alpha, g, gb, gs,
    images, together, points, height, width, runs, share, slope, scale,
    O: tl.constexpr, SHUFFLE: tl.constexpr, ACTIVATION: tl.constexpr, SHARED: tl.constexpr,
    J: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Fill N channels of a share of an image's tiles of J pixels at all points."""
    o = tl.program_id(0) * N + tl.arange(0, N)
    n = tl.program_id(1).to(tl.int64)
    pixels = together * height * width  # of one image at one point
    total_b = tl.zeros((J, N), dtype=tl.float32)
    total_s = tl.zeros((J, N), dtype=tl.float32)
    start = tl.program_id(2) * share
    for unit in range(start, tl.minimum(start + share, points * runs)):
        point = (unit // runs).to(tl.int64)
        whole = (point * images + n) * pixels * O
        q = (unit % runs) * J + tl.arange(0, J)
        sample, line, column = pixel(q, height, width)
        row = (sample * height + line).to(tl.int64)
        at = whole + places(row, column, width, o, O, SHUFFLE)
        mask = (q < pixels)[:, None] & (o < O)[None, :]
        value = tl.load(gy + at, mask=mask, other=0.0).to(tl.float32) * scale
        if ACTIVATION != "none":
            z = tl.load(saved + at, mask=mask, other=0.0)
            if gs is not None:
                total_s += value * tl.minimum(z.to(tl.float32), 0.0)
            a = tl.load(alpha + point)
            value = gated(value, z, slopes(s0, ds, slope, o, a, O, SHARED, SHUFFLE), ACTIVATION)
        if gb is not None:
            total_b += value
        if g is not None:
            to = whole + q.to(tl.int64)[:, None] * O + o[None, :]
            tl.store(g + to, value.to(g.dtype.element_ty), mask=mask)
    to = (tl.program_id(2).to(tl.int64) * images + n) * O + o  # [shares, N, O]
    if gb is not None:
        tl.store(gb + to, tl.sum(total_b, axis=0), mask=o < O)
    if gs is not None:
        tl.store(gs + to, tl.sum(total_s, axis=0), mask=o < O)


def launch(
    gy: Tensor, saved: Tensor | None, s: tuple[Tensor | None, Tensor | None], alpha: Tensor,
    g: Tensor | None, gb: Tensor | None, gs: Tensor | None, images: int, shares: int,
    size: tuple[int, int], channels: int, shuffle: int, activation: str, slope: float,
    scale: float,
) -> Launch:  # fmt: skip
    """Prepare g [P, M, H', W', O], and gb, gs [S, N, O] in float32; None skips a result.

    Parameters
    ----------
    gy, saved : Tensor
        [P, M, r·H', r·W', O/r²], contiguous: ∂L/∂y, and a tensor with the sign of the activation.
    s : tuple of Tensor
        Slope [O/r²] or [1] and its Δ, or (None, None).
    shares : int
        S, from `shares_of`.
    size : (int, int)
        H', W'.
    """
    points, samples = gy.shape[:2]
    j, n = tile_of(channels)
    runs = triton.cdiv(samples // images * size[0] * size[1], j)
    arguments: dict[str, Any] = {
        "gy": gy, "saved": saved, "s0": s[0], "ds": s[1], "alpha": alpha, "g": g, "gb": gb,
        "gs": gs, "images": images, "together": samples // images, "points": points,
        "height": size[0], "width": size[1], "runs": runs,
        "share": triton.cdiv(points * runs, shares), "slope": slope, "scale": scale,
        "O": channels, "SHUFFLE": shuffle, "ACTIVATION": activation,
        "SHARED": s[0] is not None and s[0].numel() == 1, "J": j, "N": n,
    }  # fmt: skip
    return Launch(mask_gradient, (triton.cdiv(channels, n), images, shares), arguments)


def tile_of(channels: int) -> tuple[int, int]:
    """Pixels and channels of a tile."""
    n = min(int(triton.next_power_of_2(channels)), 64)
    return BLOCK // n, n


def shares_of(points: int, pixels: int, images: int, channels: int, programs: int) -> int:
    """Count the shares of an image's tiles, of so many pixels a point, that make the programs."""
    j, n = tile_of(channels)
    units = points * triton.cdiv(pixels, j)
    wanted = max(1, min(units, programs // (triton.cdiv(channels, n) * images)))
    return int(triton.cdiv(units, triton.cdiv(units, wanted)))  # no share is empty
