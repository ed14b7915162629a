"""Path convolution, forward: an implicit product of matrices over the taps of the kernel."""

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels import tiles
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch
from faigfast.kernels.modes import KINDS
from faigfast.kernels.parts import (
    activated,
    input_line,
    on_line,
    pixel,
    places,
    product,
    slopes,
)

SIZES = ("samples", "height", "width", "out_height", "out_width", "x_rows", "rest_rows")


@triton.jit(do_not_specialize=SIZES)
def conv_forward(
    x, w, b0, db, s0, ds, alpha, rest, y, saved,
    samples, height, width, out_height, out_width, x_rows, rest_rows, slope, scale,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, SHUFFLE: tl.constexpr, ACTIVATION: tl.constexpr,
    SHARED: tl.constexpr, KEEPS: tl.constexpr, MODE: tl.constexpr, KIND: tl.constexpr,
    EACH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Y = scale · act(conv(x, γ(α)) + γ_b(α)) + rest, of M pixels and N channels at one point.

    Offsets of tiles are 64 bit, offsets within a tile 32 bit.
    """
    point = tl.program_id(2).to(tl.int64)
    a = tl.load(alpha + point)
    pixels = samples * out_height * out_width
    start = tl.program_id(0) * M
    q = start + tl.arange(0, M)
    o = tl.program_id(1) * N + tl.arange(0, N)
    c = tl.arange(0, K)
    image, line, column = pixel(q, out_height, out_width)
    near = input_line(start, height, out_height, out_width, SH)
    x += (point * x_rows + near * width) * C
    first = (image * height - near) * width
    top = line * SH - PH
    left = column * SW - PW
    if EACH:  # a constant multiple of C, so that the compiler knows the alignment
        w += point * (O * KH * KW * C)
    BLOCKS: tl.constexpr = (C + K - 1) // K
    total = tl.zeros((M, N), dtype=tl.float32)
    for k in range(KH * KW * BLOCKS):
        tap = k // BLOCKS
        at = (k % BLOCKS) * K + c
        v = top + (tap // KW) * DH
        u = left + (tap % KW) * DW
        inside = (q < pixels) & (v >= 0) & (v < height) & (u >= 0) & (u < width)
        row = first + v * width + u
        tile = tl.load(
            x + row[:, None] * C + at[None, :],
            mask=inside[:, None] & (at < C)[None, :], other=0.0,
        )  # fmt: skip
        weights = tl.load(
            w + o[None, :] * (KH * KW * C) + tap * C + at[:, None],
            mask=(o < O)[None, :] & (at < C)[:, None], other=0.0,
        )  # fmt: skip
        total = product(tile.to(KIND), weights, total, MODE)
    if b0 is not None:
        total += on_line(b0, db, o, o < O, a)[None, :]
    mask = (q < pixels)[:, None] & (o < O)[None, :]
    kept = total
    total = activated(total, slopes(s0, ds, slope, o, a, O, SHARED, SHUFFLE), ACTIVATION)
    if KEEPS == "output":
        kept = total
    start_line = start // out_width
    to = places(image * out_height + line - start_line, column, out_width, o, O, SHUFFLE)
    before = start_line * out_width
    whole = (point * pixels + before) * O
    if KEEPS != "":
        tl.store(saved + whole + to, kept.to(saved.dtype.element_ty), mask=mask)
    if scale is not None:
        total *= scale
    if rest is not None:
        rest += point * rest_rows * (O // (SHUFFLE * SHUFFLE)) + before.to(tl.int64) * O
        total += tl.load(rest + to, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + whole + to, total.to(y.dtype.element_ty), mask=mask)


def launch(
    x: Tensor, w: Tensor, b: tuple[Tensor | None, Tensor | None],
    s: tuple[Tensor | None, Tensor | None], alpha: Tensor, rest: Tensor | None, y: Tensor,
    saved: Tensor | None, keeps: str, geometry: Geometry, activation: str, slope: float,
    scale: float, mode: str,
) -> Launch:  # fmt: skip
    """Prepare the forward convolution.

    Parameters
    ----------
    x : Tensor
        [P, M, H, W, C] or [1, M, H, W, C], contiguous.
    w : Tensor
        γ [P, O, *k, C] or [1, O, *k, C] in the type of `mode`.
    b, s : tuple of Tensor
        Bias [O], slope [O/r²] or [1], baseline and Δ each.
    rest : Tensor, optional
        Residual, as y or [1, ...].
    y, saved : Tensor
        [P, M, r·H', r·W', O/r²], to be filled.
    keeps : str
        Content of `saved`: the activation's "input" or "output"; "": nothing is saved.
    activation : str
        none, relu or leaky; `s`, if given, is its slope.
    """
    points, samples, outputs = len(alpha), x.shape[1], geometry.outputs
    pixels = samples * geometry.out_height * geometry.out_width
    arguments: dict[str, Any] = {
        "x": x, "w": w, "b0": b[0], "db": b[1], "s0": s[0], "ds": s[1],
        "alpha": alpha, "rest": rest, "y": y, "saved": saved, "samples": samples,
        "height": geometry.height, "width": geometry.width, "out_height": geometry.out_height,
        "out_width": geometry.out_width, "x_rows": rows_of_point(x), "EACH": len(w) > 1,
        "rest_rows": 0 if rest is None else rows_of_point(rest), "slope": slope,
        "scale": None if scale == 1 else scale,
        **geometry.constants(), "SHUFFLE": geometry.shuffle, "ACTIVATION": activation,
        "SHARED": s[0] is not None and s[0].numel() == 1, "KEEPS": keeps, "MODE": mode,
        "KIND": KINDS[mode],
    }  # fmt: skip

    def grid(tile: Mapping[str, Any]) -> tuple[int, int, int]:
        return triton.cdiv(pixels, tile["M"]), triton.cdiv(outputs, tile["N"]), points

    return Launch(conv_forward, grid, arguments, tiles.forward(mode, outputs, geometry.channels))


def rows_of_point(x: Tensor) -> int:
    """Pixels from one point to the next in [P, M, H, W, C]; 0 if all points share the pixels."""
    return x[0, ..., 0].numel() if len(x) > 1 else 0
