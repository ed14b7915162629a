"""Gradient of the path convolution at its input, with the activation's mask in the load of gy."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels import tiles
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch
from faigfast.kernels.modes import KINDS
from faigfast.kernels.parts import gated, pixel, places, product, slopes

SIZES = ("samples", "height", "width", "out_height", "out_width")


@triton.jit(do_not_specialize=SIZES)
def conv_input_gradient(
    gy, saved, w, s0, ds, alpha, more, before, gx,
    samples, height, width, out_height, out_width, slope, scale, before_slope,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, SHUFFLE: tl.constexpr, ACTIVATION: tl.constexpr,
    SHARED: tl.constexpr, MODE: tl.constexpr, KIND: tl.constexpr,
    BEFORE: tl.constexpr, EACH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Fill gx of M pixels and N channels at one point; offsets as in the forward convolution.

    The epilogue adds `more`, and applies the gradient of the activation that gave x, `before`.
    """
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
    whole = (point * (samples * out_height * out_width) + begin * out_width) * O
    gy += whole
    if ACTIVATION != "none":
        saved += whole
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
        at = places(first + v, u, out_width, o, O, SHUFFLE)
        mask = inside[:, None] & (o < O)[None, :]
        g = tl.load(gy + at, mask=mask, other=0.0)
        if scale is not None:
            g = g.to(tl.float32) * scale
        if ACTIVATION != "none":
            z = tl.load(saved + at, mask=mask, other=0.0)
            g = gated(g, z, slopes(s0, ds, slope, o, a, O, SHARED, SHUFFLE), ACTIVATION)
        weights = tl.load(
            w + o[:, None] * (KH * KW * C) + tap * C + c[None, :],
            mask=(o < O)[:, None] & (c < C)[None, :], other=0.0,
        )  # fmt: skip
        total = product(g.to(KIND), weights, total, MODE)
    mask = (q < pixels)[:, None] & (c < C)[None, :]
    whole = (point * pixels + start) * C
    to = tl.arange(0, M)[:, None] * C + c[None, :]
    if more is not None:
        total += tl.load(more + whole + to, mask=mask, other=0.0).to(tl.float32)
    if BEFORE != "none":
        z = tl.load(before + whole + to, mask=mask, other=0.0)
        total = gated(total, z, before_slope, BEFORE)
    tl.store(gx + whole + to, total.to(gx.dtype.element_ty), mask=mask)


class Before(NamedTuple):
    """What joins the input gradient in the epilogue.

    Parameters
    ----------
    more : Tensor, optional
        [P, M, H, W, C], added to gx: the gradient of x by its other uses.
    activation, slope : str, float
        Activation that gave x, none, relu or leaky: gx is the gradient at its input.
    x : Tensor, optional
        [P, M, H, W, C], for its sign; needed with an activation.
    """

    more: Tensor | None = None
    activation: str = "none"
    slope: float = 0.0
    x: Tensor | None = None


def launch(
    gy: Tensor, saved: Tensor | None, w: Tensor, s: tuple[Tensor | None, Tensor | None],
    alpha: Tensor, gx: Tensor, before: Before, geometry: Geometry, activation: str, slope: float,
    scale: float, mode: str,
) -> Launch:  # fmt: skip
    """Prepare the input gradient.

    Parameters
    ----------
    gy, saved : Tensor
        [P, M, r·H', r·W', O/r²], contiguous: ∂L/∂y, and a tensor with the sign of the activation.
    w : Tensor
        As in the forward convolution.
    gx : Tensor
        [P, M, H, W, C], to be filled.
    activation : str
        none, relu or leaky; `s`, if given, is its slope.
    """
    points, samples = gx.shape[:2]
    arguments: dict[str, Any] = {
        "gy": gy, "saved": saved, "w": w, "s0": s[0], "ds": s[1], "alpha": alpha,
        "more": before.more, "before": before.x, "before_slope": before.slope,
        "BEFORE": before.activation, "EACH": len(w) > 1,
        "gx": gx, "samples": samples, "height": geometry.height, "width": geometry.width,
        "out_height": geometry.out_height, "out_width": geometry.out_width,
        "slope": slope, "scale": None if scale == 1 else scale,
        **geometry.constants(), "ACTIVATION": activation,
        "SHARED": s[0] is not None and s[0].numel() == 1, "MODE": mode, "KIND": KINDS[mode],
    }  # fmt: skip
    pixels, channels = samples * geometry.height * geometry.width, geometry.channels

    def grid(tile: Mapping[str, Any]) -> tuple[int, int, int]:
        return triton.cdiv(pixels, tile["M"]), triton.cdiv(channels, tile["N"]), points

    candidates = tiles.input_gradient(mode, channels, geometry.outputs)
    return Launch(conv_input_gradient, grid, arguments, candidates)
