"""Gradient of the path convolution's weights, image by image, over all points."""

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
from faigfast.kernels.parts import input_line, pixel, product

SIZES = (
    "images", "together", "points", "height", "width", "out_height", "out_width", "x_rows", "runs",
    "share",
)  # fmt: skip
RUN = 2048  # pixels summed before their sum joins the total, which keeps rounding small


@triton.jit(do_not_specialize=SIZES)
def conv_weight_gradient(
    g, x, gw,
    images, together, points, height, width, out_height, out_width, x_rows, runs, share,
    C: tl.constexpr, O: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SH: tl.constexpr, SW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    DH: tl.constexpr, DW: tl.constexpr, MODE: tl.constexpr, KIND: tl.constexpr,
    RUN: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """One tap's M × N weights of one image, over a share of its pixels and points.

    A run is up to RUN pixels of one point. A share is several runs, written once.
    """
    part = tl.program_id(0)
    COLUMNS: tl.constexpr = (C + N - 1) // N
    column = part % COLUMNS
    tap = (part // COLUMNS) % (KH * KW)
    o = (part // (COLUMNS * KH * KW)) * M + tl.arange(0, M)
    c = column * N + tl.arange(0, N)
    n = tl.program_id(1).to(tl.int64)
    pixels = together * out_height * out_width  # of one image at one point, its b samples together
    total = tl.zeros((M, N), dtype=tl.float32)
    start = tl.program_id(2) * share
    for unit in range(start, tl.minimum(start + share, points * runs)):
        point = (unit // runs).to(tl.int64)
        x_here = x + (point * x_rows + n * together * height * width) * C
        g_here = g + (point * images + n) * pixels * O
        begin = (unit % runs) * RUN
        end = tl.minimum(begin + RUN, pixels)
        some = tl.zeros((M, N), dtype=tl.float32)
        for k in range(0, tl.cdiv(end - begin, K)):
            here = begin + k * K
            q = here + tl.arange(0, K)
            image, line, row = pixel(q, out_height, out_width)
            v = line * SH - PH + (tap // KW) * DH
            u = row * SW - PW + (tap % KW) * DW
            # Offsets: 64 bit to the tile, 32 bit within it, as in the forward convolution.
            upstream = tl.load(
                g_here + here.to(tl.int64) * O + tl.arange(0, K)[:, None] * O + o[None, :],
                mask=(q < end)[:, None] & (o < O)[None, :], other=0.0,
            )  # fmt: skip
            inside = (q < end) & (v >= 0) & (v < height) & (u >= 0) & (u < width)
            near = input_line(here, height, out_height, out_width, SH)
            pixel_x = (image * height - near + v) * width + u
            tile = tl.load(
                x_here + (near * width).to(tl.int64) * C + pixel_x[:, None] * C + c[None, :],
                mask=inside[:, None] & (c < C)[None, :], other=0.0,
            )  # fmt: skip
            some = product(tl.trans(upstream.to(KIND)), tile.to(KIND), some, MODE)
        total += some
    # [shares, N, O, taps, C]
    to = tl.program_id(2).to(tl.int64) * images + n
    at = (to * O + o[:, None]) * (KH * KW * C) + tap * C + c[None, :]
    tl.store(gw + at, total, mask=(o < O)[:, None] & (c < C)[None, :])


def launch(
    g: Tensor, x: Tensor, gw: Tensor, images: int, geometry: Geometry, mode: str
) -> Launch:  # fmt: skip
    """Prepare the gradient of weights.

    Parameters
    ----------
    g, x
        As in the input gradient and the forward convolution.
    gw : Tensor
        [S, N, O, *k, C] in float32, to be filled: sums over S shares.
    images : int
        N; each image has b samples, M = N·b.
    """
    parts, points = len(gw), len(g)
    outputs, channels = geometry.outputs, geometry.channels
    taps = geometry.kernel[0] * geometry.kernel[1]
    runs = runs_of_point(x.shape[1] // images, geometry)
    arguments: dict[str, Any] = {
        "g": g, "x": x, "gw": gw, "images": images, "together": x.shape[1] // images,
        "points": points, "height": geometry.height, "width": geometry.width,
        "out_height": geometry.out_height, "out_width": geometry.out_width,
        "x_rows": rows_of_point(x), "runs": runs, "share": triton.cdiv(points * runs, parts),
        **geometry.constants(), "MODE": mode, "KIND": KINDS[mode], "RUN": RUN,
    }  # fmt: skip

    def grid(tile: Mapping[str, Any]) -> tuple[int, int, int]:
        columns = triton.cdiv(channels, tile["N"])
        return triton.cdiv(outputs, tile["M"]) * taps * columns, images, parts

    candidates = tiles.weight_gradient(mode, outputs, channels)
    return Launch(conv_weight_gradient, grid, arguments, candidates)


def runs_of_point(together: int, geometry: Geometry) -> int:
    """Count the runs of one image's pixels at one point."""
    return int(triton.cdiv(together * geometry.out_height * geometry.out_width, RUN))


def shares(
    images: int, samples: int, points: int, geometry: Geometry, mode: str, programs: int
) -> int:
    """Count the shares of an image's runs that make about so many programs."""
    tile = tiles.weight_gradient(mode, geometry.outputs, geometry.channels)[0]
    units = points * runs_of_point(samples // images, geometry)
    parts = triton.cdiv(geometry.outputs, tile.m) * triton.cdiv(geometry.channels, tile.n)
    parts *= geometry.kernel[0] * geometry.kernel[1]
    wanted = max(1, min(units, programs // (parts * images)))
    return int(triton.cdiv(units, triton.cdiv(units, wanted)))  # no share is empty
