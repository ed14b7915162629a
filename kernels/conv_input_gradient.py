"""Gradient of the path convolution at its input, with the activation's mask in the load of gy."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch, Tile
from faigfast.kernels.modes import KINDS
from faigfast.kernels.parts import gated, pixel, places, product, slopes, weight_tile

SIZES = ("samples", "height", "width", "out_height", "out_width")


@triton.jit(do_not_specialize=SIZES)
def conv_input_gradient(
    gy, saved, w0, dw, s0, ds, alpha, gx,
    samples, height, width, out_height, out_width, slope, scale,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, SHUFFLE: tl.constexpr, ACTIVATION: tl.constexpr,
    SHARED: tl.constexpr, MODE: tl.constexpr, KIND: tl.constexpr,
    FORMED: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Fill gx of M pixels and N channels at one point; offsets as in the forward convolution."""
    point = tl.program_id(2).to(tl.int64)
    a = tl.load(alpha + point)
    pixels = samples * height * width
    start = tl.program_id(0) * M
    q = start + tl.arange(0, M)
    c = tl.program_id(1) * N + tl.arange(0, N)
    image, line, column = pixel(q, height, width)
    bottom = line + PH
    right = column + PW
    start_image, start_line, _ = pixel(start, height, width)
    begin = start_image * out_height + start_line // SH
    first = image * out_height - begin
    before = (point * (samples * out_height * out_width) + begin * out_width) * O
    gy += before
    if ACTIVATION != "none":
        saved += before
    if FORMED:  # a constant multiple of C, so that the compiler knows the alignment
        w0 += point * (O * KH * KW * C)
    BLOCKS: tl.constexpr = (O + K - 1) // K
    total = tl.zeros((M, N), dtype=tl.float32)
    for k in range(KH * KW * BLOCKS):
        tap = k // BLOCKS
        o = (k % BLOCKS) * K + tl.arange(0, K)
        v = bottom - (tap // KW) * DH
        u = right - (tap % KW) * DW
        inside = (q < pixels) & (v >= 0) & (u >= 0)
        if SH > 1:
            inside = inside & (v % SH == 0)
            v = v // SH
        if SW > 1:
            inside = inside & (u % SW == 0)
            u = u // SW
        inside = inside & (v < out_height) & (u < out_width)
        at = places(first + v, u, out_width, o, O, SHUFFLE)
        mask = inside[:, None] & (o < O)[None, :]
        g = tl.load(gy + at, mask=mask, other=0.0)
        if scale is not None:
            g = g.to(tl.float32) * scale
        if ACTIVATION != "none":
            z = tl.load(saved + at, mask=mask, other=0.0)
            g = gated(g, z, slopes(s0, ds, slope, o, a, O, SHARED, SHUFFLE), ACTIVATION)
        w = weight_tile(
            w0, dw, o[:, None] * (KH * KW * C) + tap * C + c[None, :],
            (o < O)[:, None] & (c < C)[None, :], a, KIND,
        )  # fmt: skip
        total = product(g.to(KIND), w, total, MODE)
    mask = (q < pixels)[:, None] & (c < C)[None, :]
    gx += (point * pixels + start) * C
    to = tl.arange(0, M)[:, None] * C + c[None, :]
    tl.store(gx + to, total.to(gx.dtype.element_ty), mask=mask)


def launch(
    gy: Tensor, saved: Tensor | None, w: tuple[Tensor, Tensor | None],
    s: tuple[Tensor | None, Tensor | None], alpha: Tensor, gx: Tensor, geometry: Geometry,
    activation: str, slope: float, scale: float, mode: str, tile: Tile,
) -> Launch:  # fmt: skip
    """Prepare the input gradient.

    Parameters
    ----------
    gy, saved : Tensor
        [P, M, r·H', r·W', O/r²], contiguous: ∂L/∂y, and a tensor with the sign of the activation.
    w : tuple of Tensor
        As in the forward convolution.
    gx : Tensor
        [P, M, H, W, C], to be filled.
    activation : str
        none, relu or leaky; `s`, if given, is its slope.
    """
    points, samples = gx.shape[:2]
    arguments: dict[str, Any] = {
        "gy": gy, "saved": saved, "w0": w[0], "dw": w[1], "s0": s[0], "ds": s[1], "alpha": alpha,
        "gx": gx, "samples": samples, "height": geometry.height, "width": geometry.width,
        "out_height": geometry.out_height, "out_width": geometry.out_width,
        "FORMED": w[0].ndim == 5, "slope": slope, "scale": None if scale == 1 else scale,
        **geometry.constants(), "ACTIVATION": activation,
        "SHARED": s[0] is not None and s[0].numel() == 1, "MODE": mode, "KIND": KINDS[mode],
        "M": tile.m, "N": tile.n, "K": tile.k,
    }  # fmt: skip
    pixels = samples * geometry.height * geometry.width
    grid = (triton.cdiv(pixels, tile.m), triton.cdiv(geometry.channels, tile.n), points)
    return Launch(conv_input_gradient, grid, arguments, tile.warps, tile.stages)
