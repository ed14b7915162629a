"""Attention: softmax(q k + …) v in the graph of one sample runs as one operation."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from faigfast.ops.attention.operation import attention
from faigfast.ops.registry import choose, is_observed

aten = torch.ops.aten

# A step from the product q k to the scores: a factor, the shape of a view, or None for a sum with
# the next addend.
Step = float | tuple[int, ...] | None

_VIEWS = (aten.view.default, aten.reshape.default)
_FACTORS: dict[Any, Callable[[float], float]] = {
    aten.mul.Tensor: float,
    aten.div.Tensor: lambda divisor: 1 / divisor,
}


def fuse_attention(graph: fx.Graph) -> None:
    """Replace two products, and the sums and softmax between them, by a call of `attend`."""
    for softmax in list(graph.find_nodes(op="call_function", target=aten.softmax.int)):
        product: Any = next(iter(softmax.users), None)
        if len(softmax.users) > 1 or not _is_matmul(product) or product.args[0] is not softmax:
            continue
        scores = _match_scores(softmax) if _is_last(softmax) else None
        if scores is None:
            continue
        q_k, steps, addends = scores
        with graph.inserting_before(product):
            args: Any = (*q_k.args, product.args[1], tuple(steps), *addends)
            fused = graph.call_function(attend, args)
        fused.meta.update(product.meta)
        product.replace_all_uses_with(fused)
    graph.eliminate_dead_code()


def attend(q: Tensor, k: Tensor, v: Tensor, steps: Sequence[Step], *addends: Tensor) -> Tensor:
    """Compute softmax(scores) v, where `steps` turn q k into scores; as one operation if possible.

    Parameters
    ----------
    q, k, v : Tensor
        [..., N, D], [..., D, M] and [..., M, E].
    steps : sequence of Step
        What turns q k into the scores.
    addends : Tensor
        One for every step that is None, in order.

    Returns
    -------
    Tensor
        [..., N, E].
    """
    arguments = None if is_observed() else _windows(q, k, v, steps, addends)
    if arguments is not None and choose(attention.name, *arguments).name != "plain":
        y, _ = attention(*arguments)
        return y.reshape(*v.shape[:-2], *y.shape[2:])  # leading sizes are those of the scores
    scores, rest = q @ k, iter(addends)
    for step in steps:
        if isinstance(step, tuple):
            scores = scores.reshape(step)
        else:
            scores = scores + next(rest) if step is None else scores * step
    return scores.softmax(-1) @ v


def _windows(
    q: Tensor, k: Tensor, v: Tensor, steps: Sequence[Step], addends: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None] | None:
    """Arguments of `attention`; None where it does not take these shapes, or gains nothing."""
    lead = [size for size in q.shape[:-2] if size != 1]
    if len(lead) > 2 or len(addends) > 2 or q.shape[-1] > k.shape[-1]:
        return None
    if q.shape[:-2] != k.shape[:-2]:
        return None
    full = [1] * (2 - len(lead)) + lead
    rows_and_columns = [q.shape[-2], k.shape[-1]]
    shape, rest, parts = [*q.shape[:-2], *rows_and_columns], iter(addends), []
    for step in steps:
        if isinstance(step, tuple):
            shape = _resolved(step, shape)
            sizes = [size for size in shape[:-2] if size != 1]
            if sizes != lead or shape[-2:] != rows_and_columns:
                return None
        elif step is None:
            part = next(rest)
            if part.ndim > len(shape):
                return None
            sizes = [1] * (len(shape) - part.ndim) + list(part.shape)
            kept = [own for own, size in zip(sizes[:-2], shape[:-2], strict=True) if size != 1]
            parts.append(part.reshape([1] * (2 - len(lead)) + kept + sizes[-2:]))
        else:
            q = q * step
    if list(v.shape[:-2]) != shape[:-2]:
        return None
    # `attention` takes one addend with a gradient, shared by all windows, and one without.
    parts.sort(key=lambda part: not part.requires_grad)
    bias, mask = (*parts, None, None)[:2]
    if bias is not None and bias.requires_grad and bias.shape[0] != 1:
        return None
    if mask is not None and mask.requires_grad:
        return None
    q, k, v = (part.reshape(full + list(part.shape[-2:])) for part in (q, k, v))
    return q, k, v, bias, mask


def _resolved(view: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Sizes of a view, with its -1 filled in."""
    known = math.prod(size for size in view if size != -1)
    return [math.prod(shape) // known if size == -1 else size for size in view]


def _match_scores(softmax: Any) -> tuple[fx.Node, list[Step], list[fx.Node]] | None:
    """Go back from softmax to its product q k; give that, the steps between, and their addends."""
    steps: list[Step] = []
    addends: list[fx.Node] = []
    node: Any = softmax.args[0]
    while isinstance(node, fx.Node) and len(node.users) == 1 and not node.kwargs:
        if _is_matmul(node):
            return node, steps[::-1], addends[::-1]
        args: Any = (*node.args, None)
        before, second = args[:2]
        if node.target in _VIEWS and all(isinstance(size, int) for size in second):
            steps.append(tuple(second))
        elif node.target is aten.add.Tensor:
            if not _leads_to_matmul(before):
                before, second = second, before
            if not isinstance(second, fx.Node) or not _same_shape(before, node):
                return None
            steps.append(None)
            addends.append(second)
        elif node.target in _FACTORS and isinstance(second, int | float) and _is_matmul(before):
            if not second:  # no inverse
                return None
            steps.append(_FACTORS[node.target](second))
        else:
            return None
        node = before
    return None


def _leads_to_matmul(node: Any) -> bool:
    """Whether a value begins as a product of matrices."""
    while isinstance(node, fx.Node) and node.target in (*_VIEWS, *_FACTORS, aten.add.Tensor):
        node = node.args[0]
    return _is_matmul(node)


def _same_shape(one: Any, other: fx.Node) -> bool:
    return isinstance(one, fx.Node) and one.meta["val"].shape == other.meta["val"].shape


def _is_matmul(node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.target is not aten.matmul.default:
        return False
    return all(isinstance(part, fx.Node) and part.meta["val"].ndim > 1 for part in node.args)


def _is_last(softmax: Any) -> bool:
    """Whether softmax runs over the last dimension, in the type of its input."""
    dim, dtype = (*softmax.args[1:], None)[:2]
    value = softmax.meta["val"]
    return dim in (-1, value.ndim - 1) and dtype in (None, value.dtype) and not softmax.kwargs
