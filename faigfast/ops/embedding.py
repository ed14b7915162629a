"""Path embedding: rows of a table that moves, at many points of the line at once."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from faigfast.ops.path_values import in_phases, on_line, wide
from faigfast.ops.registry import in_use, operation


@operation
def embedding(
    rows: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, sum_w: Tensor | None
) -> Tensor:
    """Take rows of the table γ(α), at every point of the line.

    Parameters
    ----------
    rows : Tensor
        [P, N, L], int64; [1, N, L] where all points share them.
    w0, dw : Tensor
        [V, E], baseline and Δ.
    alpha : Tensor
        [P], points.
    sum_w : Tensor, optional
        [N, V, E] from `new_gradient_sums`.

    Returns
    -------
    Tensor
        [P, N, L, E].
    """
    y = w0.new_empty(len(alpha), *rows.shape[1:], w0.shape[1])
    for p, a in enumerate(alpha.unbind()):
        y[p] = F.embedding(rows[p % len(rows)], on_line(w0, dw, a))
    return y


@operation
def embedding_backward(gy: Tensor, rows: Tensor, w0: Tensor) -> Tensor:
    """Gradient of `embedding`: [N, V, E], summed over the points."""
    gw = w0.new_zeros(gy.shape[1], *w0.shape, dtype=wide(w0.dtype))
    for p, g in enumerate(gy):
        for n, indices in enumerate(rows[p % len(rows)]):
            gw[n].index_add_(0, indices, g[n].to(gw.dtype))
    return gw


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
    gw = None
    if ctx.needs_input_grad[4]:
        rows, w0 = ctx.saved_tensors
        points, phases = len(gy), in_use().phases
        gw = embedding_backward(in_phases(gy, points, phases), in_phases(rows, points, phases), w0)
    return None, None, None, None, gw


embedding.register_autograd(_backward, setup_context=_setup_context)
