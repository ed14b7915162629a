"""Path PReLU: max(x, 0) + γ(α) · min(x, 0), at many points of the line at once."""

import torch
from torch import Tensor

from faigfast.ops.path_values import differentiate, on_line, room, wide
from faigfast.ops.registry import operation


@operation
def prelu(x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, sum_w: Tensor | None) -> Tensor:
    """Compute y = x where positive, γ(α)·x elsewhere, at every point of the line.

    Parameters
    ----------
    x : Tensor
        [P, N, L, C, S]: channels in the fourth dimension; [1, N, …] where all points share it.
    w0, dw : Tensor
        [C] or [1], baseline and Δ.
    alpha : Tensor
        [P], points.
    sum_w : Tensor, optional
        [N, C] or [N, 1] from `no_sums`.

    Returns
    -------
    Tensor
        [P, N, L, C, S].
    """
    y = room(x, len(alpha))
    for p, a in enumerate(alpha.unbind()):
        one = x[p % len(x)]
        torch.where(one > 0, one, one * on_line(w0, dw, a, x.dtype).unsqueeze(1), out=y[p])
    return y


@operation
def prelu_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of `prelu`: gx [P, N, L, C, S]; gw [N, C] or [N, 1], summed over the points.

    `needs` tells which are wanted; the others are empty.
    """
    gx = room(x, len(alpha)) if needs[0] else x.new_empty(0)
    kind = wide(x.dtype)
    gw = x.new_zeros(x.shape[1], len(w0), dtype=kind) if needs[1] else x.new_empty(0)
    for p, a in enumerate(alpha.unbind()):
        one = x[p % len(x)]
        if needs[0]:
            w = on_line(w0, dw, a, x.dtype).unsqueeze(1)
            torch.where(one > 0, gy[p], gy[p] * w, out=gx[p])
        if needs[1]:
            part = torch.where(one > 0, 0, gy[p] * one).sum((1, 3), dtype=kind)  # [N, C]
            gw += part if len(w0) > 1 else part.sum(1, keepdim=True)
    return gx, gw


differentiate(prelu, prelu_backward, saved=(0, 1, 2, 3), sums=(4,))
