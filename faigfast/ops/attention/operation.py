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
        [W, H, N, M]; any of the four may be 1. W is 1 where the bias has a gradient.
    mask : Tensor, optional
        [W, H, N, M] without a gradient; W, H or N may be 1 too.

    Returns
    -------
    y : Tensor
        [W, H, N, E].
    stats : Tensor
        [W, H, N, 2], each row's largest score, and the inverse of its sum of exponentials.
    """
    scores = _scores(q, k, bias, mask)
    largest = scores.amax(-1, keepdim=True)
    weights = (scores - largest).exp()
    inverse = weights.sum(-1, keepdim=True).reciprocal()
    return weights @ v * inverse, torch.cat([largest, inverse], -1)


@operation
def attention_backward(
    gy: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None,
    stats: Tensor, with_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, and of the scores summed over windows [H, N, M], or empty."""
    largest, inverse = stats.split(1, -1)
    weights = (_scores(q, k, bias, mask) - largest).exp() * inverse
    gw = gy @ v.mT
    gs = weights * (gw - (weights * gw).sum(-1, keepdim=True))
    gbias = gs.sum(0) if with_bias else gs.new_empty(0)
    return gs @ k.mT, q.mT @ gs, weights.mT @ gy, gbias


def _scores(q: Tensor, k: Tensor, bias: Tensor | None, mask: Tensor | None) -> Tensor:
    scores = q @ k
    for part in (bias, mask):
        if part is not None:
            scores = scores + part
    return scores


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    bias = inputs[3]
    if ctx.needs_input_grad[4] or (ctx.needs_input_grad[3] and bias.shape[0] != 1):
        raise ValueError(
            "attention has a gradient for a bias that all windows share, not for a mask or a bias "
            f"{list(bias.shape) if bias is not None else None} of each window"
        )
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gy: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 5
    *given, bias, mask, stats = ctx.saved_tensors
    with_bias = ctx.needs_input_grad[3]
    gq, gk, gv, gbias = attention_backward(gy, *given, bias, mask, stats, with_bias)
    return gq, gk, gv, gbias[None].sum_to_size(bias.shape) if with_bias else None, None


attention.register_autograd(_backward, setup_context=_setup_context)
