"""Path linear layer: y = x γ(α)ᵀ + γ_b(α) at many points of the line at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

from faigfast.ops.path_values import differentiate, on_line, wide
from faigfast.ops.registry import operation


@operation
def linear(
    x: Tensor,
    w0: Tensor,
    dw: Tensor | None,
    b0: Tensor | None,
    db: Tensor | None,
    alpha: Tensor,
    sum_w: Tensor | None,
    sum_b: Tensor | None,
) -> Tensor:
    """Compute y = x γ(α)ᵀ + γ_b(α), at every point of the line.

    Parameters
    ----------
    x : Tensor
        [P, N, L, I]: L rows of each image; [1, N, L, I] where all points share it.
    w0, dw : Tensor
        [O, I], baseline and Δ; dw None: it does not move.
    b0, db : Tensor, optional
        [O], bias.
    alpha : Tensor
        [P], points.
    sum_w, sum_b : Tensor, optional
        [N, *shape] from `new_gradient_sums`.

    Returns
    -------
    Tensor
        [P, N, L, O].
    """
    y = x.new_empty(len(alpha), *x.shape[1:-1], len(w0))
    for p, a in enumerate(alpha.unbind()):
        b = None if b0 is None else on_line(b0, db, a, x.dtype)
        y[p] = F.linear(x[p % len(x)], on_line(w0, dw, a, x.dtype), b)
    return y


@operation
def linear_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `linear`: gx [P, N, L, I]; gw [N, O, I] and gb [N, O], summed over the points.

    `needs` says which to compute; the others are empty.
    """
    gx = x.new_empty(len(alpha), *x.shape[1:]) if needs[0] else x.new_empty(0)
    n, kind = x.shape[1], wide(x.dtype)
    gw = x.new_zeros(n, *w0.shape, dtype=kind) if needs[1] else x.new_empty(0)
    for p, a in enumerate(alpha.unbind()):
        if needs[0]:
            torch.matmul(gy[p], on_line(w0, dw, a, x.dtype), out=gx[p])
        if needs[1]:
            gw += gy[p].transpose(1, 2) @ x[p % len(x)]
    gb = gy.sum((0, 2), dtype=kind) if needs[2] else x.new_empty(0)
    return gx, gw, gb


differentiate(linear, linear_backward, saved=(0, 1, 2, 5), gradient_sums=(6, 7))
