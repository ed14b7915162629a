"""Parts: the points of a step that run together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from faigfast.engine.memory import Chunk
from faigfast.engine.points import Points
from faigfast.engine.verify import ALPHAS
from faigfast.integration.quadrature import Step


@dataclass(frozen=True)
class Part:
    """Points that run together; the first and the last may only give others their cells.

    Parameters
    ----------
    nodes, weights : list of float
        α_s and w_s; the weights of points that belong to other parts are 0.
    ends : list of [float, float], optional
        Ends of the nodes' cells, where slopes of kinks are averaged.
    own : slice
        The points that belong to this part.
    """

    nodes: list[float]
    weights: list[float]
    ends: list[list[float]] | None
    own: slice

    def points(self, x: Tensor) -> Points:
        """Points for images x [N, C, *spatial]."""
        return Points.at(self.nodes, x, self.ends)

    def own_losses(self, points: Points, losses: Tensor) -> tuple[Points, Tensor]:
        """Losses [P, N] of the points that belong to this part."""
        if self.own == slice(0, len(self.nodes)):
            return points, losses
        alpha = points.alpha[self.own]
        return Points(points.nodes[self.own], points.images, alpha), losses[self.own]


def parts_of(step: Step, chunk: Chunk, one_sample: bool) -> list[Part]:
    """Cut a step into parts of nearly equal size.

    Parameters
    ----------
    one_sample : bool
        Whether each point runs alone, and the first may be compared with the network.
    """
    nodes, weights = step.nodes.tolist(), step.weights.tolist()
    ends = None if step.cells is None or not chunk.averages else step.cells.tolist()
    if one_sample:
        first = comparison_node(nodes)
        for numbers in (nodes, weights):
            numbers.insert(0, numbers.pop(first))
    total, most = len(nodes), chunk.points
    if ends is not None and total > most:
        most = max(1, most - 2)  # beside the neighbours on both sides
    count = max(math.ceil(total / most), min(chunk.at_once, total))
    size = math.ceil(total / count)
    parts = []
    for start in range(0, total, size):
        stop = min(start + size, total)
        low, high = (start, stop) if ends is None else (max(start - 1, 0), min(stop + 1, total))
        own = slice(start - low, stop - low)
        own_weights = [w if start <= n < stop else 0.0 for n, w in enumerate(weights)][low:high]
        parts.append(
            Part(nodes[low:high], own_weights, None if ends is None else ends[low:high], own)
        )
    return parts


def comparison_node(nodes: Sequence[float]) -> int:
    """Index of the node for the comparison: the nearest to `ALPHAS[0]`, far from both ends."""
    return min(range(len(nodes)), key=lambda n: abs(nodes[n] - ALPHAS[0]))
