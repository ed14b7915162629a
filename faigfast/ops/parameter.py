"""Path parameter: a tensor at points of the line, for operations without a rule."""

from typing import Any

import torch
from torch import Tensor

from faigfast.ops.path_values import in_phases, on_line, wide
from faigfast.ops.registry import in_use, operation


@operation
def parameter(w0: Tensor, dw: Tensor | None, alpha: Tensor, sum_w: Tensor) -> Tensor:
    """Give γ(α) to every image, at every point of the line.

    Parameters
    ----------
    w0, dw : Tensor
        [*w], baseline and Δ.
    alpha : Tensor
        [P], points.
    sum_w : Tensor
        [N, *w] from `new_gradient_sums`.

    Returns
    -------
    Tensor
        [P, N, *w]; images share memory.
    """
    values = torch.stack([on_line(w0, dw, a) for a in alpha.unbind()])
    return values.unsqueeze(1).expand(-1, len(sum_w) // in_use().phases, *w0.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.kind = wide(inputs[0].dtype)


def _backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
    return None, None, None, in_phases(gy, len(gy), in_use().phases).sum(0, dtype=ctx.kind)


parameter.register_autograd(_backward, setup_context=_setup_context)
