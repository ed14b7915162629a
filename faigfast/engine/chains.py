"""Chains: convolutions of a graph that follow each other run as one operation."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from faigfast.engine.op_rules import argument_names, as_samples
from faigfast.engine.points import Points, parts_of
from faigfast.engine.samples import Samples
from faigfast.ops.conv import chain as ops
from faigfast.ops.conv.cpu_queue import FUSED
from faigfast.ops.conv.spec import ConvSpec

aten = torch.ops.aten

LEAST = 2  # fewest convolutions of a chain


@dataclass(frozen=True, eq=False)
class NodeChain:
    """Nodes that may run as one operation.

    Parameters
    ----------
    nodes, inputs, outputs : list of Node
        Nodes of the chain, outer nodes whose values it takes, and nodes that others use.
    parameters : list of (Node, Node or None)
        Weight and bias of every convolution.
    operation : faigfast.ops.conv.chain.Chain
        The chain without its graph.
    """

    nodes: list[fx.Node]
    inputs: list[fx.Node]
    outputs: list[fx.Node]
    parameters: list[tuple[fx.Node, fx.Node | None]]
    operation: ops.Chain

    def run(self, values: dict[fx.Node, Any], points: Points) -> bool:
        """Compute the outputs; False, and no values, if the nodes have to run one by one."""
        if not all(isinstance(values[n], Samples) and len(values[n].own) == 4 for n in self.inputs):
            return False
        inputs = [points.every_image(values[n]).flatten(1, 2) for n in self.inputs]
        parameters = [_conv_parameters(values, *pair) for pair in self.parameters]
        if not ops.serves(inputs, parameters):
            return False
        outputs = ops.run(
            self.operation, inputs, parameters, points.alpha, points.images, points.cells
        )
        values.update(
            (n, as_samples(y, points)) for n, y in zip(self.outputs, outputs, strict=True)
        )
        return True


def _conv_parameters(
    values: Mapping[fx.Node, Any], weight: fx.Node, bias: fx.Node | None
) -> ops.ConvParameters:
    w0, dw, sum_w = parts_of(values[weight])
    assert w0 is not None
    return ops.ConvParameters(w0, dw, sum_w, *parts_of(None if bias is None else values[bias]))


def chained(nodes: Sequence[fx.Node], moving: Collection[fx.Node]) -> list[fx.Node | NodeChain]:
    """Group nodes that follow each other into chains, as long as possible.

    Parameters
    ----------
    nodes : sequence of Node
        In the order in which they run.
    moving : collection of Node
        Placeholders of the tensors that move along the line.
    """
    grouped: list[fx.Node | NodeChain] = []
    run: list[fx.Node] = []
    for node in [*nodes, None]:
        if node is not None and (_concatenated(node) or _convolution(node, moving)):
            run.append(node)
            continue
        # The chain ends at its last convolution: other nodes take later concatenations.
        convolutions = [i for i, one in enumerate(run) if not _concatenated(one)]
        end = convolutions[-1] + 1 if len(convolutions) >= LEAST else 0
        if end:
            grouped.append(_chain(run[:end], moving))
        grouped += run[end:]
        run = []
        if node is not None:
            grouped.append(node)
    return grouped


# Geometry of the convolutions that the kernels serve, and the defaults of `aten.conv2d`.
_SERVED_GEOMETRY = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1}
_DEFAULT_GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def _convolution(node: fx.Node, moving: Collection[fx.Node]) -> dict[str, Any]:
    """Arguments by name of a convolution that can be a link of a chain; empty for other nodes."""
    if node.target is not aten.conv2d.default:
        return {}
    given: dict[str, Any] = dict(zip(argument_names(node.target), node.args, strict=False))
    given |= {"activation": "none", "slope": 0.0, "scale": 1.0, "shuffle": 1, **node.kwargs}
    parameters = [given["weight"], *([given["bias"]] if given.get("bias") is not None else [])]
    if not all(isinstance(part, fx.Node) and part.op == "placeholder" for part in parameters):
        return {}
    geometry = {name: given.get(name, default) for name, default in _DEFAULT_GEOMETRY.items()}
    fits = (
        any(part in moving for part in parameters)
        and given["weight"].meta["val"].shape[2:] == (3, 3)
        and given["input"].meta["val"].ndim == 4
        and all(geometry[name] in (n, [n], [n, n]) for name, n in _SERVED_GEOMETRY.items())
        and given["activation"] in FUSED
        and not ConvSpec(activation=given["activation"], scale=given["scale"]).keeps_more(
            given.get("residual")
        )
    )
    return given if fits else {}


def _concatenated(node: fx.Node) -> list[fx.Node]:
    """Images whose channels a node concatenates; empty for other nodes."""
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


def _concatenations(
    nodes: Sequence[fx.Node],
) -> tuple[dict[fx.Node, list[fx.Node]], dict[fx.Node, int]]:
    """List inputs of each concatenation, and channels of the longest one that extends it.

    A concatenation that begins with all parts of an earlier one extends that.
    """
    given = {node: parts for node in nodes if (parts := _concatenated(node))}
    takes: dict[fx.Node, list[fx.Node]] = {}
    for node, parts in given.items():
        earlier = [one for one in takes if given[one] == parts[: len(given[one])] != parts]
        longest = max(earlier, key=lambda one: len(given[one]), default=None)
        takes[node] = parts if longest is None else [longest, *parts[len(given[longest]) :]]
    capacities = {node: node.meta["val"].shape[1] for node in takes}
    for node, (first, *_) in reversed(takes.items()):
        if first in capacities:
            capacities[first] = max(capacities[first], capacities[node])
    return takes, capacities


def _chain(nodes: list[fx.Node], moving: Collection[fx.Node]) -> NodeChain:
    inside = set(nodes)
    takes, capacities = _concatenations(nodes)
    given = {node: _convolution(node, moving) for node in nodes if node not in takes}
    for node, own in given.items():
        residual = own.get("residual")
        takes[node] = [own["input"], *([] if residual is None else [residual])]
    inputs = list(dict.fromkeys(n for node in nodes for n in takes[node] if n not in inside))
    positions = {node: position for position, node in enumerate((*inputs, *nodes))}
    links: list[ops.Link | ops.Concatenation] = []
    parameters: list[tuple[fx.Node, fx.Node | None]] = []
    for node in nodes:
        first, *rest = (positions[n] for n in takes[node])
        if node in capacities:
            links.append(ops.Concatenation((first, *rest), capacities[node]))
            continue
        own = given[node]
        options = own["activation"], own["slope"], own["scale"], own["shuffle"]
        links.append(ops.Link(first, rest[0] if rest else None, len(parameters), *options))
        parameters.append((own["weight"], own.get("bias")))
    outputs = [node for node in nodes if not inside.issuperset(node.users)]
    operation = ops.Chain(len(inputs), tuple(links), tuple(positions[n] for n in outputs))
    return NodeChain(nodes, inputs, outputs, parameters, operation)
