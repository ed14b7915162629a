"""Attention of windows: softmax(q k + bias + mask) v of every head, as one operation."""

from typing import Any

import torch
from torch import Tensor

from faigfast.ops.registry import operation


@operation
def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute softmax(q k + bias + mask) v, of W windows with H heads each.

    Parameters
    ----------
    q, k, v : Tensor
        [W, H, N, D], [W, H, D, M] and [W, H, M, E].
    bias : Tensor, optional
        [1, H, N, M], for all windows; 1 in place of H or N: for all heads or rows.
    mask : Tensor, optional
        [W, H, N, M] without a gradient; 1 in place of W, H or N too.

    Returns
    -------
    y : Tensor
        [W, H, N, E].
    stats : Tensor
        [W, H, N, 2], each row's largest score, and the inverse of its sum of exponentials.
    """
    scores = _scores(q, k, bias, mask)
    most = scores.amax(-1, keepdim=True)
    weights = (scores - most).exp()
    inverse = weights.sum(-1, keepdim=True).reciprocal()
    return weights @ v * inverse, torch.cat([most, inverse], -1)


@operation
def attention_backward(
    gy: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None,
    stats: Tensor, with_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v and, summed over the windows, of the scores [H, N, M], or empty."""
    most, inverse = stats.split(1, -1)
    weights = (_scores(q, k, bias, mask) - most).exp() * inverse
    gw = gy @ v.mT
    gs = weights * (gw - (weights * gw).sum(-1, keepdim=True))
    summed = gs.sum(0) if with_bias else gs.new_empty(0)
    return gs @ k.mT, q.mT @ gs, weights.mT @ gy, summed


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    scores = q @ k
    for part in (bias, mask):
        if part is not None:
            scores = scores + part
    return scores


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gy: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 5
    *given, bias, mask, stats = ctx.saved_tensors
    with_bias = ctx.needs_input_grad[3]
    *found, summed = attention_backward(gy, *given, bias, mask, stats, with_bias)
    return *found, summed[None].sum_to_size(bias.shape) if with_bias else None, None


attention.register_autograd(_backward, setup_context=_setup_context)
