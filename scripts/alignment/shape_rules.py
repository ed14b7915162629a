"""Rules of operations that join, cut, reorder, repeat and move indices."""

from __future__ import annotations

import math

import torch
from torch import fx

from .axes import Atom, Axis, Product, Sum, cut, fix, fixed, grid, tie
from .propagation import (
    RULES,
    Axes,
    Propagation,
    Rule,
    argument,
    dims_of,
    fresh,
    name_of,
    opaque,
    rule,
    shape_of,
)


@rule("cat", "concat", "concatenate")
def _cat(p: Propagation, node: fx.Node) -> None:
    parts = [axes for axes in map(p.of, node.args[0]) if axes]  # type: ignore[arg-type]
    dim = argument(node, 1, "dim", 0) % len(parts[0])
    for axes in parts[1:]:
        for i, (one, other) in enumerate(zip(parts[0], axes, strict=True)):
            if i != dim:
                tie(one, other)
    p.axes[node] = list(parts[0])
    p.axes[node][dim] = Sum(axes[dim] for axes in parts)


@rule("stack")
def _stack(p: Propagation, node: fx.Node) -> None:
    parts = [p.of(value) for value in node.args[0]]  # type: ignore[union-attr]
    for axes in parts[1:]:
        for one, other in zip(parts[0], axes, strict=True):
            tie(one, other)
    dim = argument(node, 1, "dim", 0) % len(shape_of(node))
    p.axes[node] = [*parts[0][:dim], fixed(len(parts)), *parts[0][dim:]]


@rule("slice", "narrow")
def _slice(p: Propagation, node: fx.Node) -> None:
    x = p.of(node.args[0])
    dim = argument(node, 1, "dim", 0) % len(x)
    start = argument(node, 2, "start", 0) or 0
    step = argument(node, 4, "step", 1) if name_of(node.target) == "slice" else 1
    size = shape_of(node)[dim]
    p.axes[node] = list(x)
    if step != 1:
        fix(x[dim])
        p.axes[node][dim] = fixed(size)
    elif size != x[dim].size:
        start = max(start + x[dim].size, 0) if start < 0 else start
        p.axes[node][dim] = _range(x[dim], start, size)


def _range(axis: Axis, start: int, size: int) -> Axis:
    """Cut indices out of an axis."""
    pieces = cut(axis, start)
    middle = pieces and cut(pieces[1], size)
    if not middle:
        fix(axis)
        return fixed(size)
    return middle[0]


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "tensor_split",
       "unsafe_split_with_sizes")  # fmt: skip
def _split(p: Propagation, node: fx.Node) -> None:
    x = p.of(node.args[0])
    dim = argument(node, 2, "dim", 0) % len(x)
    users = {user.args[1]: shape_of(user)[dim] for user in node.users}
    sizes = _sizes(node, x[dim].size)
    if sizes is None or any(sizes[place] != size for place, size in users.items()):  # type: ignore[index]
        opaque(p, node)
        return
    parts, start = [], 0
    for size in sizes:
        parts.append([*x[:dim], _range(x[dim], start, size), *x[dim + 1 :]])
        start += size
    p.parts[node] = parts


def _sizes(node: fx.Node, total: int) -> list[int] | None:
    """Give the sizes of the pieces of a split."""
    given, name = node.args[1], name_of(node.target)
    if isinstance(given, list | tuple):
        return None if name == "tensor_split" else [int(size) for size in given]  # type: ignore[arg-type]
    if not isinstance(given, int) or name == "tensor_split":
        return None
    size = given if "split" in name else -(-total // given)
    return [min(size, total - start) for start in range(0, total, size)]


@rule("unbind")
def _unbind(p: Propagation, node: fx.Node) -> None:
    x = p.of(node.args[0])
    dim = argument(node, 1, "dim", 0) % len(x)
    fix(x[dim])
    p.parts[node] = [[*x[:dim], *x[dim + 1 :]] for _ in range(x[dim].size)]


@rule("select")
def _select(p: Propagation, node: fx.Node) -> None:
    x = p.of(node.args[0])
    dim = node.args[1] % len(x)  # type: ignore[operator]
    fix(x[dim])
    p.axes[node] = [*x[:dim], *x[dim + 1 :]]


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_as", "reshape_as",
       "squeeze", "unsqueeze", "_reshape_alias")  # fmt: skip
def _reshape(p: Propagation, node: fx.Node) -> None:
    """Match runs of dimensions with equal products; either side of a run has one dimension."""
    x, shape = p.of(node.args[0]), shape_of(node)
    old = [axis for axis in x if axis.size != 1]
    new = [size for size in shape if size != 1]
    reads_bits = getattr(node.target, "_overloadname", "") == "dtype"  # another type of number
    if 0 in shape or reads_bits:
        opaque(p, node)
        return
    result: Axes = []
    while new:
        count = 1
        taken = [old.pop(0)]
        while (have := math.prod(a.size for a in taken)) != math.prod(new[:count]):
            if have < math.prod(new[:count]):
                taken.append(old.pop(0))
            else:
                count += 1
        sides, new = new[:count], new[count:]
        pieces = grid(Product(taken), sides)
        if pieces is None:
            fix(*taken)
            pieces = [fixed(size) for size in sides]
        result += pieces
    p.axes[node] = [fixed(1) if size == 1 else result.pop(0) for size in shape]


@rule("permute", "transpose", "t", "movedim", "swapaxes", "numpy_T", "mT")
def _reorder(p: Propagation, node: fx.Node) -> None:
    """Find the order of dimensions by running the operation on sizes that all differ."""
    x = p.of(node.args[0])
    probe = torch.empty(*range(1, len(x) + 1), device="meta")
    shape = node.target(probe, *node.args[1:], **node.kwargs).shape  # type: ignore[operator]
    p.axes[node] = [x[size - 1] for size in shape]


@rule("expand", "expand_as", "broadcast_to")
def _expand(p: Propagation, node: fx.Node) -> None:
    x, shape = p.of(node.args[0]), shape_of(node)
    x = [fixed(1)] * (len(shape) - len(x)) + x
    p.axes[node] = [a if a.size == n else fixed(n) for a, n in zip(x, shape, strict=True)]


@rule("repeat", "tile")
def _repeat(p: Propagation, node: fx.Node) -> None:
    x, shape = p.of(node.args[0]), shape_of(node)
    x = [fixed(1)] * (len(shape) - len(x)) + x
    pairs = zip(x, shape, strict=True)
    p.axes[node] = [Product((fixed(n // max(a.size, 1)), a)) if a.size else a for a, n in pairs]


@rule("pixel_shuffle")
def _pixel_shuffle(p: Propagation, node: fx.Node) -> None:
    x, side = p.of(node.args[0]), node.args[1]
    channel = Atom(x[-3].size // side**2)  # type: ignore[operator]
    tie(x[-3], Product((channel, fixed(side**2))))  # type: ignore[operator]
    fix(*x[-2:])
    p.axes[node] = [*x[:-3], channel, *fresh(node)[-2:]]


@rule("pixel_unshuffle")
def _pixel_unshuffle(p: Propagation, node: fx.Node) -> None:
    x, side = p.of(node.args[0]), node.args[1]
    fix(*x[-2:])
    channel = Product((x[-3], fixed(side**2)))  # type: ignore[operator]
    p.axes[node] = [*x[:-3], channel, *fresh(node)[-2:]]


@rule("channel_shuffle")
def _channel_shuffle(p: Propagation, node: fx.Node) -> None:
    x, groups = p.of(node.args[0]), node.args[1]
    outer, inner = Atom(groups), Atom(x[1].size // groups)  # type: ignore[arg-type, operator]
    tie(x[1], Product((outer, inner)))
    p.axes[node] = [x[0], Product((inner, outer)), *x[2:]]


@rule("constant_pad_nd", "pad")
def _pad(p: Propagation, node: fx.Node) -> None:
    """Add fixed indices before and after; modes other than zeros need the order of an axis."""
    x, pads = p.of(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    mode = argument(node, 2, "mode", "constant") if name_of(node.target) == "pad" else "constant"
    value = argument(node, 3 if name_of(node.target) == "pad" else 2, "value", 0)
    p.axes[node] = list(x)
    for number in range(len(pads) // 2):
        place, (before, after) = -1 - number, pads[2 * number : 2 * number + 2]
        if mode != "constant" or min(before, after) < 0:
            fix(x[place])
            p.axes[node][place] = fixed(shape_of(node)[place])
        else:
            p.axes[node][place] = Sum((fixed(before), x[place], fixed(after)))
    if value:
        p.block(x)


def _spatial(rank: int) -> Rule:
    """Make the rule of operations that treat channels alike and move positions."""

    def rule(p: Propagation, node: fx.Node) -> None:
        x = p.of(node.args[0])
        fix(*x[len(x) - rank :])
        p.axes[node] = [*x[: len(x) - rank], *fresh(node)[len(x) - rank :]]

    return rule


for _rank in (1, 2, 3):
    _kinds = [f"{kind}{_rank}d" for kind in (
        "avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "reflection_pad", "replication_pad",
        "upsample_nearest", "_upsample_nearest_exact", "max_pool",
    )]  # fmt: skip
    RULES.update(dict.fromkeys(_kinds, _spatial(_rank)))
RULES.update(dict.fromkeys(("upsample_bilinear2d", "upsample_bicubic2d"), _spatial(2)))
RULES.update({"upsample_linear1d": _spatial(1), "upsample_trilinear3d": _spatial(3)})


@rule("roll", "flip")
def _moved(p: Propagation, node: fx.Node) -> None:
    """Fix the axes along which indices move."""
    x = p.of(node.args[0])
    place = 2 if name_of(node.target) == "roll" else 1
    dims = argument(node, place, "dims")
    p.axes[node] = list(x)
    for dim in dims_of(dims or None, len(x)):
        fix(x[dim])
        p.axes[node][dim] = fixed(x[dim].size)
