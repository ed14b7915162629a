"""Path PReLU: max(x, 0) + γ(α) · min(x, 0), at many points of the line at once."""

import torch
from torch import Tensor

from faigfast.ops.path_values import differentiate, empty_at_points, on_line, wide
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
        [N, C] or [N, 1] from `new_gradient_sums`.

    Returns
    -------
    Tensor
        [P, N, L, C, S].
    """
    y = empty_at_points(x, len(alpha))
    for p, a in enumerate(alpha.unbind()):
        x_p = x[p % len(x)]
        torch.where(x_p > 0, x_p, x_p * on_line(w0, dw, a, x.dtype).unsqueeze(1), out=y[p])
    return y


@operation
def prelu_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of `prelu`: gx [P, N, L, C, S]; gw [N, C] or [N, 1], summed over the points.

    `needs` says which to compute; the others are empty.
    """
    gx = empty_at_points(x, len(alpha)) if needs[0] else x.new_empty(0)
    kind = wide(x.dtype)
    gw = x.new_zeros(x.shape[1], len(w0), dtype=kind) if needs[1] else x.new_empty(0)
    for p, a in enumerate(alpha.unbind()):
        x_p = x[p % len(x)]
        if needs[0]:
            w = on_line(w0, dw, a, x.dtype).unsqueeze(1)
            torch.where(x_p > 0, gy[p], gy[p] * w, out=gx[p])
        if needs[1]:
            part = torch.where(x_p > 0, 0, gy[p] * x_p).sum((1, 3), dtype=kind)  # [N, C]
            gw += part if len(w0) > 1 else part.sum(1, keepdim=True)
    return gx, gw


differentiate(prelu, prelu_backward, saved=(0, 1, 2, 3), gradient_sums=(4,))
