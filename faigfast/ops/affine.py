"""Path affine map of channels, as after a normalisation, at many points of the line at once."""

import torch
from torch import Tensor

from faigfast.ops.path_values import differentiate, empty_at_points, on_line, wide
from faigfast.ops.registry import operation


@operation
def affine(
    x: Tensor,
    w0: Tensor,
    dw: Tensor | None,
    b0: Tensor,
    db: Tensor | None,
    alpha: Tensor,
    sum_w: Tensor | None,
    sum_b: Tensor | None,
) -> Tensor:
    """Compute y = x · γ(α) + γ_b(α), channel by channel, at every point of the line.

    Parameters
    ----------
    x : Tensor
        [P, N, L, C, S]: channels in the fourth dimension; [1, N, …] where all points share it.
    w0, dw : Tensor
        [C], baseline and Δ; dw None: it does not move.
    b0, db : Tensor
        [C], the same of the shift.
    alpha : Tensor
        [P], points.
    sum_w, sum_b : Tensor, optional
        [N, C] from `new_gradient_sums`.

    Returns
    -------
    Tensor
        [P, N, L, C, S].
    """
    y = empty_at_points(x, len(alpha))
    for p, a in enumerate(alpha.unbind()):
        w, b = on_line(w0, dw, a, x.dtype), on_line(b0, db, a, x.dtype)
        torch.addcmul(b.unsqueeze(1), x[p % len(x)], w.unsqueeze(1), out=y[p])
    return y


@operation
def affine_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `affine`: gx [P, N, L, C, S]; gw and gb [N, C], summed over the points.

    `needs` says which to compute; the others are empty.
    """
    gx = empty_at_points(x, len(alpha)) if needs[0] else x.new_empty(0)
    kind = wide(x.dtype)
    gw = x.new_zeros(x.shape[1], len(w0), dtype=kind) if needs[1] else x.new_empty(0)
    for p, a in enumerate(alpha.unbind()):
        if needs[0]:
            torch.mul(gy[p], on_line(w0, dw, a, x.dtype).unsqueeze(1), out=gx[p])
        if needs[1]:
            gw += (gy[p] * x[p % len(x)]).sum((1, 3), dtype=kind)
    gb = gy.sum((0, 2, 4), dtype=kind) if needs[2] else x.new_empty(0)
    return gx, gw, gb


differentiate(affine, affine_backward, saved=(0, 1, 2, 5), gradient_sums=(6, 7))
