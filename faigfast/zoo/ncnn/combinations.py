"""Layers that combine, cut or reorder blobs: sums, products, concatenations, slices, shapes."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor

from faigfast.zoo.ncnn.steps import UNKNOWN, Blueprint, Extent, Run, Step, layer_type, pointwise

SHARE = -233  # size of a slice: an equal share of the rest
KEEP = -233  # an axis that a reshape does not have
PERMUTATIONS = (  # of channels, rows, columns by ncnn's number of the order
    (0, 1, 2),
    (0, 2, 1),
    (1, 0, 2),
    (1, 2, 0),
    (2, 0, 1),
    (2, 1, 0),
)


def _reversed(x: Tensor, y: Tensor, run: Run) -> Tensor:
    return run(y, x)


BINARY: tuple[Run, ...] = (
    torch.add,
    torch.sub,
    torch.mul,
    torch.div,
    torch.maximum,
    torch.minimum,
    torch.pow,
    partial(_reversed, run=torch.sub),
    partial(_reversed, run=torch.div),
    partial(_reversed, run=torch.pow),
)


def _common_scale(extents: tuple[Extent, ...]) -> Fraction | None:
    scales = {extent.scale for extent in extents if extent.scale is not None}
    return scales.pop() if len(scales) == 1 else None


@layer_type("BinaryOp")
def binary(blueprint: Blueprint) -> Step:
    """Build a function of two blobs, or of a blob and a number."""
    parameters = blueprint.parameters
    kind = parameters.integer(0, 0, high=len(BINARY) - 1)
    with_number = parameters.integer(1, 0, high=1)
    number = parameters.real(2, 0.0)
    if with_number:
        return pointwise(blueprint, partial(_with_number, kind=kind, number=number))
    blueprint.expect(inputs=2)
    known = [extent.channels for extent in blueprint.inputs if extent.channels is not None]
    # One channel may be repeated for many of the other blob.
    channels = max(known) if len(known) == 2 or (known and known[0] > 1) else None
    extent = Extent(channels, _common_scale(blueprint.inputs))
    return Step(partial(_on_both, run=BINARY[kind]), (extent,))


def _with_number(x: Tensor, kind: int, number: float) -> Tensor:
    if BINARY[kind] is torch.maximum:
        return x.clamp(min=number)
    if BINARY[kind] is torch.minimum:
        return x.clamp(max=number)
    if kind == 7:
        return number - x
    if kind == 8:
        return number / x
    if kind == 9:
        return torch.pow(number, x)
    return BINARY[kind](x, number)


def _on_both(x: Tensor, y: Tensor, run: Run) -> Tensor:
    return run(_as_large(x, y), _as_large(y, x))


def _as_large(x: Tensor, other: Tensor) -> Tensor:
    """Give a blob the axes of another one; a vector holds channels if its length fits."""
    missing = other.ndim - x.ndim
    if missing <= 0:
        return x
    if x.ndim == 2 and x.shape[1] != other.shape[1]:
        return x.reshape(x.shape[0], *[1] * missing, x.shape[1])
    return x.reshape(*x.shape, *[1] * missing)


@layer_type("Eltwise")
def elementwise(blueprint: Blueprint) -> Step:
    """Build a product, weighted sum or maximum of blobs of one size."""
    blueprint.expect(inputs=None)
    kind = blueprint.parameters.integer(0, 0, high=2)
    factors = blueprint.parameters.reals(1)
    count = len(blueprint.layer.inputs)
    if kind == 1 and factors and len(factors) != count:
        raise ValueError(
            f"{blueprint.layer.place} has {len(factors)} factors for {count} inputs; expected one "
            "for each"
        )
    channels = next((e.channels for e in blueprint.inputs if e.channels is not None), None)
    extent = Extent(channels, _common_scale(blueprint.inputs))
    if kind == 1 and factors:
        return Step(partial(_weighted_sum, factors=factors), (extent,))
    return Step(partial(_reduced, run=(torch.mul, torch.add, torch.maximum)[kind]), (extent,))


def _weighted_sum(*blobs: Tensor, factors: tuple[float, ...]) -> Tensor:
    total = _times(blobs[0], factors[0])
    for blob, factor in zip(blobs[1:], factors[1:], strict=True):
        total = total + _times(blob, factor)
    return total


def _times(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else x * factor


def _reduced(*blobs: Tensor, run: Run) -> Tensor:
    result = blobs[0]
    for blob in blobs[1:]:
        result = run(result, blob)
    return result


@layer_type("Concat")
def concatenation(blueprint: Blueprint) -> Step:
    """Build one blob from several along an axis."""
    blueprint.expect(inputs=None)
    axis = blueprint.parameters.integer(0, 0, low=-3, high=2)
    channels: int | None = None
    if axis in (0, -3) and all(extent.channels is not None for extent in blueprint.inputs):
        channels = sum(extent.channels or 0 for extent in blueprint.inputs)
    extent = Extent(channels, _common_scale(blueprint.inputs))
    return Step(partial(_concatenate, axis=axis), (extent,))


def _place(x: Tensor, axis: int) -> int:
    """Give torch's number of an axis that ncnn counts without the batch."""
    return 1 if x.ndim == 2 else axis + 1 if axis >= 0 else axis + x.ndim


def _concatenate(*blobs: Tensor, axis: int) -> Tensor:
    images = max(blob.shape[0] for blob in blobs)
    expanded = [
        blob if blob.shape[0] == images else blob.expand(images, *blob.shape[1:]) for blob in blobs
    ]
    return torch.cat(expanded, dim=_place(blobs[0], axis))


@layer_type("Slice")
def slices(blueprint: Blueprint) -> Step:
    """Build the parts of a blob along an axis, by their sizes or the places of the cuts."""
    blueprint.expect(outputs=None)
    sizes, cuts = blueprint.parameters.integers(0), blueprint.parameters.integers(2)
    axis = blueprint.parameters.integer(1, 0, low=-3, high=2)
    count = len(blueprint.layer.outputs)
    given = len(cuts) + 1 if cuts else len(sizes)
    if given != count:
        raise ValueError(
            f"{blueprint.layer.place} has {given} slices for {count} outputs; expected one for each"
        )
    extent = blueprint.inputs[0]
    outputs = tuple(
        Extent(extent.channels if axis not in (0, -3) else size if size > 0 else None, extent.scale)
        for size in (sizes if not cuts else (0,) * count)
    )
    return Step(partial(_slice, sizes=sizes, cuts=cuts, axis=axis, count=count), outputs)


def _slice(
    x: Tensor, sizes: tuple[int, ...], cuts: tuple[int, ...], axis: int, count: int
) -> tuple[Tensor, ...]:
    place = _place(x, axis)
    length = x.shape[place]
    parts = []
    start = 0
    for number in range(count):
        if cuts and number == count - 1:
            size = length - start
        elif cuts:
            cut = cuts[number]
            size = (length + cut if cut < 0 else cut) - start
        elif sizes[number] == SHARE:
            size = (length - start) // (count - number)
        else:
            size = sizes[number]
        parts.append(x.narrow(place, start, size))
        start += size
    return tuple(parts)


@layer_type("Flatten")
def flatten(blueprint: Blueprint) -> Step:
    """Build a vector of all values."""
    blueprint.expect()
    return Step(partial(torch.flatten, start_dim=1), (UNKNOWN,))


@layer_type("Reshape")
def reshape(blueprint: Blueprint) -> Step:
    """Build a blob of other sizes: 0 keeps a size, and -1 follows from the other sizes."""
    blueprint.expect()
    w, h, c = (
        blueprint.parameters.integer(number, KEEP, low=KEEP, high=2**31 - 1) for number in (0, 1, 2)
    )
    axes = 3 if c != KEEP else 2 if h != KEEP else 1
    sizes = (c, h, w)[3 - axes :]
    if any(size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(
            f"{blueprint.layer.place} reshapes to {w}, {h}, {c}; expected sizes, with -1 at most "
            "once"
        )
    channels = sizes[0] if sizes[0] > 0 else None
    return Step(partial(_reshape, sizes=sizes), (Extent(channels),))


def _reshape(x: Tensor, sizes: tuple[int, ...]) -> Tensor:
    own = (1, 1, *x.shape[1:])[-len(sizes) :]
    given = [kept if size == 0 else size for kept, size in zip(own, sizes, strict=True)]
    if -1 in given:
        known = math.prod(size for size in given if size != -1)
        given[given.index(-1)] = x[0].numel() // known
    return x.reshape(x.shape[0], *given)


@layer_type("Permute")
def permute(blueprint: Blueprint) -> Step:
    """Build a blob with its axes in another order."""
    blueprint.expect()
    order = blueprint.parameters.integer(0, 0, high=5)
    if order == 0:
        return pointwise(blueprint, partial(_permute, order=0))
    extent = replace(blueprint.inputs[0], channels=None, scale=None, is_input=False)
    return Step(partial(_permute, order=order), (extent,))


def _permute(x: Tensor, order: int) -> Tensor:
    if order == 0 or x.ndim == 2:
        return x
    if x.ndim == 3:
        return x.transpose(1, 2)
    return x.permute(0, *(axis + 1 for axis in PERMUTATIONS[order]))
