"""Replay: the forward and backward of a chunk, captured once as a CUDA graph and then replayed.

At small images a GPU waits for Python, which prepares some 36 layers in longer than they take. A
graph reads its images, points and weights from memory that stays, and adds to sums that stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faigfast.engine.losses import accumulate
from faigfast.engine.points import Moving, Points
from faigfast.engine.run import Plan, prepare
from faigfast.integration.objective import Objective, is_ours
from faigfast.ops.path_values import arranged, new_gradient_sums, on_device
from faigfast.ops.registry import in_use

Run = Callable[[], None]
MOST_GRAPHS = 4  # a graph keeps the memory of its chunk
MOST_BYTES = 1 << 33  # of a chunk's values: beyond it Python is no bottleneck, and memory is
MOST_DIFFERENCE = 1e-3  # relative L2 of a graph's sums from those computed without it
FAILED_NOTE = (
    "speed: {} runs without CUDA graphs ({}): the scores are as exact, small images take longer; "
    "nothing needs to be done"
)


def cuda_graph(run: Run) -> Run:
    """Capture what a function launches, and give the replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


@dataclass
class ChunkGraph:
    """A chunk of P points and N images in memory that stays.

    Parameters
    ----------
    x, gt, alpha, weights : Tensor
        [N, C, *spatial], [N, ...], [P] and [P].
    losses : Tensor
        [P, N] of the last replay.
    sums : Tensor
        Sums of all tensors that move one after the other, to which every replay adds.
    views : dict of str to Tensor
        The sums of each tensor, [G·N, *w] in G phases.
    """

    x: Tensor
    gt: Tensor
    alpha: Tensor
    weights: Tensor
    losses: Tensor
    sums: Tensor
    views: dict[str, Tensor]
    replay: Run = field(default=lambda: None)
    added: bool = False  # whether the sums hold gradients that nobody has taken

    @classmethod
    def of(cls, tensors: Mapping[str, Any], points: Points, x: Tensor, gt: Tensor) -> "ChunkGraph":
        """Allocate the memory of a chunk."""
        moving = {key: value.w0 for key, value in tensors.items() if isinstance(value, Moving)}
        kind = new_gradient_sums(torch.Size(), 1, points.alpha).dtype
        images = in_use().phases * len(x)
        sizes = [images * w.numel() for w in moving.values()]
        sums = x.new_zeros(sum(sizes), dtype=kind)
        views = {
            key: part.view(images, *w.shape)
            for (key, w), part in zip(moving.items(), sums.split(sizes), strict=True)
        }
        losses = points.alpha.new_empty(len(points.nodes), len(x))
        alpha, weights = torch.empty_like(points.alpha), torch.empty_like(points.alpha)
        return cls(torch.empty_like(x), torch.empty_like(gt), alpha, weights, losses, sums, views)

    def run(
        self, plan: Plan, tensors: Mapping[str, Any], points: Points, objective: Objective
    ) -> None:
        """Compute losses and add gradients; to be captured."""
        given = dict(tensors)
        for key, view in self.views.items():
            own = new_gradient_sums(given[key].w0.shape, len(view), given[key].w0)
            own.grad = view
            given[key] = replace(given[key], gradient_sums=own)
        prepared = prepare(plan, given, arranged(self.x))
        at = replace(points, alpha=self.alpha)
        losses = accumulate(plan, prepared, at, self.weights, self.gt, objective)
        self.losses.copy_(losses)


@dataclass
class Replays:
    """Graphs of one engine's chunks.

    Parameters
    ----------
    capture : callable
        Takes a function that runs on memory that stays; gives its replay.
    notes : dict
        Gets the reason where a chunk runs without a graph.
    """

    notes: dict[str, None]
    capture: Callable[[Run], Run] = cuda_graph
    graphs: dict[Any, ChunkGraph] = field(default_factory=dict)
    seen: set[Any] = field(default_factory=set)
    failed: bool = False

    def accumulate(
        self,
        plan: Plan,
        tensors: Mapping[str, Any],
        points: Points,
        weights: Sequence[float],
        x: Tensor,
        gt: Tensor,
        objective: Objective,
    ) -> Tensor | None:
        """As `faigfast.engine.losses.accumulate`, into sums for `take`.

        Returns
        -------
        Tensor or None
            Losses [P, N]; None where the chunk has to run without a graph: in its first run, which
            compiles and chooses kernels, and after a failure.
        """
        size = plan.bytes_of_sample * len(points.nodes) * len(x)
        if self.failed or len(points.nodes) == 1 or size > MOST_BYTES:
            return None
        if not is_ours(objective):  # another may do what a graph does not repeat
            return None
        scale = in_use().scale
        lowered = None if scale is None else scale.lowered  # a constant in the graph
        kind = len(points.nodes), points.cells, in_use().phases
        key = plan, x.shape, gt.shape, kind, lowered, objective
        graph = self.graphs.get(key)
        if graph is None and key not in self.seen:
            self.seen.add(key)
            return None
        if graph is None:
            graph = ChunkGraph.of(tensors, points, x, gt)
            _fill(graph, points, weights, x, gt)
            if not self._captured(graph, partial(graph.run, plan, tensors, points, objective)):
                return None
            self.graphs[key] = graph
            while len(self.graphs) > MOST_GRAPHS:
                oldest = next(key for key, one in self.graphs.items() if not one.added)
                del self.graphs[oldest]
                self.seen.discard(oldest)
        else:
            _fill(graph, points, weights, x, gt)
            graph.replay()
        graph.added = True
        return graph.losses.clone()

    def take(self) -> list[dict[str, Tensor]]:
        """Give the sums [G·N, *w] since the last call, and reset them."""
        taken = []
        for graph in self.graphs.values():
            if graph.added:
                parts = graph.sums.clone().split([view.numel() for view in graph.views.values()])
                named = zip(graph.views.items(), parts, strict=True)
                taken.append({key: part.view_as(view) for (key, view), part in named})
                graph.sums.zero_()
                graph.added = False
        return taken

    def clear(self) -> None:
        """Return the graphs' memory."""
        self.graphs.clear()
        self.seen.clear()

    def _captured(self, graph: ChunkGraph, run: Run) -> bool:
        """Capture a filled chunk, and compare a replay with a run; False, with a note: it fails."""
        try:
            run()
            expected = graph.sums.clone(), graph.losses.clone()
            graph.sums.zero_()
            graph.replay = self.capture(run)
            graph.sums.zero_()
            graph.replay()
            pairs = zip((graph.sums, graph.losses), expected, strict=True)
            off = max(float((a - b).norm() / b.norm()) for a, b in pairs if float(b.norm()))
        except torch.OutOfMemoryError:
            self.clear()
            why = "their memory does not fit"
        except RuntimeError as problem:
            why = (str(problem).strip().splitlines() or ["capture failed"])[0][:200]
        else:
            if off <= MOST_DIFFERENCE:
                return True
            why = f"a replay differs by {off:.1e}"
        self.failed = True
        self.notes.setdefault(FAILED_NOTE.format("the network", why))
        return False


def _fill(
    graph: ChunkGraph, points: Points, weights: Sequence[float], x: Tensor, gt: Tensor
) -> None:
    graph.x.copy_(x)
    graph.gt.copy_(gt)
    graph.alpha.copy_(points.alpha)
    graph.weights.copy_(on_device(weights, graph.weights.dtype, graph.weights.device))
