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


def keeps_phases(step: Step, chunk: Chunk) -> bool:
    """Whether kernels can keep the sums of a step's phases apart: all points in one chunk."""
    return step.phases > 1 and chunk.averages and chunk.points >= len(step.nodes)


def rounds_of(step: Step, chunk: Chunk, one_sample: bool, phases: int) -> list[list[Part]]:
    """Cut a step into parts of nearly equal size, and these into rounds with one sum each.

    Parameters
    ----------
    step : Step
        Nodes, weights and cells.
    chunk : Chunk
        Points that run together.
    one_sample : bool
        Whether each point runs alone, and the first may be compared with the network.
    phases : int
        Phases whose sums the kernels keep apart; 1: each phase of the step is a round.
    """
    rounds = 1 if phases == step.phases else step.phases
    nodes, weights = step.nodes.tolist(), step.weights.tolist()
    ends = None if step.cells is None or not chunk.averages else step.cells.tolist()
    total, most = len(nodes), chunk.points
    if rounds > 1:
        most = 1
    elif ends is not None and total > most:
        most = max(1, most - 2)  # beside the neighbours on both sides
    count = max(math.ceil(total / most), min(chunk.at_once, total))
    size = math.ceil(total / count)
    starts = list(range(0, total, size))
    if one_sample:
        starts.insert(0, starts.pop(comparison_node(nodes)))
    parts: list[list[Part]] = [[] for _ in range(rounds)]
    for start in starts:
        stop = min(start + size, total)
        low, high = (start, stop) if ends is None else (max(start - 1, 0), min(stop + 1, total))
        own_weights = [w if start <= n < stop else 0.0 for n, w in enumerate(weights)][low:high]
        own_ends = None if ends is None else ends[low:high]
        own = slice(start - low, stop - low)
        parts[start % rounds].append(Part(nodes[low:high], own_weights, own_ends, own))
    return parts


def comparison_node(nodes: Sequence[float]) -> int:
    """Index of the node for the comparison: the nearest to `ALPHAS[0]`, far from both ends."""
    return min(range(len(nodes)), key=lambda n: abs(nodes[n] - ALPHAS[0]))
