"""Chains: find convolutions that follow each other in a graph, and run them as one operation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from faigfast.engine.op_rules import Points, folded, names, parts_of
from faigfast.engine.samples import Folded
from faigfast.ops.conv import chain as ops
from faigfast.ops.conv.cpu_queue import FUSED
from faigfast.ops.conv.operation import keeps_more

aten = torch.ops.aten

LEAST = 2  # convolutions of a chain


@dataclass(frozen=True, eq=False)
class NodeChain:
    """Nodes that may run as one operation.

    Parameters
    ----------
    nodes, inputs, outputs : list of Node
        Those of the chain, those outside whose values it takes, and those that others use.
    layers : list of (Node, Node or None)
        Weight and bias of every convolution.
    operation : faigfast.ops.conv.chain.Chain
        What is computed.
    """

    nodes: list[fx.Node]
    inputs: list[fx.Node]
    outputs: list[fx.Node]
    layers: list[tuple[fx.Node, fx.Node | None]]
    operation: ops.Chain

    def run(self, values: dict[fx.Node, Any], points: Points) -> bool:
        """Compute what others use, or nothing where the nodes have to run one by one."""
        if not all(isinstance(values[n], Folded) and len(values[n].own) == 4 for n in self.inputs):
            return False
        inputs = [points.every_image(values[n]).flatten(1, 2) for n in self.inputs]
        layers = [_layer(values, *pair) for pair in self.layers]
        if not ops.serves(inputs, layers):
            return False
        found = ops.run(self.operation, inputs, layers, points.alpha, points.images)
        values.update((n, folded(y, points)) for n, y in zip(self.outputs, found, strict=True))
        return True


def _layer(values: Mapping[fx.Node, Any], weight: fx.Node, bias: fx.Node | None) -> ops.Layer:
    w0, dw, sum_w = parts_of(values[weight])
    assert w0 is not None
    return ops.Layer(w0, dw, sum_w, *parts_of(None if bias is None else values[bias]))


def chained(nodes: Sequence[fx.Node], moving: Collection[fx.Node]) -> list[fx.Node | NodeChain]:
    """Put nodes that follow each other into chains, as long as they can be.

    Parameters
    ----------
    nodes : sequence of Node
        In the order in which they run.
    moving : collection of Node
        Placeholders of the tensors that move along the line.
    """
    found: list[fx.Node | NodeChain] = []
    run: list[fx.Node] = []
    for node in [*nodes, None]:
        if node is not None and (_joined(node) or _convolution(node, moving)):
            run.append(node)
            continue
        # What is joined last is taken by something else.
        convolutions = [i for i, one in enumerate(run) if not _joined(one)]
        end = convolutions[-1] + 1 if len(convolutions) >= LEAST else 0
        if end:
            found.append(_chain(run[:end], moving))
        found += run[end:]
        run = []
        if node is not None:
            found.append(node)
    return found


# Of the convolutions that the kernels serve, as the operation names it.
_GEOMETRY = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1}
_UNLESS_GIVEN = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def _convolution(node: fx.Node, moving: Collection[fx.Node]) -> dict[str, Any]:
    """Arguments, by name, of a convolution that can be a link of a chain; none of other nodes."""
    if node.target is not aten.conv2d.default:
        return {}
    given: dict[str, Any] = dict(zip(names(node.target), node.args, strict=False))
    given |= {"activation": "none", "slope": 0.0, "scale": 1.0, "shuffle": 1, **node.kwargs}
    parameters = [given["weight"], *([given["bias"]] if given.get("bias") is not None else [])]
    if not all(isinstance(part, fx.Node) and part.op == "placeholder" for part in parameters):
        return {}
    geometry = {name: given.get(name, usual) for name, usual in _UNLESS_GIVEN.items()}
    fits = (
        any(part in moving for part in parameters)
        and given["weight"].meta["val"].shape[2:] == (3, 3)
        and given["input"].meta["val"].ndim == 4
        and all(geometry[name] in (n, [n], [n, n]) for name, n in _GEOMETRY.items())
        and given["activation"] in FUSED
        and not keeps_more(given["activation"], given["scale"], given.get("residual"))
    )
    return given if fits else {}


def _joined(node: fx.Node) -> list[fx.Node]:
    """Images whose channels a node concatenates; none of other nodes."""
    if node.target is not aten.cat.default:
        return []
    parts: Any = node.args[0]
    dim: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    fits = (
        isinstance(parts, Sequence)
        and all(isinstance(part, fx.Node) for part in parts)
        and node.meta["val"].ndim == 4
        and dim % 4 == 1
    )
    return list(parts) if fits else []


def _joints(nodes: Sequence[fx.Node]) -> tuple[dict[fx.Node, list[fx.Node]], dict[fx.Node, int]]:
    """Values that each concatenation takes, and the channels of the longest that begins with it.

    One that has all parts of an earlier one, and more, goes on from that.
    """
    given = {node: parts for node in nodes if (parts := _joined(node))}
    takes: dict[fx.Node, list[fx.Node]] = {}
    for node, parts in given.items():
        known = [one for one in takes if given[one] == parts[: len(given[one])] != parts]
        before = max(known, key=lambda one: len(given[one]), default=None)
        takes[node] = parts if before is None else [before, *parts[len(given[before]) :]]
    rooms = {node: node.meta["val"].shape[1] for node in takes}
    for node, (first, *_) in reversed(takes.items()):
        if first in rooms:
            rooms[first] = max(rooms[first], rooms[node])
    return takes, rooms


def _chain(nodes: list[fx.Node], moving: Collection[fx.Node]) -> NodeChain:
    inside = set(nodes)
    takes, rooms = _joints(nodes)
    given = {node: _convolution(node, moving) for node in nodes if node not in takes}
    for node, own in given.items():
        residual = own.get("residual")
        takes[node] = [own["input"], *([] if residual is None else [residual])]
    inputs = list(dict.fromkeys(n for node in nodes for n in takes[node] if n not in inside))
    places = {node: place for place, node in enumerate((*inputs, *nodes))}
    links: list[ops.Link | ops.Joint] = []
    layers: list[tuple[fx.Node, fx.Node | None]] = []
    for node in nodes:
        first, *rest = (places[n] for n in takes[node])
        if node in rooms:
            links.append(ops.Joint((first, *rest), rooms[node]))
            continue
        own = given[node]
        how = own["activation"], own["slope"], own["scale"], own["shuffle"]
        links.append(ops.Link(first, rest[0] if rest else None, len(layers), *how))
        layers.append((own["weight"], own.get("bias")))
    outputs = [node for node in nodes if not inside.issuperset(node.users)]
    operation = ops.Chain(len(inputs), tuple(links), tuple(places[n] for n in outputs))
    return NodeChain(nodes, inputs, outputs, layers, operation)
