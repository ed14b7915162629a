"""Cells: slopes of kinks averaged over the part of the line that a point stands for.

The gradient jumps where a unit switches. A rule that takes the slope at its nodes counts a switch
as if it were at the border of two cells; its error falls as 1/n. Here z, the value before the
activation, runs straight from node to node, and on beyond the first and the last node. In place of
act′(z) backward takes the mean of act′ over the cell, which is exact for this z. The error falls as
1/n².
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Cell(NamedTuple):
    """A node's cell, and the nodes that give z at both ends of it.

    Parameters
    ----------
    before, after : int
        Positions of the nodes from which z at the first and at the last end follows.
    to_first, to_last : float
        c: z at an end is z + c · (z of that node − z).
    share_before : float
        Share of the cell that lies before its node.
    """

    before: int
    after: int
    to_first: float
    to_last: float
    share_before: float


def cells_of(nodes: Sequence[float], ends: Sequence[Sequence[float]]) -> list[Cell]:
    """Give the cell of every node.

    Parameters
    ----------
    nodes : sequence of float
        α_s, P of them, in ascending order.
    ends : sequence of (float, float)
        First and last end of each cell; the node lies between them.
    """
    last = len(nodes) - 1

    def reach(end: float, s: int, neighbour: int) -> float:
        step = nodes[neighbour] - nodes[s]
        return (end - nodes[s]) / step if step else 0.0

    cells = []
    for s, (first_end, last_end) in enumerate(ends):
        before, after = (s - 1 if s else min(1, last)), (s + 1 if s < last else max(last - 1, 0))
        share_before = (nodes[s] - first_end) / (last_end - first_end)
        ends_reached = reach(first_end, s, before), reach(last_end, s, after)
        cells.append(Cell(before, after, *ends_reached, share_before))
    return cells


def mean_slope(
    z: Tensor, before: Tensor, after: Tensor, cell: Cell, slope: float | Tensor
) -> Tensor:
    """Mean of act′ over a cell, for act(z) = z where z > 0 and slope · z elsewhere.

    Parameters
    ----------
    z, before, after : Tensor
        Values before the activation, at the node and at the nodes that the cell names.
    cell : Cell
        Of the node.
    slope : float or Tensor
        Slope of the negative side, broadcast over z.

    Returns
    -------
    Tensor
        As z.
    """
    first = _positive_share(z, torch.lerp(z, before, cell.to_first))
    last = _positive_share(z, torch.lerp(z, after, cell.to_last))
    return slope + (1 - slope) * torch.lerp(last, first, cell.share_before)


def _positive_share(z: Tensor, end: Tensor) -> Tensor:
    """Share of the straight way from z to an end on which it is positive."""
    way = end - z
    share = (end.clamp_min(0) - z.clamp_min(0)) / way
    return torch.where(way == 0, (z > 0).to(z), share)
