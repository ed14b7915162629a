"""Capture: the operations of a trace as a graph of ATen operations without side effects."""

from functools import partial
from typing import Any

import torch
from torch import fx

from faigfast.engine.not_captured import NeedsFunctional
from faigfast.engine.trace import Trace

aten = torch.ops.aten

_DROPOUTS = {
    getattr(aten, name + suffix)
    for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    for suffix in ("", "_")
}


def capture(trace: Trace) -> fx.Graph:
    """Write a trace as a graph.

    Returns
    -------
    Graph
        Placeholders are the trace's inputs; every node has its value's shape in `meta["val"]` and
        its place among the trace's values in `meta["place"]`.

    Raises
    ------
    NeedsFunctional
        If an operation writes on a tensor that others see.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(trace.graph, {}))
    _without_dropout(graph)
    if not _without_side_effects(graph):
        raise NeedsFunctional
    _without_copies(graph)
    graph.eliminate_dead_code()
    return graph


def _without_dropout(graph: fx.Graph) -> None:
    """Remove dropout; in eval mode its result is its input, not a copy."""
    for node in list(graph.nodes):
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _DROPOUTS:  # `trace` refuses dropout that drops something
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _without_copies(graph: fx.Graph) -> None:
    """Replace `copy`, which has no gradient, by its change of shape and type."""
    for node in list(graph.nodes):
        if node.target is aten.copy.default:
            like, source = node.args[:2]
            with graph.inserting_before(node):
                new = graph.call_function(aten.expand_as.default, (source, like))
                new = graph.call_function(aten.to.dtype, (new, node.meta["val"].dtype))
            new.meta.update(node.meta)
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def _without_side_effects(graph: fx.Graph) -> bool:
    """Replace writes on tensors that nothing else sees; False if a write cannot be replaced."""
    aliases: dict[fx.Node, set[fx.Node]] = {}  # a value and all views of the same memory
    for node in list(graph.nodes):
        group = {node}
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            # One of several results shares the memory of its input.
            for other in node.all_input_nodes if node.op == "call_function" else ():
                group |= aliases[other]
        elif schema.is_mutable:
            written = node.args[0]
            if not isinstance(written, fx.Node) or aliases[written] != {written}:
                return False
            functional = _functional(node.target)
            if functional is None:
                return False
            with graph.inserting_before(node):
                new = graph.call_function(functional, node.args, node.kwargs)
            new.meta.update(node.meta)
            node.replace_all_uses_with(new)
            written.replace_all_uses_with(new, partial(_after, new))
            graph.erase_node(node)
            node, group = new, {new}
        elif any(argument.alias_info is not None for argument in schema.arguments):
            for other in node.all_input_nodes:
                group |= aliases[other]
        for member in group:
            aliases[member] = group
    return True


def _after(new: fx.Node, user: fx.Node) -> bool:
    return user is not new and new < user


def _functional(target: Any) -> Any:
    """Find, for example, aten.relu.default for aten.relu_.default."""
    packet, _, overload = str(target).removeprefix("aten.").rpartition(".")
    if not packet.endswith("_") or not str(target).startswith("aten."):
        return None
    functional = getattr(torch.ops.aten, packet[:-1], None)
    return getattr(functional, overload, None)
