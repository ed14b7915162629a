"""Gradients of the path convolution's weights, bias and slope, image by image, over all points."""

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels import tiles
from faigfast.kernels.conv_forward import rows_of_point
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch
from faigfast.kernels.modes import KINDS
from faigfast.kernels.parts import gated, input_line, pixel, places, product, slopes

SIZES = (
    "images", "together", "points", "height", "width", "out_height", "out_width", "x_rows", "runs",
    "share",
)  # fmt: skip
RUN = 2048  # pixels summed before their sum joins the total, which keeps rounding small


@triton.jit(do_not_specialize=SIZES)
def conv_weight_gradient(
    gy, saved, x, s0, ds, alpha, gw, gb, gs,
    images, together, points, height, width, out_height, out_width, x_rows, runs, share,
    slope, scale,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, SHUFFLE: tl.constexpr, ACTIVATION: tl.constexpr,
    SHARED: tl.constexpr, MODE: tl.constexpr, KIND: tl.constexpr, RUN: tl.constexpr,
    TAPS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One tap's M × N weights of one image, over a share of its pixels and points.

    A run is up to RUN pixels of one point. A share is several runs, written once.
    """
    part = tl.program_id(0)
    COLUMNS: tl.constexpr = (C + N - 1) // N if gw is not None else 1
    column = part % COLUMNS
    tap = (part // COLUMNS) % TAPS
    o = (part // (COLUMNS * TAPS)) * M + tl.arange(0, M)
    c = column * N + tl.arange(0, N)
    n = tl.program_id(1).to(tl.int64)
    pixels = together * out_height * out_width  # of one image at one point, its b samples together
    total = tl.zeros((M, N), dtype=tl.float32)
    total_b = tl.zeros((M,), dtype=tl.float32)
    total_s = tl.zeros((M,), dtype=tl.float32)
    # The programs of the first tap and column see every element of gy once.
    first = (tap + column) == 0
    start = tl.program_id(2) * share
    for unit in range(start, tl.minimum(start + share, points * runs)):
        point = (unit // runs).to(tl.int64)
        a = tl.load(alpha + point)
        before = (point * images + n) * pixels * O
        x_here = x + (point * x_rows + n * together * height * width) * C
        gy_here = gy + before
        begin = (unit % runs) * RUN
        end = tl.minimum(begin + RUN, pixels)
        slope_o = slopes(s0, ds, slope, o, a, O, SHARED, SHUFFLE)
        some = tl.zeros((M, N), dtype=tl.float32)
        # By row of a tile: a sum over the rows in every round would wait for other threads.
        some_b = tl.zeros((K, M), dtype=tl.float32)
        some_s = tl.zeros((K, M), dtype=tl.float32)
        for k in range(0, tl.cdiv(end - begin, K)):
            here = begin + k * K
            q = here + tl.arange(0, K)
            image, line, row = pixel(q, out_height, out_width)
            v = line * SH - PH + (tap // KW) * DH
            u = row * SW - PW + (tap % KW) * DW
            # Offsets: 64 bit to the tile, 32 bit within it, as in the forward convolution.
            here_line = here // out_width
            whole = (here_line * out_width).to(tl.int64) * O
            at = places(image * out_height + line - here_line, row, out_width, o, O, SHUFFLE)
            mask = (q < end)[:, None] & (o < O)[None, :]
            g = tl.load(gy_here + whole + at, mask=mask, other=0.0)  # [K, M]
            if scale is not None:
                g = g.to(tl.float32) * scale
            if ACTIVATION != "none":
                z = tl.load(saved + before + whole + at, mask=mask, other=0.0)
                if gs is not None:  # noqa: SIM102  known at compile time, unlike `first`
                    if first:
                        some_s += g.to(tl.float32) * tl.minimum(z.to(tl.float32), 0.0)
                g = gated(g, z, slope_o, ACTIVATION)
            if gb is not None:  # noqa: SIM102
                if first:
                    some_b += g.to(tl.float32)
            if gw is not None:
                inside = (q < end) & (v >= 0) & (v < height) & (u >= 0) & (u < width)
                near = input_line(here, height, out_height, out_width, SH)
                pixel_x = (image * height - near + v) * width + u
                tile = tl.load(
                    x_here + (near * width).to(tl.int64) * C + pixel_x[:, None] * C + c[None, :],
                    mask=inside[:, None] & (c < C)[None, :], other=0.0,
                )  # fmt: skip
                some = product(tl.trans(g.to(KIND)), tile.to(KIND), some, MODE)
        total += some
        if gb is not None:
            total_b += tl.sum(some_b, axis=0)
        if gs is not None:
            total_s += tl.sum(some_s, axis=0)
    # [shares, N, O, taps, C]
    to = tl.program_id(2).to(tl.int64) * images + n
    if gw is not None:
        at_w = (to * O + o[:, None]) * (KH * KW * C) + tap * C + c[None, :]
        tl.store(gw + at_w, total, mask=(o < O)[:, None] & (c < C)[None, :])
    if first:
        if gb is not None:
            tl.store(gb + to * O + o, total_b, mask=o < O)
        if gs is not None:
            tl.store(gs + to * O + o, total_s, mask=o < O)


def launch(
    gy: Tensor, saved: Tensor | None, x: Tensor, s: tuple[Tensor | None, Tensor | None],
    alpha: Tensor, gw: Tensor | None, gb: Tensor | None, gs: Tensor | None, images: int,
    geometry: Geometry, activation: str, slope: float, scale: float, mode: str,
) -> Launch:  # fmt: skip
    """Prepare the gradients of weights, bias and slope; None skips a gradient.

    Parameters
    ----------
    gy, saved, x
        As in the input gradient and the forward convolution.
    gw, gb, gs : Tensor, optional
        [S, N, O, *k, C], [S, N, O], [S, N, O] in float32, to be filled: sums over S shares.
    images : int
        N; each image has b samples, M = N·b.
    """
    parts = len(next(part for part in (gw, gb, gs) if part is not None))
    points, outputs, channels = len(alpha), geometry.outputs, geometry.channels
    taps = 1 if gw is None else geometry.kernel[0] * geometry.kernel[1]
    runs = runs_of_point(x.shape[1] // images, geometry)
    arguments: dict[str, Any] = {
        "gy": gy, "saved": saved, "x": x, "s0": s[0], "ds": s[1], "alpha": alpha, "gw": gw,
        "gb": gb, "gs": gs, "images": images, "together": x.shape[1] // images, "points": points,
        "height": geometry.height, "width": geometry.width, "out_height": geometry.out_height,
        "out_width": geometry.out_width, "x_rows": rows_of_point(x), "runs": runs,
        "share": triton.cdiv(points * runs, parts), "slope": slope,
        "scale": None if scale == 1 else scale, **geometry.constants(), "ACTIVATION": activation,
        "SHARED": s[0] is not None and s[0].numel() == 1, "MODE": mode, "KIND": KINDS[mode],
        "RUN": RUN, "TAPS": taps,
    }  # fmt: skip

    def grid(tile: Mapping[str, Any]) -> tuple[int, int, int]:
        columns = 1 if gw is None else triton.cdiv(channels, tile["N"])
        return triton.cdiv(outputs, tile["M"]) * taps * columns, images, parts

    candidates = tiles.weight_gradient(mode, outputs, channels)
    return Launch(conv_weight_gradient, grid, arguments, candidates)


def runs_of_point(together: int, geometry: Geometry) -> int:
    """Count the runs of one image's pixels at one point."""
    return int(triton.cdiv(together * geometry.out_height * geometry.out_width, RUN))


def shares(
    images: int, samples: int, points: int, geometry: Geometry, mode: str, programs: int,
    weights: bool,
) -> int:  # fmt: skip
    """Count the shares of an image's runs that make about so many programs."""
    tile = tiles.weight_gradient(mode, geometry.outputs, geometry.channels)[0]
    units = points * runs_of_point(samples // images, geometry)
    parts = triton.cdiv(geometry.outputs, tile.m)
    if weights:
        parts *= geometry.kernel[0] * geometry.kernel[1] * triton.cdiv(geometry.channels, tile.n)
    wanted = max(1, min(units, programs // (parts * images)))
    return int(triton.cdiv(units, triton.cdiv(units, wanted)))  # no share is empty
