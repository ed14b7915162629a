"""Parts: the points of a step that run together."""

import math
from collections.abc import Iterator, Sequence
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


def phases_together(step: Step, chunk: Chunk, one_sample: bool) -> int:
    """Phases of a step whose sums kernels keep apart in a chunk; 1: each phase is a round."""
    least = 2 * step.phases if chunk.averages else step.phases
    return 1 if one_sample or chunk.points < least else step.phases


def rounds_of(step: Step, chunk: Chunk, one_sample: bool, phases: int) -> list[list[Part]]:
    """Cut a step into parts, and these into rounds with one sum each.

    Parameters
    ----------
    step : Step
        Nodes, weights and cells.
    chunk : Chunk
        Points that run together.
    one_sample : bool
        Whether each point runs alone, and the first may be compared with the network.
    phases : int
        From `phases_together`.
    """
    rounds = 1 if phases == step.phases else step.phases
    nodes, weights = step.nodes.tolist(), step.weights.tolist()
    ends = None if step.cells is None or not chunk.averages else step.cells.tolist()
    windows = list(_windows(len(nodes), chunk, phases, rounds, context=ends is not None))
    if one_sample:
        windows.insert(0, windows.pop(comparison_node(nodes)))
    parts: list[list[Part]] = [[] for _ in range(rounds)]
    for low, start, stop, high in windows:
        own_weights = [w if start <= n < stop else 0.0 for n, w in enumerate(weights)][low:high]
        own_ends = None if ends is None else ends[low:high]
        own = slice(start - low, stop - low)
        parts[start % rounds].append(Part(nodes[low:high], own_weights, own_ends, own))
    return parts


def _windows(
    total: int, chunk: Chunk, phases: int, rounds: int, context: bool
) -> Iterator[tuple[int, int, int, int]]:
    """Yield windows [low, high) of points, with their own points [start, stop).

    With context, a window holds the points on both sides of its own ones. Windows begin with the
    first phase and hold whole triples of phases.
    """
    most = chunk.points // phases * phases
    most = 1 if rounds > 1 else max(most, 3) if context else most
    if not context or total <= most:
        count = max(math.ceil(total / most), min(chunk.at_once, total))
        size = math.ceil(total / count / phases) * phases
        for start in range(0, total, size):
            yield start, start, min(start + size, total), min(start + size, total)
        return
    start = 0
    while start < total:
        low = max(start - 1, 0) // phases * phases
        high = min(low + most, total)
        stop = total if high == total and rounds == 1 else high - 1
        if rounds > 1:
            low, stop, high = max(start - 1, 0), start + 1, min(start + 2, total)
        yield low, start, stop, high
        start = stop


def comparison_node(nodes: Sequence[float]) -> int:
    """Index of the node for the comparison: the nearest to `ALPHAS[0]`, far from both ends."""
    return min(range(len(nodes)), key=lambda n: abs(nodes[n] - ALPHAS[0]))
