"""One sample alone: the graph as it is, differentiated by torch, without a path operation.

Where a chunk is one image at one point, gradients are per image anyway, and what folding costs in
Python would not be earned back.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.autograd.function import once_differentiable

from faigfast.engine.fuse_attention import fuse_attention
from faigfast.engine.samples import ALIKE

aten = torch.ops.aten

_OVERWRITING = {
    aten.relu.default: aten.relu_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.add.Tensor: aten.add_.Tensor,
}
# Their results are needed by no gradient of their own.
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_FRESH = {convolution: rank for rank, convolution in enumerate(_CONVOLUTIONS, start=3)}
_DEFAULTS: tuple[Any, ...] = (1, 0, 1, 1)  # stride, padding, dilation, groups
APART = 400_000  # outputs at stride 1 from where a bias gradient is worth a function of its own


def single(graph: fx.Graph, nodes: Collection[fx.Node]) -> tuple[fx.GraphModule, list[str]]:
    """Make a module of some nodes of a graph, to be called with what they take from others.

    Parameters
    ----------
    graph : Graph
        Before `fuse`.
    nodes : collection of Node
        Those that depend on image and point.

    Returns
    -------
    module : GraphModule
        Takes values by position, gives the graph's output.
    names : list of str
        Names of the nodes whose values it takes.
    """
    new = fx.Graph()
    inside = set(nodes)
    output = next(node for node in graph.nodes if node.op == "output")
    needed = {n: None for node in (*nodes, output) for n in node.all_input_nodes if n not in inside}
    copies = {node: new.placeholder(node.name) for node in needed}
    for node in graph.nodes:
        if node in inside:
            copies[node] = copy = new.node_copy(node, copies.__getitem__)
            copy.target = ALIKE.get(node.target, node.target)
    new.output(fx.node.map_arg(output.args[0], copies.__getitem__))
    fuse_attention(new)
    _overwrite(new)
    for node in new.nodes:
        biased = node.target in _FRESH and len(node.args) > 2 and isinstance(node.args[2], fx.Node)
        if not biased or node.kwargs:
            continue
        if node.meta["val"].ndim == _FRESH[node.target]:  # with a batch
            node.target = convolution
    return fx.GraphModule(torch.nn.Module(), new), [node.name for node in needed]


class _Apart(torch.autograd.Function):
    """A convolution whose bias gradient is a sum of its own.

    oneDNN takes it with the weight gradient, which that makes up to a seventh slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, bias: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(x, w)
        *sides, groups = (*rest, *_DEFAULTS[len(rest) :])
        wide = [[s] if isinstance(s, int) else list(s) for s in sides]
        ctx.geometry = [s * (x.ndim - 2) if len(s) == 1 else s for s in wide], groups
        return _CONVOLUTIONS[x.ndim - 3](x, w, bias, *rest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        (stride, padding, dilation), groups = ctx.geometry
        on_x, on_w, on_bias, *rest = ctx.needs_input_grad
        gx, gw, _ = aten.convolution_backward(
            gradient, x, w, None, stride, padding, dilation, False, [0] * (x.ndim - 2), groups,
            [on_x, on_w, False],
        )  # fmt: skip
        summed = gradient.sum([0, *range(2, x.ndim)]) if on_bias else None
        return gx, gw, summed, *(None for _ in rest)


def convolution(x: Tensor, w: Tensor, *rest: Any) -> Tensor:
    """As `aten::conv1d`, `conv2d` or `conv3d`, with a bias, by place."""
    large = len(w) * x.shape[2:].numel() >= APART
    return _Apart.apply(x, w, *rest) if large else _CONVOLUTIONS[x.ndim - 3](x, w, *rest)


def _overwrite(graph: fx.Graph) -> None:
    """Let activations and sums overwrite a convolution's result that nothing else needs."""
    for node in graph.nodes:
        if node.target not in _OVERWRITING or node.kwargs:
            continue
        args = list(node.args)
        if node.target is aten.leaky_relu.default and not (args[1:] or [0.01])[0] > 0:
            continue  # its result does not tell the sign of what it took
        if node.target is aten.add.Tensor and not _free(args[0]):
            args.reverse()
        if not _free(args[0]):
            continue
        if node.target is aten.add.Tensor and not _alike(node, args):
            continue
        node.target, node.args = _OVERWRITING[node.target], tuple(args)


def _free(value: Any) -> bool:
    return isinstance(value, fx.Node) and value.target in _FRESH and len(value.users) == 1


def _alike(node: fx.Node, args: list[Any]) -> bool:
    """Whether a sum has the shape and type of what it would overwrite."""
    if not all(isinstance(part, fx.Node) for part in args):
        return False
    values = [part.meta.get("val") for part in (node, *args)]
    return len({(v.shape, v.dtype) for v in values if isinstance(v, Tensor)}) == 1


class OnePoint(torch.autograd.Function):
    """All tensors that move, at one point of the line; their gradients go to the sums."""

    @staticmethod
    def forward(ctx: Any, alpha: float, *parts: Tensor) -> tuple[Tensor, ...]:
        """Interpolate.

        Parameters
        ----------
        alpha : float
            The point.
        parts : Tensor
            All w0 [*w], then all Δ, then all sums [1, *w].
        """
        ctx.set_materialize_grads(False)
        third = len(parts) // 3
        ctx.sums = parts[2 * third :]
        starts, deltas = list(parts[:third]), list(parts[third : 2 * third])
        return tuple(torch._foreach_add(starts, deltas, alpha=alpha))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Add each gradient, as one image's, to the gradient of its sums.

        Not by autograd, which would bring every one into another layout first.
        """
        for sums, found in zip(ctx.sums, gradients, strict=True):
            if found is not None and sums.grad is None:
                sums.grad = found.unsqueeze(0).to(sums.dtype, copy=True)  # it may be another's too
            elif found is not None:
                sums.grad.add_(found)
        return None, *[None] * (3 * len(ctx.sums))
