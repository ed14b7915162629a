"""Capture: a network's computation on one image as a graph of ATen operations."""

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from faigfast.path import WeightPath

aten = torch.ops.aten

_DROPOUTS = {
    getattr(aten, name + suffix)
    for name in ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout")
    for suffix in ("", "_")
}


class NotCaptured(Exception):
    """The network cannot be written as one graph; the message says why."""


def capture(path: WeightPath, x: Tensor) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Write the network's computation on one image as a graph without side effects.

    The network runs once on tensors without data, so that Python's control flow on shapes is
    followed and control flow on values is refused.

    Parameters
    ----------
    path : WeightPath
        The line; its tensors are the graph's inputs.
    x : Tensor
        [1, C, *spatial], for its shape, dtype and device.

    Returns
    -------
    graph : GraphModule
        Placeholders are the tensors, then x; every node has its value's shape in `meta["val"]`.
    keys : tuple of str
        Names of the tensors in the order of the placeholders.

    Raises
    ------
    NotCaptured
        With the reason.
    """
    # Copies, since a network may write on its tensors, which leaves of autograd do not allow.
    state = {key: value.clone() for key, value in {**path.fixed, **path.at(1.0)}.items()}
    keys, values = tuple(state), list(state.values())

    def forward(*tensors: Tensor) -> Any:
        *given, image = tensors
        return path.evaluate(dict(zip(keys, given, strict=True)), image)

    graph = _trace(forward, [*values, x], pre_dispatch=True)
    _without_gradient_modes(graph.graph)
    _without_dropout(graph.graph)
    if not _without_side_effects(graph.graph):
        # Lower, where views and writes can be told apart, at the price of composed operations.
        graph = _trace(functionalize(forward), [*values, x], pre_dispatch=False)
        if not _without_side_effects(graph.graph):
            raise NotCaptured("it writes on tensors in a way that cannot be followed")
    _without_copies(graph.graph)
    for node in graph.graph.nodes:
        if node.op == "call_function" and _draws(node):
            raise NotCaptured(f"{node.target} draws random numbers")
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph, keys


def _trace(forward: Any, inputs: Sequence[Tensor], *, pre_dispatch: bool) -> fx.GraphModule:
    try:
        return make_fx(
            forward,
            tracing_mode="fake",
            pre_dispatch=pre_dispatch,
            _allow_non_fake_inputs=True,  # tensors that a network keeps outside its state dict
        )(*inputs)
    except Exception as problem:  # any error of the network's own code under tracing
        cause = problem.__cause__ or problem
        reason = (str(cause).strip().splitlines() or [""])[0]
        raise NotCaptured(f"{type(cause).__name__}: {reason[:200]}") from problem


def _without_gradient_modes(graph: fx.Graph) -> None:
    """Detach what is computed under no_grad instead of switching gradients off."""
    enabled = True
    for node in list(graph.nodes):
        if node.target is torch._C._set_grad_enabled:
            enabled = node.args[0]
            graph.erase_node(node)
        elif not enabled and isinstance(node.meta.get("val"), Tensor):
            with graph.inserting_after(node):
                new = graph.call_function(aten.detach.default, (node,))
            new.meta.update(node.meta)
            node.replace_all_uses_with(new, partial(operator.is_not, new))


def _without_dropout(graph: fx.Graph) -> None:
    """Leave out what drops nothing; in eval mode its result is its input, not a copy."""
    for node in list(graph.nodes):
        packet = getattr(node.target, "overloadpacket", None)
        if packet in _DROPOUTS and not _draws(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def _without_copies(graph: fx.Graph) -> None:
    """Write `copy`, which has no gradient, as the change of shape and type that it is."""
    for node in list(graph.nodes):
        if node.target is aten.copy.default:
            like, source = node.meta["val"], node.args[1]
            with graph.inserting_before(node):
                new = graph.call_function(aten.expand.default, (source, list(like.shape)))
                new = graph.call_function(aten.to.dtype, (new, like.dtype))
            new.meta.update(node.meta)
            node.replace_all_uses_with(new)
            graph.erase_node(node)


def _draws(node: fx.Node) -> bool:
    if torch.Tag.nondeterministic_seeded not in getattr(node.target, "tags", ()):
        return False
    # Dropout and attention are marked so even where they drop nothing.
    arguments = node.target._schema.arguments  # type: ignore[union-attr]
    given = {argument.name: argument.default_value for argument in arguments}
    given |= dict(zip(given, node.args, strict=False)) | node.kwargs
    if "dropout_p" in given:
        return bool(given["dropout_p"])
    return given.get("train", given.get("training")) is not False


def _without_side_effects(graph: fx.Graph) -> bool:
    """Replace writes on tensors that nothing else sees; False where that is not possible."""
    seen_through: dict[fx.Node, set[fx.Node]] = {}  # a value and all views of the same memory
    for node in list(graph.nodes):
        group = {node}
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            # getitem takes a part of what it is given.
            for other in node.all_input_nodes if node.op == "call_function" else ():
                group |= seen_through[other]
        elif schema.is_mutable:
            written = node.args[0]
            if not isinstance(written, fx.Node) or seen_through[written] != {written}:
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
                group |= seen_through[other]
        for member in group:
            seen_through[member] = group
    return True


def _after(new: fx.Node, user: fx.Node) -> bool:
    return user is not new and new < user


def _functional(target: Any) -> Any:
    """Find aten.relu.default for aten.relu_.default."""
    packet, _, overload = str(target).removeprefix("aten.").rpartition(".")
    if not packet.endswith("_") or not str(target).startswith("aten."):
        return None
    found = getattr(torch.ops.aten, packet[:-1], None)
    return getattr(found, overload, None)
