"""Fuse: a convolution with its activation, shuffle, factor and residual becomes one node."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx

from faigfast.engine.op_rules import CONVOLUTIONS

aten = torch.ops.aten

_ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.sigmoid.default: "sigmoid",
    aten.silu.default: "silu",
}
_SHUFFLES = {aten.pixel_shuffle.default}
_POINTWISE = {*_ACTIVATIONS, aten.leaky_relu.default, aten.gelu.default}


def fuse(graph: fx.Graph, moving: Collection[fx.Node]) -> None:
    """Give convolutions the activation, shuffle, factor and residual after them, as arguments.

    They become `activation`, `slope`, `shuffle`, `scale` and `residual` of the node, which takes
    the position of the last of them.

    Parameters
    ----------
    graph : Graph
        Changed in place.
    moving : collection of Node
        Placeholders of the tensors that move along the line: only a convolution with such a weight
        or bias becomes a path operation.
    """
    for node in list(graph.nodes):
        if node.target in _SHUFFLES and node in _dependent_on(graph, moving):
            _activate_before_shuffle(graph, node)
    for node in list(graph.nodes):
        if (
            node.op == "call_function"
            and node.target in CONVOLUTIONS
            and _reads_parameters(node, moving)
        ):
            _absorb(graph, node)
    graph.lint()


def _dependent_on(graph: fx.Graph, moving: Collection[fx.Node]) -> set[fx.Node]:
    """Nodes that depend on a tensor that moves."""
    dependent = set(moving)
    for node in graph.nodes:
        if not dependent.isdisjoint(node.all_input_nodes):
            dependent.add(node)
    return dependent


def _reads_parameters(node: fx.Node, moving: Collection[fx.Node]) -> bool:
    """Whether weight and bias are placeholders, one of them moves, and x is a batch."""
    x, weight = node.args[:2]
    bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    parameters = [weight] if bias is None else [weight, bias]
    if not all(isinstance(p, fx.Node) and p.op == "placeholder" for p in parameters):
        return False
    assert isinstance(x, fx.Node) and isinstance(weight, fx.Node)
    batched = x.meta["val"].ndim == weight.meta["val"].ndim
    return batched and any(p in moving for p in parameters)


def _next(node: fx.Node) -> fx.Node | None:
    """Find the only user of this node, if it uses the node once; else None."""
    if len(node.users) != 1:
        return None
    user = next(iter(node.users))
    once = sum(argument is node for argument in (*user.args, *user.kwargs.values())) == 1
    return user if user.op == "call_function" and once else None


def _activate_before_shuffle(graph: fx.Graph, shuffle: fx.Node) -> None:
    """Move an activation before the pixel shuffle it follows: the order does not matter."""
    user = _next(shuffle)
    source = shuffle.args[0]
    if user is None or user.target not in _POINTWISE or user.args[0] is not shuffle:
        return
    if not isinstance(source, fx.Node) or source.target not in CONVOLUTIONS:
        return
    if len(source.users) != 1:
        return
    with graph.inserting_before(shuffle):
        before = graph.call_function(user.target, (source, *user.args[1:]), user.kwargs)
    before.meta.update(source.meta)
    shuffle.args = (before, *shuffle.args[1:])
    user.replace_all_uses_with(shuffle)
    graph.erase_node(user)


def _absorb(graph: fx.Graph, node: fx.Node) -> None:
    for part in (_activation, _shuffle, _factor, _residual):
        absorbed = part(_next(node), node)
        if absorbed is not None:
            node = _merged(graph, node, *absorbed)


Absorbed = tuple[fx.Node, dict[str, Any]] | None


def _merged(graph: fx.Graph, node: fx.Node, user: fx.Node, options: dict[str, Any]) -> fx.Node:
    with graph.inserting_before(user):
        target: Any = node.target
        new = graph.call_function(target, node.args, {**node.kwargs, **options})
    new.meta.update(user.meta)
    user.replace_all_uses_with(new)
    graph.erase_node(user)
    graph.erase_node(node)
    return new


def _activation(user: fx.Node | None, node: fx.Node) -> Absorbed:
    if user is None or user.args[0] is not node:
        return None
    given = {**dict(zip(("slope",), user.args[1:], strict=False)), **user.kwargs}
    if user.target in _ACTIVATIONS:
        return user, {"activation": _ACTIVATIONS[user.target]}
    if user.target is aten.leaky_relu.default:
        slope: Any = given.get("slope", given.get("negative_slope", 0.01))
        # With a positive slope, output and input have the same sign.
        return (user, {"activation": "leaky_relu", "slope": float(slope)}) if slope > 0 else None
    if user.target is aten.gelu.default:
        tanh = given.get("approximate", "none") == "tanh"
        return user, {"activation": "gelu_tanh" if tanh else "gelu"}
    if user.target is aten.prelu.default:
        slope = user.args[1]
        # Only a placeholder: a computed slope has an autograd history.
        if isinstance(slope, fx.Node) and slope.op == "placeholder":
            return user, {"activation": "prelu", "slope": slope}
    return None


def _shuffle(user: fx.Node | None, node: fx.Node) -> Absorbed:
    # PReLU slopes are per channel, and channels differ after the shuffle.
    if user is None or user.target not in _SHUFFLES or node.kwargs.get("activation") == "prelu":
        return None
    factor: Any = user.args[1]
    return user, {"shuffle": factor}


def _factor(user: fx.Node | None, node: fx.Node) -> Absorbed:
    if user is None or user.target not in (aten.mul.Tensor, aten.mul.Scalar):
        return None
    other: Any = user.args[1] if user.args[0] is node else user.args[0]
    plain = isinstance(other, int | float) and not isinstance(other, bool)
    return (user, {"scale": float(other)}) if plain else None


def _residual(user: fx.Node | None, node: fx.Node) -> Absorbed:
    if user is None or user.target is not aten.add.Tensor:
        return None
    first, second = user.args
    factor: Any = user.kwargs.get("alpha", 1)
    other = second if first is node else first
    if not isinstance(other, fx.Node) or (first is node and factor != 1):
        return None
    one, two = (part.meta.get("val") for part in (node, other))
    if not (isinstance(one, Tensor) and isinstance(two, Tensor)):
        return None
    if (one.shape, one.dtype) != (two.shape, two.dtype):
        return None
    scale: Any = node.kwargs.get("scale", 1.0)
    return user, {"residual": other, "scale": float(scale * factor)}
