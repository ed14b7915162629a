"""Layers that change the size of an image: pooling, padding, cropping, resizing, shuffling."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from faigfast.zoo.ncnn.convolutions import (
    Sides,
    pad_sides,
    read_sides,
    sides_for_same_size,
)
from faigfast.zoo.ncnn.param_file import MAX_SIZE
from faigfast.zoo.ncnn.steps import Blueprint, Extent, Step, layer_type, pointwise

FULL, VALID, SAME_UPPER, SAME_LOWER = range(4)  # padding of a pooling layer
REST = -233  # of a crop: up to the end
MAX_ZOOM = 64


@layer_type("Pooling")
def pooling(blueprint: Blueprint) -> Step:
    """Build maxima or means of windows, of a grid of cells, or of the image."""
    blueprint.expect()
    parameters = blueprint.parameters
    is_mean = bool(parameters.integer(0, 0, high=1))
    w = parameters.integer(1, 0)
    kernel = (parameters.integer(11, w), w)
    w = parameters.integer(2, 1, low=1)
    stride = (parameters.integer(12, w, low=1), w)
    sides = read_sides(blueprint, (3, 14, 13, 15))
    mode = parameters.integer(5, 0, high=SAME_LOWER)
    counts_padding = bool(parameters.integer(6, 0, high=1))
    is_global = parameters.integer(4, 0, high=1)
    is_adaptive = parameters.integer(7, 0, high=1)
    w = parameters.integer(8, 0, low=REST)
    cells = (parameters.integer(18, w, low=REST), w)
    extent = replace(blueprint.inputs[0], is_input=False)
    if is_global:
        return Step(_mean if is_mean else _maximum, (replace(extent, scale=None),))
    if is_adaptive:
        if not all(size == REST or size > 0 for size in cells):
            raise ValueError(f"{blueprint.layer.place} has {cells} cells; expected at least one")
        run = partial(_pool_cells, cells=cells, is_mean=is_mean)
        return Step(run, (replace(extent, scale=None),))
    if not all(kernel):
        raise ValueError(f"{blueprint.layer.place} has a window of {kernel}; expected at least 1×1")
    if extent.scale is not None:
        scale = extent.scale / stride[0] if stride[0] == stride[1] else None
        extent = replace(extent, scale=scale)
    run = partial(
        _pool,
        kernel=kernel,
        stride=stride,
        sides=sides,
        mode=mode,
        is_mean=is_mean,
        counts_padding=counts_padding,
    )
    return Step(run, (extent,))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def _maximum(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3))


def _pool_cells(x: Tensor, cells: tuple[int, int], is_mean: bool) -> Tensor:
    rows, columns = (x.shape[2 + i] if size == REST else size for i, size in enumerate(cells))
    pool = functional.adaptive_avg_pool2d if is_mean else functional.adaptive_max_pool2d
    return pool(x, (rows, columns))


def _pool(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    sides: Sides,
    mode: int,
    is_mean: bool,
    counts_padding: bool,
) -> Tensor:
    """Pool windows; in the mode `FULL` the windows cover the whole image."""
    is_same = mode in (SAME_UPPER, SAME_LOWER)
    if is_same:
        sides = sides_for_same_size(x, kernel[::-1], stride[::-1], mode == SAME_LOWER)
    elif mode == FULL:
        left, right, top, bottom = sides
        right += (kernel[1] - x.shape[3] - left - right) % stride[1]
        bottom += (kernel[0] - x.shape[2] - top - bottom) % stride[0]
        sides = (left, right, top, bottom)
    if not is_mean:
        return functional.max_pool2d(pad_sides(x, sides, -math.inf), kernel, stride)
    if counts_padding or is_same or not any(sides):
        return functional.avg_pool2d(pad_sides(x, sides), kernel, stride)
    inside = pad_sides(torch.ones_like(x[:1, :1]), sides)
    share = functional.avg_pool2d(inside, kernel, stride)
    return functional.avg_pool2d(pad_sides(x, sides), kernel, stride) / share


@layer_type("Padding")
def padding(blueprint: Blueprint) -> Step:
    """Build a border: a constant, copies of the edge, or a reflection."""
    blueprint.expect()
    parameters = blueprint.parameters
    top, bottom, left, right = (parameters.integer(n, 0) for n in range(4))
    mode = parameters.integer(4, 0, high=2)
    value = parameters.real(5, 0.0)
    front, behind = parameters.integer(7, 0), parameters.integer(8, 0)
    if mode and (front or behind):
        raise ValueError(f"{blueprint.layer.place} repeats channels; expected constant ones")
    sides = (left, right, top, bottom)
    extent = blueprint.inputs[0]
    if front or behind:
        channels = None if extent.channels is None else extent.channels + front + behind
        run = partial(functional.pad, pad=(*sides, front, behind), value=value)
        return Step(run, (Extent(channels, extent.scale),))
    if mode == 0:
        return pointwise(blueprint, partial(pad_sides, sides=sides, value=value))
    run = partial(functional.pad, pad=sides, mode="replicate" if mode == 1 else "reflect")
    return pointwise(blueprint, run)


@layer_type("Crop")
def crop(blueprint: Blueprint) -> Step:
    """Build a crop by ranges, by margins and sizes, or to the size of a second input."""
    parameters = blueprint.parameters
    starts, stops, axes = (parameters.integers(n) for n in (9, 10, 11))
    extent = replace(blueprint.inputs[0], is_input=False)
    if starts and stops:
        blueprint.expect()
        count = len(axes) or len(starts)
        if not len(starts) == len(stops) == count <= 3:
            raise ValueError(
                f"{blueprint.layer.place} has {len(starts)} starts, {len(stops)} stops and "
                f"{len(axes)} axes; expected one of each for up to 3 axes"
            )
        where = axes or tuple(range(count))
        if any(axis in (0, -3) for axis in where):
            extent = replace(extent, channels=None)
        return Step(partial(_crop_ranges, starts=starts, stops=stops, axes=where), (extent,))
    before = tuple(parameters.integer(n, 0) for n in (2, 1, 0))  # channels, rows, columns
    after = tuple(parameters.integer(n, 0) for n in (8, 7, 6))
    sizes = tuple(parameters.integer(n, 0, low=REST, high=2**31 - 1) for n in (5, 4, 3))
    if not any(sizes) and not any(after):
        blueprint.expect(inputs=2)
        channels = blueprint.inputs[1].channels
        return Step(partial(_crop_like, before=before), (replace(extent, channels=channels),))
    blueprint.expect()
    if any(size < 1 and size != REST for size in sizes):
        raise ValueError(
            f"{blueprint.layer.place} crops to {sizes}; expected positive sizes, or {REST} for the "
            "rest"
        )
    if before[0] or after[0] or sizes[0] != REST:
        extent = replace(extent, channels=None)
    return Step(partial(_crop_sizes, before=before, after=after, sizes=sizes), (extent,))


def _narrow(x: Tensor, axis: int, start: int, size: int) -> Tensor:
    """Take `size` items from `start` on; the error of a crop beyond the blob is torch's own."""
    return x if start == 0 and size == x.shape[axis] else x.narrow(axis, start, size)


def _crop_ranges(
    x: Tensor, starts: tuple[int, ...], stops: tuple[int, ...], axes: tuple[int, ...]
) -> Tensor:
    for start, end, axis in zip(starts, stops, axes, strict=True):
        place = axis + 1 if axis >= 0 else axis + x.ndim
        size = x.shape[place]
        first = 0 if start == REST else start if start >= 0 else size + start
        last = size if end == REST else end if end > 0 else size + end
        x = _narrow(x, place, first, min(size, last) - first)
    return x


def _crop_like(x: Tensor, like: Tensor, before: tuple[int, ...]) -> Tensor:
    own = before[3 - (x.ndim - 1) :]
    for axis, start in enumerate(own, 1):
        if axis == 1 and x.ndim == 4 and like.ndim != 4:
            size = x.shape[1]
        else:
            size = like.shape[axis - x.ndim]
        x = _narrow(x, axis, start, size)
    return x


def _crop_sizes(
    x: Tensor, before: tuple[int, ...], after: tuple[int, ...], sizes: tuple[int, ...]
) -> Tensor:
    skipped = 3 - (x.ndim - 1)
    rows = zip(before[skipped:], after[skipped:], sizes[skipped:], strict=True)
    for axis, (first, last, size) in enumerate(rows, 1):
        rest = x.shape[axis] - first - last
        x = _narrow(x, axis, first, rest if size == REST else min(size, rest))
    return x


@layer_type("Interp")
def interpolation(blueprint: Blueprint) -> Step:
    """Build a resize by nearest, bilinear or bicubic interpolation."""
    blueprint.expect()
    parameters = blueprint.parameters
    modes = ("nearest", "bilinear", "bicubic")
    mode = modes[parameters.integer(0, 0, low=1, high=3) - 1]
    zooms = (parameters.real(1, 1.0), parameters.real(2, 1.0))
    size = (parameters.integer(3, 0), parameters.integer(4, 0))
    aligned = bool(parameters.integer(6, 0, high=1))
    if not all(0 < zoom <= MAX_ZOOM for zoom in zooms):
        raise ValueError(
            f"{blueprint.layer.place} resizes by {zooms}; expected factors above 0 and up to "
            f"{MAX_ZOOM}"
        )
    extent = blueprint.inputs[0]
    is_fixed = all(size)
    scale = None
    if not is_fixed and extent.scale is not None and zooms[0] == zooms[1]:
        scale = extent.scale * Fraction(zooms[0]).limit_denominator(MAX_SIZE)
    run = partial(
        _resize,
        zooms=zooms,
        size=size if is_fixed else None,
        mode=mode,
        aligned=aligned and mode != "nearest",
    )
    return Step(run, (replace(extent, scale=scale),))


def _resize(
    x: Tensor,
    zooms: tuple[float, float],
    size: tuple[int, int] | None,
    mode: str,
    aligned: bool,
) -> Tensor:
    if x.ndim == 2:  # a vector is an image of one pixel
        height, width = size or (int(zooms[0]), int(zooms[1]))
        return x[:, :, None, None].expand(-1, -1, height, width)
    if size == tuple(x.shape[2:]):
        return x
    corners = None if mode == "nearest" else aligned
    # Where a factor gives no whole size, ncnn before October 2026 takes the ratio of the sizes.
    factors = zooms if size is None else None
    return functional.interpolate(x, size, factors, mode, align_corners=corners)


@layer_type("PixelShuffle")
def pixel_shuffle(blueprint: Blueprint) -> Step:
    """Build a shuffle of channels into pixels, outputs first (mode 0) or last (mode 1)."""
    blueprint.expect()
    factor = blueprint.parameters.integer(0, 1, low=1, high=MAX_ZOOM)
    outputs_last = blueprint.parameters.integer(1, 0, high=1)
    extent = blueprint.inputs[0]
    channels, rest = divmod(extent.channels or 0, factor**2)
    if rest or (extent.channels is not None and not channels):
        raise ValueError(
            f"{blueprint.layer.place} takes {extent.channels} channels; expected a multiple of "
            f"{factor**2}"
        )
    scale = None if extent.scale is None else extent.scale * factor
    shuffle = _shuffle_outputs_last if outputs_last else functional.pixel_shuffle
    run = partial(shuffle, upscale_factor=factor)
    return Step(run, (Extent(channels or None, scale),))


def _shuffle_outputs_last(x: Tensor, upscale_factor: int) -> Tensor:
    shape = (upscale_factor, upscale_factor, -1)
    x = x.unflatten(1, shape).permute(0, 3, 4, 1, 5, 2)
    return x.flatten(4, 5).flatten(2, 3)
