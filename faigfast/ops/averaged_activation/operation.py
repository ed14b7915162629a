"""Activation at points of the line, with its slope averaged over the cell of each point."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from faigfast.integration.cells import Cell, mean_slope
from faigfast.ops.registry import operation


@operation
def averaged_activation(
    z: Tensor, neighbours: list[int], coefficients: list[float], slope: float
) -> tuple[Tensor, Tensor]:
    """Compute y = act(z), where act(z) is z if positive and slope · z otherwise.

    Parameters
    ----------
    z : Tensor
        [P, ...].
    neighbours, coefficients : list
        2·P and 3·P numbers of the cells, from `flattened`.
    slope : float
        Of the negative side; 0 is relu.

    Returns
    -------
    y : Tensor
        As z.
    factors : Tensor
        As z, the mean of act′ over each cell, by which gradients are multiplied.
    """
    before, after = neighbours[::2], neighbours[1::2]
    factors = torch.empty_like(z)
    for p, (b, a) in enumerate(zip(before, after, strict=True)):
        cell = Cell(b, a, *coefficients[3 * p : 3 * p + 3])
        factors[p] = mean_slope(z[p], z[b], z[a], cell, slope)
    return torch.where(z > 0, z, z * slope), factors


def flattened(cells: Sequence[Cell]) -> tuple[list[int], list[float]]:
    """Give cells as the numbers that the operation takes."""
    return (
        [n for cell in cells for n in (cell.before, cell.after)],
        [c for cell in cells for c in (cell.to_first, cell.to_last, cell.share_before)],
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    (factors,) = ctx.saved_tensors
    return None if gy is None else gy * factors, None, None, None


averaged_activation.register_autograd(_backward, setup_context=_setup_context)
