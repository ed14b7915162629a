"""Rules of convolutions, matrix products, norms and reductions."""

from __future__ import annotations

from torch import fx

from .axes import Atom, Axis, Product, fix, fixed, tie
from .propagation import (
    Axes,
    Propagation,
    argument,
    dims_of,
    fresh,
    name_of,
    opaque,
    rule,
    shape_of,
)


@rule("prelu")
def _prelu(p: Propagation, node: fx.Node) -> None:
    x, (weight,) = p.of(node.args[0]), p.of(node.args[1])
    if weight.size > 1:
        tie(x[1], weight)
    p.scales(node.args[1], 0, 0, weight)
    p.axes[node] = list(x)


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d",
       "conv_transpose3d")  # fmt: skip
def _convolution(p: Propagation, node: fx.Node) -> None:
    name = name_of(node.target)
    x, w = p.of(node.args[0]), p.of(node.args[1])
    transposed = "transpose" in name or (name == "convolution" and node.args[6])
    groups = argument(node, 8 if name == "convolution" else 6, "groups", 1)
    channel = len(x) - len(w) + 1
    fix(*x[channel + 1 :], *w[2:])
    # Within each of the groups, the same permutation: an axis of a tensor has one order.
    group, inner = Atom(groups), Atom(w[0].size // groups)
    tie(w[0], Product((group, inner)))
    joined = Product((group, w[1]))
    within = Product((fixed(groups), inner))
    tie(x[channel], w[0] if transposed else joined)
    out = joined if transposed else w[0]
    p.scales(node.args[1], 0, -1 if transposed else 1, within)
    p.scales(node.args[1], 1, 1 if transposed else -1, w[1])
    _tie_bias(p, argument(node, 2, "bias"), out)
    p.axes[node] = fresh(node)
    p.axes[node][channel] = out
    p.axes[node][:channel] = x[:channel]


def _tie_bias(p: Propagation, bias: object, out: Axis) -> None:
    for axis in p.of(bias):
        tie(axis, out)
        p.scales(bias, 0, 1, out)


@rule("linear")
def _linear(p: Propagation, node: fx.Node) -> None:
    x, w = p.of(node.args[0]), p.of(node.args[1])
    if len(w) != 2:
        opaque(p, node)
        return
    tie(x[-1], w[-1])
    _tie_bias(p, argument(node, 2, "bias"), w[0])
    p.scales(node.args[1], 0, 1, w[0])
    p.scales(node.args[1], 1, -1, w[-1])
    p.axes[node] = [*x[:-1], *w[:-1]]


@rule("matmul", "bmm", "mm")
def _matmul(p: Propagation, node: fx.Node) -> None:
    a, b = p.of(node.args[0]), p.of(node.args[1])
    if min(len(a), len(b)) < 2:
        opaque(p, node)
        return
    p.block((*a, *b))
    tie(a[-1], b[-2])
    p.axes[node] = [*_broadcast(a[:-2], b[:-2]), a[-2], b[-1]]


def _broadcast(a: Axes, b: Axes) -> Axes:
    length = max(len(a), len(b))
    a, b = ([fixed(1)] * (length - len(axes)) + axes for axes in (a, b))
    for one, other in zip(a, b, strict=True):
        if one.size == other.size:
            tie(one, other)
    return [one if one.size > 1 else other for one, other in zip(a, b, strict=True)]


@rule("scaled_dot_product_attention")
def _attention(p: Propagation, node: fx.Node) -> None:
    q, k, v = (p.of(value) for value in node.args[:3])
    p.block((*q, *k, *v))
    tie(q[-1], k[-1])
    tie(k[-2], v[-2])
    lead = q[:-2]
    for one, two, three in zip(lead, k[:-2], v[:-2], strict=True):
        tie(two, three)
        tie(one, two) if one.size == two.size else fix(one, two)
    mask = p.of(argument(node, 3, "attn_mask"))
    for axis, own in zip(reversed(mask), reversed([*lead, q[-2], k[-2]]), strict=False):
        if axis.size > 1:
            tie(axis, own)
    if argument(node, 5, "is_causal", False):
        fix(q[-2], k[-2])
    p.axes[node] = [*q[:-1], v[-1]]


@rule("batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
def _batch_norm(p: Propagation, node: fx.Node) -> None:
    x = p.of(node.args[0])
    for value in node.args[1:5]:
        for axis in p.of(value):
            tie(x[1], axis)
    p.block(x)
    p.axes[node] = list(x)


@rule("group_norm")
def _group_norm(p: Propagation, node: fx.Node) -> None:
    x, groups = p.of(node.args[0]), node.args[1]
    for value in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        for axis in p.of(value):
            tie(x[1], axis)
    tie(x[1], Product((Atom(groups), Atom(x[1].size // groups))))  # type: ignore[arg-type, operator]
    p.block(x)
    p.axes[node] = list(x)


@rule("layer_norm", "rms_norm")
def _layer_norm(p: Propagation, node: fx.Node) -> None:
    x = p.of(node.args[0])
    for value in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        axes = p.of(value)
        for axis, own in zip(axes, x[len(x) - len(axes) :], strict=True):
            tie(axis, own)
    p.block(x)
    p.axes[node] = list(x)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def _along_one_axis(p: Propagation, node: fx.Node) -> None:
    p.block(p.of(node.args[0]))
    p.axes[node] = list(p.of(node.args[0]))


@rule("mean", "sum", "amax", "amin", "var", "std", "norm", "logsumexp", "linalg_vector_norm")
def _reduction(p: Propagation, node: fx.Node) -> None:
    """Drop axes that the operation treats alike in any order."""
    x = p.of(node.args[0])
    place = 2 if name_of(node.target) in ("norm", "linalg_vector_norm") else 1
    value = argument(node, place, "dim")
    if isinstance(value, bool | float):  # var(x, unbiased)
        value = None
    dims = dims_of(value or None if isinstance(value, list | tuple) else value, len(x))
    shape = shape_of(node)
    keep = len(shape) == len(x)
    p.axes[node] = [
        fixed(1) if i in dims else axis for i, axis in enumerate(x) if keep or i not in dims
    ]
    linear = name_of(node.target) in ("mean", "sum", "amax", "amin")
    p.block(axis for i, axis in enumerate(x) if i in dims or not linear)
