"""The path engine: images of a batch and points of the line, as many in one pass as pays."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdRef

from faigfast.backend.cpu.allocator import free_cached
from faigfast.backend.gpu.layer_choice import LAYERS, RIVALS, LayerChoice
from faigfast.backend.gpu.loss_scaling import GradientScale
from faigfast.backend.gpu.resident_chunks import CHUNKS, faster
from faigfast.engine.accumulator import Sums, summed
from faigfast.engine.chunking import wanted
from faigfast.engine.endpoints import compare_ends
from faigfast.engine.graph import SIZES, Graphs, Look, Modules, alike
from faigfast.engine.losses import accumulate, check_losses, losses_at
from faigfast.engine.memory import Chunk, default_budget, fitted
from faigfast.engine.op_rules import Points
from faigfast.engine.run import (
    Plan,
    Values,
    arranged,
    gradients,
    leaves,
    prepare,
    so_far,
    with_sums,
)
from faigfast.engine.threads import spread
from faigfast.engine.verify import ALPHAS, CORNERS, Sample, corner, differs, ends_differ, on_copies
from faigfast.engine.verify_in_run import Doubts, PointByPoint, doubted
from faigfast.integration.image_scores import Integral
from faigfast.integration.objective import Objective, is_ours, loss
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Step
from faigfast.ops.registry import Use, using

KEPT = 0.25  # of the budget that is default: what the backend "cpu" keeps for the next call
MOST_NODES = 500  # of a graph that is traced for a corner too, rather than compared in its run

Ends = Sequence[tuple[float, float]]


@dataclass
class Engine:
    """One call of `attribute` by graphs, several points and images in one pass where that pays.

    Parameters
    ----------
    path : WeightPath
        The line γ, in the type in which it is computed.
    line : WeightPath
        The same in the networks' own type.
    modules : tuple of nn.Module
        Baseline and target, as they are.
    objective : callable
        L, of (output, gt).
    graphs : Graphs
        What is known of the two networks.
    budget : int, optional
        Bytes for activations; None: a share of the device's memory.
    backend : str
        Whose kernels serve the path operations; "": plain PyTorch.
    mode : str
        How those kernels multiply float32; see `faigfast.ops.registry.Use`.
    values : torch.dtype, optional
        Type of activations where the line is wider: images are given in the line's type.
    """

    path: WeightPath
    line: WeightPath
    modules: Modules
    objective: Objective
    graphs: Graphs
    budget: int | None = None
    backend: str = ""
    mode: str = "ieee"
    values: torch.dtype | None = None
    notes: dict[str, None] = field(default_factory=dict)
    state: Any = None  # of the networks in this call; None at its beginning

    def __post_init__(self) -> None:
        """Lay the line's tensors out once."""
        self.given = leaves(self.path, self.values)
        self.loss = on_copies(self.objective)
        try:
            self.checked_for = WeakIdRef(self.objective)
        except TypeError:  # of a class without weak references: compared in every call
            self.checked_for = WeakIdRef(self)
        self.trusted: dict[Any, tuple[Plan, Chunk]] = {}
        # What kernels refuse is a note.
        self.scale = GradientScale() if self.values == torch.float16 else None
        chosen = self.backend in RIVALS and LAYERS.times(self.device)
        self.layers = LayerChoice() if chosen else None
        self.use = Use(self.backend, self.notes, self.mode, self.values, self.scale, self.layers)

    @property
    def device(self) -> torch.device:
        """Where the line is."""
        return next(iter(self.path.start.values())).device

    def told(self) -> list[str]:
        """Tell what was chosen, and what went otherwise than asked for."""
        return [*self.notes, *(self.layers.notes() if self.layers else ())]

    def integrate(
        self,
        steps: Callable[[], Iterator[Step]],
        x: Tensor,
        gt: Tensor,
        sums: Callable[[Ends], Sums],
        advance: Callable[[int], object],
    ) -> Iterator[Integral]:
        """Integrate images of one shape.

        Parameters
        ----------
        steps : callable
            Gives the steps of the rule, anew for every chunk of images.
        x, gt : Tensor
            [N, C, *spatial] and [N, ...].
        sums : callable
            Makes the sums of images with their losses L(θ̄), L(θ).
        advance : callable
            Called with the number of points·images done.

        Yields
        ------
        Integral
            One an image, in order.

        Raises
        ------
        PointByPoint
            If the network cannot be captured, or a graph would not be right.
        ValueError
            If one point of one image does not fit the budget.
        """
        kind, doubts = (x.shape, gt.shape), Doubts()
        if kind not in self.trusted:
            first = next(steps()).nodes.tolist()
            with using(self.use):
                plan, chunk, doubts = self._trusted(x[:1], gt[:1], len(x), first)
        else:
            plan, chunk = self.trusted[kind]
        done = counted = 0

        def count(evaluations: int) -> None:
            nonlocal counted
            counted += evaluations
            advance(evaluations)

        while done < len(x):
            part, counted = slice(done, done + chunk.images), 0
            smaller = None
            try:
                with using(self.use):
                    integrals = self._images(
                        plan, chunk, steps(), x[part], gt[part], sums, count, doubts
                    )
            except torch.OutOfMemoryError:
                smaller = chunk.smaller()
                if smaller is None:
                    raise
            if smaller is None:
                doubts = Doubts()
                self.trusted[kind] = plan, chunk
                yield from integrals
                done += len(integrals)
                continue
            # Only here, since the error held on to what did not fit.
            torch.cuda.empty_cache()
            advance(-counted)
            self.notes.setdefault(f"memory: out of memory with {chunk}; went on with {smaller}")
            chunk = smaller
        while len(self.trusted) > SIZES:
            del self.trusted[next(iter(self.trusted))]
        self.notes.update(plan.notes)
        if self.scale is not None and self.scale.least:
            self.notes.setdefault(
                "precision: gradients overflowed and were computed again, scaled by "
                f"2^{self.scale.least}"
            )
        if self.backend == "cpu":
            free_cached(int(KEPT * default_budget(x.device)))

    def _images(
        self,
        plan: Plan,
        chunk: Chunk,
        steps: Iterator[Step],
        x: Tensor,
        gt: Tensor,
        sums: Callable[[Ends], Sums],
        advance: Callable[[int], object],
        doubts: Doubts,
    ) -> Sequence[Integral]:
        if self.scale is not None:
            self.scale.begin()
        workers = self._workers(plan, chunk, x)
        losses: list[tuple[Points, Tensor]] = []
        ends = self._ends(plan, workers[0][1], x, gt, together=chunk.points > 1)
        if doubts.ends is not None:
            doubts.ends(ends[0])
        total, to_show = sums(ends), doubts.part

        def run(number: int, part: tuple[list[float], list[float]]) -> int:
            nonlocal to_show
            nodes, factors = part
            points = Points.at(nodes, x)
            given, prepared = workers[number]
            with nullcontext() if to_show is None else doubted():
                found = accumulate(plan, prepared, points, factors, gt, self.loss, chunk.segments)
            if number == 0 and to_show is not None:
                to_show(factors[0], found, so_far(given))
                to_show = None
            losses.append((points, found))
            return len(nodes) * len(x)

        for step in steps:
            found = None
            while found is None:
                for count in spread(run, self._parts(plan, step, chunk), chunk.at_once):
                    advance(count)
                check_losses(plan, workers[0][1], losses, gt, self.loss, chunk.segments)
                losses.clear()
                found = summed(gradients(given) for given, _ in workers)
                if self.scale is not None and self.scale.overflowed(found):
                    advance(-len(step.nodes) * len(x))
                    found = None
            going = total.add(step, found)
            if not going:
                break
            if len(going) < len(x):
                x, gt = x[going], gt[going]
                workers = self._workers(plan, chunk, x)
        return total.integrals()

    def _workers(
        self, plan: Plan, chunk: Chunk, x: Tensor
    ) -> list[tuple[Mapping[str, Any], Values]]:
        """Tensors with sums of their own for all chunks that run at the same time."""
        given = [with_sums(self.given, len(x)) for _ in range(chunk.at_once)]
        values = prepare(plan, given[0], arranged(x))
        return [(one, values | plan.given(one)) for one in given]

    def _parts(self, plan: Plan, step: Step, chunk: Chunk) -> list[tuple[list[float], list[float]]]:
        """Cut a step's nodes and weights into chunks, which are as even as can be."""
        nodes, weights = step.nodes.tolist(), step.weights.tolist()
        if self._alone(plan, chunk):  # the first part is compared with the network
            first = _inner(nodes)
            for numbers in (nodes, weights):
                numbers.insert(0, numbers.pop(first))
        count = max(math.ceil(len(nodes) / chunk.points), min(chunk.at_once, len(nodes)))
        size = math.ceil(len(nodes) / count)
        starts = range(0, len(nodes), size)
        return [(nodes[n : n + size], weights[n : n + size]) for n in starts]

    def _ends(
        self, plan: Plan, prepared: Values, x: Tensor, gt: Tensor, together: bool
    ) -> list[tuple[float, float]]:
        """L(θ̄) and L(θ) of every image."""
        ends = [[0.0, 1.0]] if together else [[0.0], [1.0]]
        with torch.no_grad():
            points = [Points.at(alphas, x) for alphas in ends]
            rows = [losses_at(plan, prepared, p, gt, self.loss, 1) for p in points]
        found = list(zip(points, rows, strict=True))
        check_losses(plan, prepared, found, gt, self.loss)
        first, last = torch.cat(rows).tolist()
        return list(zip(first, last, strict=True))

    def _trusted(
        self, x: Tensor, gt: Tensor, images: int, nodes: list[float]
    ) -> tuple[Plan, Chunk, Doubts]:
        """Plan and chunk for images of a shape, checked against the networks.

        A plan that is new for this shape comes with what its run has to show: the networks' losses
        at the ends of the line and, in place of a comparison beforehand, their gradients at the
        first of those nodes.
        """
        if self.state is None:
            self.state = self.graphs.state(self.path, self.modules, x)
        plan, look = self.graphs.plan(self.path, self.modules, x, self.state)
        if isinstance(plan, str):
            raise PointByPoint(plan)
        ends = part = None
        if look is not None:
            ends = partial(self._settle, plan, look, x, self._losses_as_is(look, x, gt))
        chunk = self._chunk(plan, x, gt, images)
        two = {"points": min(chunk.points, 2), "images": min(chunk.images, 2)}
        sizes = replace(chunk, **two, at_once=1)
        kind = sizes, self.backend, self.mode, self.values, self.checked_for
        if kind not in plan.checked:
            for key in [key for key in plan.checked if key[-1]() is None]:
                del plan.checked[key]
            alpha = nodes[_inner(nodes)]
            if self._long(plan, chunk) and self.scale is None and 0 < alpha < 1:
                with doubted():
                    sample = Sample.of(self.path, alpha, x, gt, self.objective)
                part = partial(self._show, plan, kind, sample)
            else:
                generic = look is not None and look.generic
                plan.checked[kind] = self._check(plan, x, gt, chunk, generic)
        if plan.checked.get(kind):
            raise PointByPoint(plan.checked[kind])
        return plan, chunk, Doubts(ends, part)

    def _alone(self, plan: Plan, chunk: Chunk) -> bool:
        """Whether the network's own graph runs one image at one point, which mixes nothing."""
        one = chunk.points == chunk.images == chunk.segments == 1
        return one and plan.runs_alone(self.backend)

    def _long(self, plan: Plan, chunk: Chunk) -> bool:
        """Whether to compare such a graph in its own run, since to trace a corner takes longer."""
        return self._alone(plan, chunk) and len(plan.graph.nodes) > MOST_NODES

    @staticmethod
    def _show(
        plan: Plan,
        kind: Any,
        sample: Sample,
        weight: float,
        loss: Tensor,
        sums: Mapping[str, Tensor],
    ) -> None:
        plan.checked[kind] = sample.differs(weight, loss, sums)
        if plan.checked[kind]:
            raise PointByPoint(plan.checked[kind])

    def _losses_as_is(self, look: Look, x: Tensor, gt: Tensor) -> list[float]:
        """L(θ̄) and L(θ) by the networks as they are; networks that compute differently fail."""
        if not look.alike:
            compare_ends(self.line, self.modules, self.objective, x, gt)
        return [loss(self.objective, output, gt).item() for output in look.outputs]

    def _settle(
        self, plan: Plan, look: Look, x: Tensor, as_is: list[float], ends: tuple[float, float]
    ) -> None:
        difference = ends_differ(ends, as_is, self.path, x)
        self.graphs.settle(self.path, x, look.state, difference or plan)
        if difference:
            raise PointByPoint(difference)

    def _check(self, plan: Plan, x: Tensor, gt: Tensor, chunk: Chunk, generic: bool) -> str:
        compared = partial(differs, self.path, alone=self._alone(plan, chunk))
        for side in () if self._long(plan, chunk) else CORNERS:
            part, part_gt = corner(x, gt, side)
            if part is x:
                continue
            other = plan if generic else self.graphs.plan_of(self.path, part)
            if other is None or not alike(other, plan):
                continue
            if not compared(other, self.given, part, part_gt, self.objective, chunk):
                return ""
        return compared(plan, self.given, x, gt, self.objective, chunk)

    def _chunk(self, plan: Plan, x: Tensor, gt: Tensor, images: int) -> Chunk:
        budget = self.budget or default_budget(x.device)
        at_once = self.scale is None and is_ours(self.objective)
        most = wanted(plan, x.device, self.backend, images, at_once)
        chunk = fitted(plan, self.given, x, most, budget)
        if not CHUNKS.times(x.device):
            return chunk
        return faster(plan, self.given, x, gt, self.loss, chunk, self.notes)


def _inner(nodes: Sequence[float]) -> int:
    """Find the node at which a network is compared: far from both ends, where losses are."""
    return min(range(len(nodes)), key=lambda n: abs(nodes[n] - ALPHAS[0]))
