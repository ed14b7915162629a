"""Propagation of axes through a graph of ATen operations, with the rule of pointwise operations.

An operation without a rule fixes the axes of its arguments and of its results.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import fx

from .axes import Axis, fix, fixed, resolved, tie

Axes = list[Axis]
Rule = Callable[["Propagation", fx.Node], None]
RULES: dict[str, Rule] = {}

# f(s·x) = s·f(x) for s > 0.
HOMOGENEOUS = {
    "relu", "leaky_relu", "neg", "clone", "detach", "alias", "contiguous", "to", "_to_copy",
    "mul", "div", "add", "sub",
}  # fmt: skip
COPIES = {"clone", "detach", "alias", "contiguous", "to", "_to_copy", "lift_fresh"}


class Propagation:
    """Axes of the values of a graph, in the order of its nodes.

    Attributes
    ----------
    axes : dict of Node to list of Axis
        One axis a dimension.
    parts : dict of Node to list of list of Axis
        The same of nodes with several results.
    unscalable : list of Axis
        Axes whose channels may not be scaled, since an operation is not homogeneous.
    roles : dict of (Node, int) to (int, Axis)
        How a dimension of a network's tensor scales with channels: exponent, and axis of the
        scales; dimensions that are absent may not be scaled.
    unknown : set of str
        Operations without a rule.
    """

    def __init__(self) -> None:
        self.axes: dict[fx.Node, Axes] = {}
        self.parts: dict[fx.Node, list[Axes]] = {}
        self.unscalable: list[Axis] = []
        self.roles: dict[tuple[fx.Node, int], tuple[int, Axis]] = {}
        self.unknown: set[str] = set()

    def call(self, node: fx.Node) -> None:
        """Apply the rule of an operation."""
        if node.target is operator.getitem:
            owner, place = node.args
            parts = self.parts.get(owner)  # type: ignore[arg-type]
            self.axes[node] = parts[place] if parts else fresh(node)  # type: ignore[index]
            return
        name = name_of(node.target)
        rule = _pointwise if name in COPIES else RULES.get(name)
        if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            rule = _pointwise
        if rule is None:
            self.unknown.add(name)
            rule = opaque
        rule(self, node)

    def fix_inputs(self, node: fx.Node) -> None:
        """Fix the axes of all arguments of a node."""
        for source in node.all_input_nodes:
            fix(*self.of(source), *(a for part in self.parts.get(source, ()) for a in part))

    def of(self, value: Any) -> Axes:
        """Give the axes of an argument; a number has none."""
        return self.axes.get(value, []) if isinstance(value, fx.Node) else []

    def scales(self, node: Any, dim: int, exponent: int, axis: Axis) -> None:
        """Note how a dimension of a network's tensor scales with the channels of an axis."""
        role, other = self.roles.get((node, dim)), (exponent, axis)
        if role is not None and (role[0] != exponent or resolved(role[1]) is not resolved(axis)):
            self.block((role[1], axis))
        self.roles[node, dim] = other

    def block(self, axes: Iterable[Axis]) -> None:
        """Forbid scaling of axes."""
        self.unscalable += axes


def name_of(target: Any) -> str:
    """Give the name of an operation without its overload."""
    packet = getattr(target, "overloadpacket", target)
    return str(getattr(packet, "__name__", packet)).rpartition(".")[2]


def shape_of(node: fx.Node) -> list[int]:
    """Give the shape of a node's value."""
    if "val" not in node.meta and name_of(node.target) == "expand_as":  # written by `capture`
        node = node.args[1]  # type: ignore[assignment]
    value = node.meta.get("val")
    return list(value.shape) if isinstance(value, torch.Tensor) else []


def fresh(node: fx.Node) -> Axes:
    """Make fixed axes for a node's value."""
    return [fixed(size) for size in shape_of(node)]


def argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """Give an argument of a call by place or by name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def dims_of(value: Any, rank: int) -> list[int]:
    """Give dimensions as places from 0; None means all."""
    if value is None:
        return list(range(rank))
    values = value if isinstance(value, list | tuple) else [value]
    return [dim % rank for dim in values] if rank else []


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register the rule of operations."""

    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


def opaque(p: Propagation, node: fx.Node) -> None:
    """Fix all axes of an operation's arguments and result."""
    p.fix_inputs(node)
    p.axes[node] = fresh(node)


def _pointwise(p: Propagation, node: fx.Node) -> None:
    """Tie the axes of all arguments, aligned at the last; an axis of size 1 is repeated."""
    name, shape = name_of(node.target).removesuffix("_"), shape_of(node)
    sources = [p.of(value) for value in (*node.args, *node.kwargs.values())]
    given = [axes for axes in sources if axes]
    result: Axes = []
    for place in range(-len(shape), 0):
        here = [axes[place] for axes in given if len(axes) >= -place]
        wide = [axis for axis in here if axis.size == shape[place] != 1]
        for axis in wide[1:]:
            tie(wide[0], axis)
        result.append(wide[0] if wide else fixed(shape[place]))
        if wide and not _keeps_scale(name, node, len(wide), len(given)):
            p.block(wide)
    p.axes[node] = result


def _keeps_scale(name: str, node: fx.Node, wide: int, tensors: int) -> bool:
    """Whether the channels of the tensors along an axis may be scaled together."""
    if name not in HOMOGENEOUS:
        return False
    numbers = [a for a in node.args[:2] if isinstance(a, int | float)]
    if name in ("add", "sub"):
        return wide == tensors and not any(numbers)
    if name == "div" and not isinstance(node.args[0], fx.Node):
        return False
    return wide == 1 and (tensors == 1 or name not in ("mul", "div"))
