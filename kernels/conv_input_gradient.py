"""Gradient of the path convolution at its input, from the gradient at its own result."""

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels import tiles
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch
from faigfast.kernels.modes import KINDS
from faigfast.kernels.parts import pixel, product

SIZES = ("samples", "height", "width", "out_height", "out_width")


@triton.jit(do_not_specialize=SIZES)
def conv_input_gradient(
    g, w, gx,
    samples, height, width, out_height, out_width,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, MODE: tl.constexpr, KIND: tl.constexpr, EACH: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Fill gx of M pixels and N channels at one point; offsets as in the forward convolution."""
    point = tl.program_id(2).to(tl.int64)
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
    g += (point * (samples * out_height * out_width) + begin * out_width) * O
    if EACH:  # a constant multiple of C, so that the compiler knows the alignment
        w += point * (O * KH * KW * C)
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
        tile = tl.load(
            g + ((first + v) * out_width + u)[:, None] * O + o[None, :],
            mask=inside[:, None] & (o < O)[None, :], other=0.0,
        )  # fmt: skip
        weights = tl.load(
            w + o[:, None] * (KH * KW * C) + tap * C + c[None, :],
            mask=(o < O)[:, None] & (c < C)[None, :], other=0.0,
        )  # fmt: skip
        total = product(tile.to(KIND), weights, total, MODE)
    mask = (q < pixels)[:, None] & (c < C)[None, :]
    gx += (point * pixels + start) * C
    to = tl.arange(0, M)[:, None] * C + c[None, :]
    tl.store(gx + to, total.to(gx.dtype.element_ty), mask=mask)


def launch(g: Tensor, w: Tensor, gx: Tensor, geometry: Geometry, mode: str) -> Launch:
    """Prepare the input gradient.

    Parameters
    ----------
    g : Tensor
        [P, M, H', W', O], contiguous: the gradient at the convolution's own result.
    w : Tensor
        As in the forward convolution.
    gx : Tensor
        [P, M, H, W, C], to be filled.
    """
    points, samples = gx.shape[:2]
    arguments: dict[str, Any] = {
        "g": g, "w": w, "gx": gx, "samples": samples, "height": geometry.height,
        "width": geometry.width, "out_height": geometry.out_height,
        "out_width": geometry.out_width, **geometry.constants(), "EACH": len(w) > 1,
        "MODE": mode, "KIND": KINDS[mode],
    }  # fmt: skip
    pixels, channels = samples * geometry.height * geometry.width, geometry.channels

    def grid(tile: Mapping[str, Any]) -> tuple[int, int, int]:
        return triton.cdiv(pixels, tile["M"]), triton.cdiv(channels, tile["N"]), points

    candidates = tiles.input_gradient(mode, channels, geometry.outputs)
    return Launch(conv_input_gradient, grid, arguments, candidates)
