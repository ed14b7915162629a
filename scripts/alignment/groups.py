"""Permutation groups of a network: the axes of its tensors that permute together.

groups = permutation_groups(baseline, target, x)
orders = {group.atom: torch.randperm(group.size) for group in groups}
same = groups.permuted(baseline, orders)     the same function of x
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from faigfast.engine.capture import capture
from faigfast.engine.not_captured import NeedsFunctional, NotCaptured
from faigfast.engine.trace import Trace, trace
from faigfast.integration.path import WeightPath
from faigfast.models.state import copy_of, tensors, undisturbed, unwrap

from . import layer_rules, shape_rules  # noqa: F401
from .axes import Atom, Axis, fixed, leaves, order, places, resolved
from .propagation import Propagation

Orders = Mapping[Atom, Tensor]  # old index at every new place, [size of the atom]


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that permute together.

    Attributes
    ----------
    atom : Atom
        The variable in the axes.
    uses : tuple of (str, int)
        State-dict keys and dimensions that have these channels.
    scalable : bool
        Whether channels may also be multiplied by positive numbers without changing the function.
    """

    atom: Atom
    uses: tuple[tuple[str, int], ...]
    scalable: bool

    @property
    def size(self) -> int:
        """Number of channels."""
        return self.atom.size


class Groups:
    """All permutation groups of a network.

    Attributes
    ----------
    axes : dict of str to list of Axis
        Axes of every tensor on the line between two networks, by state-dict key.
    roles : dict of (str, int) to (int, Axis)
        Exponent and axis of the scales by which a dimension of a tensor is multiplied.
    graph, root, keys
        The captured graph, the holder of its constants, and the keys of its first inputs.
    nodes : dict of Node to list of Axis
        Axes of the values of the graph.
    unknown : list of str
        Operations without a rule, whose axes are fixed.
    """

    def __init__(self, path: WeightPath, made: Trace, graph: fx.Graph) -> None:
        self.graph, self.root, self.keys = graph, made.root, tuple(made.keys[:-1])
        rules = Propagation()
        given = _propagated(rules, graph, self.keys, frozenset(path.start))
        self.axes = {key: rules.axes[node] for key, node in given.items() if key in path.start}
        self.nodes, self.unknown = rules.axes, sorted(rules.unknown)
        self.roles = {
            (key, dim): rules.roles[node, dim]
            for key, node in given.items()
            for dim in range(len(rules.axes[node]))
            if (node, dim) in rules.roles
        }
        blocked = {atom for axis in rules.unscalable for atom in leaves(axis)}
        blocked |= {
            atom
            for key, axes in self.axes.items()
            for dim, axis in enumerate(axes)
            if (key, dim) not in self.roles
            for atom in leaves(axis)
        }
        uses: dict[Atom, dict[tuple[str, int], None]] = {}
        for key, axes in self.axes.items():
            for dim, axis in enumerate(axes):
                for atom in leaves(axis):
                    if not atom.fixed:
                        uses.setdefault(atom, {})[key, dim] = None
        self._groups = [Group(a, tuple(places), a not in blocked) for a, places in uses.items()]

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def reordered(self, key: str, value: Tensor, orders: Orders) -> Tensor:
        """Permute one tensor."""
        for dim, axis in enumerate(self.axes[key]):
            if any(atom in orders for atom in leaves(axis)):
                value = value.index_select(dim, order(axis, orders))
        return value

    def permuted(self, network: nn.Module, orders: Orders) -> nn.Module:
        """Copy a network with its channels in another order; the function is the same.

        Raises
        ------
        ValueError
            If an order is no permutation of its group.
        """
        for atom, value in orders.items():
            if not torch.equal(value.sort().values, torch.arange(atom.size)):
                raise ValueError(
                    f"orders has {value.tolist()} for a group of {atom.size} channels; expected "
                    f"a permutation of 0 to {atom.size - 1}"
                )
        state = tensors(network)
        return self.replaced(
            network, {key: self.reordered(key, state[key], orders) for key in self.axes}
        )

    @staticmethod
    def replaced(network: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
        """Copy a network with other values in some tensors."""
        result = copy_of(unwrap(network, "network"))
        own = tensors(result)
        with torch.no_grad():
            for key, value in values.items():
                own[key].copy_(value)
        return result

    def selected(self, key: str, dim: int, atom: Atom, value: Tensor) -> Tensor:
        """Give the parts of a tensor by a group's channel, [occurrences, channels, rest]."""
        index = places(self.axes[key][dim], atom)
        parts = value.movedim(dim, 0)[index]
        return parts.reshape(*index.shape, -1)


def _propagated(
    rules: Propagation, graph: fx.Graph, keys: tuple[str, ...], moving: frozenset[str]
) -> dict[str, fx.Node]:
    """Apply the rules to every node; give the placeholders of the network's tensors."""
    given: dict[str, fx.Node] = {}
    names = iter(keys)
    for node in graph.nodes:
        value = node.meta.get("val")
        shape = value.shape if isinstance(value, Tensor) else ()
        if node.op == "placeholder":
            key = next(names, "")  # "" is the image
            given[key] = node
            # Two dimensions of one tensor never share an axis at first.
            free = key in moving and bool(node.users)
            rules.axes[node] = [Atom(size, fixed=not free) for size in shape]
        elif node.op == "get_attr":
            rules.axes[node] = [fixed(size) for size in shape]
        elif node.op == "call_function":
            rules.call(node)
        elif node.op == "output":
            rules.fix_inputs(node)
    return {key: node for key, node in given.items() if key}


def permutation_groups(baseline: nn.Module, target: nn.Module, x: Tensor) -> Groups:
    """Derive the permutation groups of two networks of one architecture from one forward.

    Parameters
    ----------
    baseline, target : nn.Module
        The networks; eval mode is used, and left as it was.
    x : Tensor
        One image [1, C, *spatial], of a size that the networks take.

    Returns
    -------
    Groups
        Valid for images of all sizes for which the networks run the same operations.

    Raises
    ------
    ValueError
        If x is not one image, the networks differ in more than values, have equal values, or
        cannot be written as a graph.
    """
    if not isinstance(x, Tensor) or x.ndim < 3 or len(x) != 1:
        shown = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"x is {shown}; expected one image [1, C, *spatial]")
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    path = WeightPath(baseline, target)
    # Without gradients of their own, norms stay one operation.
    values = {key: value.detach() for key, value in {**path.fixed, **path.end}.items()}
    with undisturbed(baseline, target):
        for functional in (False, True):
            try:
                made = trace(path, target, values, x, functional)
                return Groups(path, made, capture(made))
            except NeedsFunctional:
                continue
            except NotCaptured as problem:
                raise ValueError(f"target cannot be written as a graph: {problem}") from problem
    raise ValueError("target writes on tensors in a way that no graph shows; expected one without")


def structure(axis: Axis) -> str:
    """Describe an axis: "64", "3 fixed", "(32 + 16)" of `cat`, "(16 × 4 fixed)" of a shuffle."""
    axis = resolved(axis)
    if isinstance(axis, Atom):
        return f"{axis.size} fixed" if axis.fixed else str(axis.size)
    parts, sign = (axis.parts, " + ") if hasattr(axis, "parts") else (axis.factors, " × ")
    return f"({sign.join(map(structure, parts))})"
