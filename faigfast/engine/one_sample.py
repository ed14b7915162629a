"""One sample: the graph as it is, differentiated by torch, without path operations.

In a chunk of one image at one point, gradients are per image anyway, and a batch of samples would
cost more Python than it saves.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.function import once_differentiable

from faigfast.engine.fuse_attention import fuse_attention
from faigfast.engine.samples import REPLACEMENTS

aten = torch.ops.aten

_OVERWRITING = {
    aten.relu.default: aten.relu_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.add.Tensor: aten.add_.Tensor,
}
# A convolution's own gradient does not need its result.
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_CONVOLUTION_RANKS = {convolution: rank for rank, convolution in enumerate(_CONVOLUTIONS, start=3)}
_DEFAULTS: tuple[Any, ...] = (1, 0, 1, 1)  # stride, padding, dilation, groups
LARGE_OUTPUT = 400_000  # numbers at stride 1; from here on a separate bias gradient is faster


def sample_module(graph: fx.Graph, nodes: Collection[fx.Node]) -> tuple[fx.GraphModule, list[str]]:
    """Make a module of some nodes of a graph; it takes the values they read from other nodes.

    Parameters
    ----------
    graph : Graph
        Before `fuse`.
    nodes : collection of Node
        Nodes that depend on image and point.

    Returns
    -------
    module : GraphModule
        Takes values by position, returns the graph's output.
    names : list of str
        Names of the nodes whose values it takes, in order.
    """
    new = fx.Graph()
    inside = set(nodes)
    output = next(node for node in graph.nodes if node.op == "output")
    needed = {n: None for node in (*nodes, output) for n in node.all_input_nodes if n not in inside}
    copies = {node: new.placeholder(node.name) for node in needed}
    for node in graph.nodes:
        if node in inside:
            copies[node] = copy = new.node_copy(node, copies.__getitem__)
            copy.target = REPLACEMENTS.get(node.target, node.target)
    new.output(fx.node.map_arg(output.args[0], copies.__getitem__))
    fuse_attention(new)
    _overwrite(new)
    for node in new.nodes:
        biased = (
            node.target in _CONVOLUTION_RANKS
            and len(node.args) > 2
            and isinstance(node.args[2], fx.Node)
        )
        if not biased or node.kwargs:
            continue
        if node.meta["val"].ndim == _CONVOLUTION_RANKS[node.target]:  # with a batch
            node.target = convolution
    return fx.GraphModule(torch.nn.Module(), new), [node.name for node in needed]


class _SeparateBias(torch.autograd.Function):
    """A convolution that sums its bias gradient separately.

    In oneDNN the bias gradient makes the weight gradient up to a seventh slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(x, w)
        *sides, groups = (*rest, *_DEFAULTS[len(rest) :])
        lists = [[s] if isinstance(s, int) else list(s) for s in sides]
        ctx.geometry = [s * (x.ndim - 2) if len(s) == 1 else s for s in lists], groups
        return _CONVOLUTIONS[x.ndim - 3](x, w, bias, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        (stride, padding, dilation), groups = ctx.geometry
        needs_x, needs_w, needs_bias, *rest = ctx.needs_input_grad
        gx, gw, _ = aten.convolution_backward(
            gradient, x, w, None, stride, padding, dilation, False, [0] * (x.ndim - 2), groups,
            [needs_x, needs_w, False],
        )  # fmt: skip
        gb = gradient.sum([0, *range(2, x.ndim)]) if needs_bias else None
        return gx, gw, gb, *(None for _ in rest)


def convolution(x: Tensor, w: Tensor, *rest: Any) -> Tensor:
    """As `aten::conv1d`, `conv2d` or `conv3d`, with a bias, by position."""
    large = len(w) * x.shape[2:].numel() >= LARGE_OUTPUT
    return _SeparateBias.apply(x, w, *rest) if large else _CONVOLUTIONS[x.ndim - 3](x, w, *rest)


def _overwrite(graph: fx.Graph) -> None:
    """Let activations and sums overwrite a convolution's result that has no other user."""
    for node in graph.nodes:
        if node.target not in _OVERWRITING or node.kwargs:
            continue
        args = list(node.args)
        if node.target is aten.leaky_relu.default and not (args[1:] or [0.01])[0] > 0:
            continue  # the result does not give the sign of the input
        if node.target is aten.add.Tensor and not _may_be_overwritten(args[0]):
            args.reverse()
        if not _may_be_overwritten(args[0]):
            continue
        if node.target is aten.add.Tensor and not _same_shape_and_type(node, args):
            continue
        node.target, node.args = _OVERWRITING[node.target], tuple(args)


def _may_be_overwritten(value: Any) -> bool:
    return (
        isinstance(value, fx.Node) and value.target in _CONVOLUTION_RANKS and len(value.users) == 1
    )


def _same_shape_and_type(node: fx.Node, args: list[Any]) -> bool:
    """Whether a sum has the shape and type of the tensor it would overwrite."""
    if not all(isinstance(part, fx.Node) for part in args):
        return False
    values = [part.meta.get("val") for part in (node, *args)]
    return len({(v.shape, v.dtype) for v in values if isinstance(v, Tensor)}) == 1


class OnePoint(torch.autograd.Function):
    """All moving tensors at one point of the line; backward fills the gradients of their sums."""

    @staticmethod
    def forward(ctx: Any, alpha: float, *parts: Tensor) -> tuple[Tensor, ...]:
        """Interpolate.

        Parameters
        ----------
        alpha : float
            The point.
        parts : Tensor
            All w0 [*w], then all Δ, then all gradient sums [1, *w].
        """
        ctx.set_materialize_grads(False)
        third = len(parts) // 3
        ctx.gradient_sums = parts[2 * third :]
        starts, deltas = list(parts[:third]), list(parts[third : 2 * third])
        return tuple(torch._foreach_add(starts, deltas, alpha=alpha))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Add each gradient, as that of one image, to the gradient of its sums.

        Autograd would bring every gradient into another layout first.
        """
        for total, gradient in zip(ctx.gradient_sums, gradients, strict=True):
            if gradient is not None and total.grad is None:
                total.grad = gradient.unsqueeze(0).to(
                    total.dtype, copy=True
                )  # others may hold it too
            elif gradient is not None:
                total.grad.add_(gradient)
        return None, *[None] * (3 * len(ctx.gradient_sums))
