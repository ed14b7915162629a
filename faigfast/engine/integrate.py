"""The path engine: runs many images and points of the line in one pass where that is faster."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu.allocator import free_cached
from faigfast.backend.gpu.cards import preference_for
from faigfast.backend.gpu.loss_scaling import GradientScale
from faigfast.engine.accumulator import GradientAccumulator, add_gradients, split_phases
from faigfast.engine.chunking import averaging, preferred_chunk
from faigfast.engine.endpoints import compare_endpoints
from faigfast.engine.graph import SIZES, Graphs, Modules, PairOutputs, same_operations
from faigfast.engine.losses import accumulate, check_losses, losses_at
from faigfast.engine.memory import RAN_OUT_NOTE, Chunk, default_budget, fit_chunk
from faigfast.engine.parts import Part, comparison_node, phases_together, rounds_of
from faigfast.engine.points import Points
from faigfast.engine.replay import Replays
from faigfast.engine.run import (
    Plan,
    Values,
    arranged,
    current_gradients,
    path_tensors,
    prepare,
    take_gradients,
    with_gradient_sums,
)
from faigfast.engine.threads import run_concurrently
from faigfast.engine.verify import (
    CORNER_SIDES,
    ReferenceSample,
    corner,
    differs,
    endpoint_losses_differ,
    failed,
    on_copies,
)
from faigfast.engine.verify_in_run import PendingChecks, PointByPoint, falling_back
from faigfast.integration.image_scores import ImageScores
from faigfast.integration.objective import Objective, is_ours, loss
from faigfast.integration.objective_identity import ObjectiveIdentity
from faigfast.integration.padding import without_padding
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Step
from faigfast.integration.refinement import Steps
from faigfast.models.state import as_out_of_memory
from faigfast.ops.registry import Use, using

CACHE_SHARE = 0.25  # of the default budget: memory that the backend "cpu" keeps between calls
MOST_CHECKED = 64  # comparisons of a plan that are remembered
MOST_NODES = 500  # of a graph that is traced for a corner; a larger one is checked in its run

EndLosses = Sequence[tuple[float, float]]


@dataclass
class Engine:
    """One call of `attribute` by graphs, several points and images a pass where that is faster.

    Parameters
    ----------
    path : WeightPath
        The line γ, in the type in which it is computed.
    own_path : WeightPath
        The same in the networks' own type.
    modules : tuple of nn.Module
        Baseline and target, as they are.
    objective : callable
        L, of (output, gt).
    graphs : Graphs
        Plans of the two networks.
    budget : int, optional
        Bytes for activations; None: a share of the device's memory.
    backend : str
        Backend whose kernels serve the path operations; "": plain PyTorch.
    mode : str
        How those kernels multiply float32; see `faigfast.ops.registry.Use`.
    values : torch.dtype, optional
        Type of activations where the line is wider: images are given in the line's type.
    """

    path: WeightPath
    own_path: WeightPath
    modules: Modules
    objective: Objective
    graphs: Graphs
    budget: int | None = None
    backend: str = ""
    mode: str = "ieee"
    values: torch.dtype | None = None
    notes: dict[str, None] = field(default_factory=dict)
    state: Any = None  # of the networks in this call; None before its first image

    def __post_init__(self) -> None:
        """Lay the line's tensors out once."""
        self.tensors = path_tensors(self.path, self.values)
        self.loss = on_copies(self.objective)
        # An objective that cannot be identified is compared in every call.
        self.checked_for = ObjectiveIdentity.of(without_padding(self.objective), self)
        self.checked_plans: dict[Any, tuple[Plan, Chunk]] = {}
        # Refusals of kernels become notes.
        self.scale = GradientScale() if self.values == torch.float16 else None
        preference = preference_for(self.device, self.backend, self.values)
        self.use = Use(self.backend, self.notes, self.mode, self.values, self.scale, preference)
        self.replays = Replays(self.notes) if self.device.type == "cuda" else None

    @property
    def device(self) -> torch.device:
        """Where the line is."""
        return next(iter(self.path.start.values())).device

    def all_notes(self) -> list[str]:
        """List every fallback with its reason, and a card's own choice of kernels."""
        return [*self.notes]

    def integrate(
        self,
        steps: Steps,
        x: Tensor,
        gt: Tensor,
        new_accumulator: Callable[[EndLosses], GradientAccumulator],
        advance: Callable[[int], object],
    ) -> Iterator[ImageScores]:
        """Integrate images of one shape.

        Parameters
        ----------
        steps : Steps
            Of the rule.
        x, gt : Tensor
            [N, C, *spatial] and [N, ...].
        new_accumulator : callable
            Takes the losses L(θ̄), L(θ) of images, gives their accumulator.
        advance : callable
            Called with the number of points·images done.

        Yields
        ------
        ImageScores
            One of each image, in order.

        Raises
        ------
        PointByPoint
            If the network cannot be captured, or a graph would not be right.
        ValueError
            If one point of one image does not fit the budget.
        """
        shapes, pending = (x.shape, gt.shape), PendingChecks()
        if shapes not in self.checked_plans:
            with using(self.use):
                plan, chunk, pending = self._checked_plan(x[:1], gt[:1], len(x), steps)
        else:
            plan, chunk = self.checked_plans[shapes]
        done = counted = 0

        def count(evaluations: int) -> None:
            nonlocal counted
            counted += evaluations
            advance(evaluations)

        while done < len(x):
            part, counted = slice(done, done + chunk.images), 0
            smaller = None
            try:
                with using(self.use), as_out_of_memory():
                    results = self._images(
                        plan,
                        chunk,
                        steps(plan.kinked),
                        x[part],
                        gt[part],
                        new_accumulator,
                        count,
                        pending,
                    )
            except torch.OutOfMemoryError:
                smaller = chunk.smaller()
                if smaller is None:
                    raise
            except RuntimeError as problem:  # of an operation, such as shapes that values decide
                advance(-counted)
                raise PointByPoint(failed(problem)) from problem
            if smaller is None:
                pending = PendingChecks()
                self.checked_plans[shapes] = plan, chunk
                yield from results
                done += len(results)
                continue
            # Only here, since the error kept the tensors of the chunk alive.
            if self.replays is not None:
                self.replays.clear()
            torch.cuda.empty_cache()
            advance(-counted)
            self.notes.setdefault(RAN_OUT_NOTE.format(chunk, smaller))
            chunk = smaller
        while len(self.checked_plans) > SIZES:
            del self.checked_plans[next(iter(self.checked_plans))]
        self.notes.update(plan.notes)
        if self.scale is not None and self.scale.least:
            self.notes.setdefault(
                "precision: gradients overflowed and were computed again, scaled by "
                f"2^{self.scale.least}; the scores are right"
            )
        if self.backend == "cpu":
            free_cached(int(CACHE_SHARE * default_budget(x.device)))

    def _images(
        self,
        plan: Plan,
        chunk: Chunk,
        steps: Iterator[Step],
        x: Tensor,
        gt: Tensor,
        new_accumulator: Callable[[EndLosses], GradientAccumulator],
        advance: Callable[[int], object],
        pending: PendingChecks,
    ) -> Sequence[ImageScores]:
        if self.scale is not None:
            self.scale.begin()
        replays = self.replays if chunk.segments == chunk.at_once == 1 else None
        if replays is not None:
            replays.take()  # of images that failed
        one_sample = self._one_sample(plan, chunk)
        phases, workers = 1, self._workers(plan, chunk, x, 1)
        losses: list[tuple[Points, Tensor]] = []
        end_losses = self._end_losses(plan, workers[0][1], x, gt, together=chunk.points > 1)
        if pending.end_losses is not None:
            pending.end_losses(end_losses[0])
        accumulator, check_first = new_accumulator(end_losses), pending.first_chunk

        def run(number: int, part: Part) -> int:
            nonlocal check_first
            points = part.points(x)
            given, prepared = workers[number]
            chunk_losses = None
            if replays is not None and check_first is None:
                arguments = points, part.weights, x, gt, self.loss
                chunk_losses = replays.accumulate(plan, self.tensors, *arguments)
            if chunk_losses is None:
                with nullcontext() if check_first is None else falling_back():
                    chunk_losses = accumulate(
                        plan, prepared, points, part.weights, gt, self.loss, chunk.segments
                    )
            if number == 0 and check_first is not None:
                check_first(part.weights[0], chunk_losses, current_gradients(given))
                check_first = None
            losses.append(part.own_losses(points, chunk_losses))
            return len(losses[-1][0].nodes) * len(x)

        for step in steps:
            before, phases = phases, phases_together(step, chunk, one_sample)
            if phases != before:
                workers = self._workers(plan, chunk, x, phases)
            sums: list[dict[str, Tensor]] = []
            while not sums:
                losses.clear()
                for parts in rounds_of(step, chunk, one_sample, phases):
                    with using(replace(self.use, phases=phases)):
                        for count in run_concurrently(run, parts, chunk.at_once):
                            advance(count)
                    taken = [take_gradients(given) for given, _ in workers]
                    sums.append(add_gradients([*taken, *(replays.take() if replays else ())]))
                check_losses(plan, workers[0][1], losses, gt, self.loss, chunk.segments)
                if self.scale is not None and any(map(self.scale.overflowed, sums)):
                    advance(-len(step.nodes) * len(x))
                    sums = []
            if phases > 1:
                sums = split_phases(sums[0], phases)
            unfinished = accumulator.add(step, sums, losses)
            if not unfinished:
                break
            if len(unfinished) < len(x):
                x, gt = x[unfinished], gt[unfinished]
                workers = self._workers(plan, chunk, x, phases)
        return accumulator.results()

    def _workers(
        self, plan: Plan, chunk: Chunk, x: Tensor, phases: int
    ) -> list[tuple[Mapping[str, Any], Values]]:
        """Tensors, with gradient sums of its own, of each chunk that runs at the same time."""
        given = [with_gradient_sums(self.tensors, phases * len(x)) for _ in range(chunk.at_once)]
        values = prepare(plan, given[0], arranged(x))
        return [(one, values | plan.given(one)) for one in given]

    def _end_losses(
        self, plan: Plan, prepared: Values, x: Tensor, gt: Tensor, together: bool
    ) -> list[tuple[float, float]]:
        """L(θ̄) and L(θ) of every image."""
        groups = [[0.0, 1.0]] if together else [[0.0], [1.0]]
        with torch.no_grad():
            points = [Points.at(alphas, x) for alphas in groups]
            rows = [losses_at(plan, prepared, p, gt, self.loss, 1) for p in points]
        losses = list(zip(points, rows, strict=True))
        check_losses(plan, prepared, losses, gt, self.loss)
        first, last = torch.cat(rows).tolist()
        return list(zip(first, last, strict=True))

    def _checked_plan(
        self, x: Tensor, gt: Tensor, images: int, steps: Steps
    ) -> tuple[Plan, Chunk, PendingChecks]:
        """Plan and chunk for images of a shape, checked against the networks.

        A plan that is new for this shape comes with checks for its first run: the networks' losses
        at the ends of the line and, instead of a comparison beforehand, their gradients at one of
        the nodes of the first step.
        """
        if reason := self.graphs.known_reason(self.path, self.modules, x):
            raise PointByPoint(reason)
        self.state = self.state or self.graphs.state(self.path, self.modules, x)
        plan, outputs = self.graphs.plan(self.path, self.modules, x, self.state)
        if isinstance(plan, str):
            raise PointByPoint(plan)
        check_ends = check_first = None
        if outputs is not None:
            losses = self._losses_as_is(outputs, x, gt)
            check_ends = partial(self._settle, plan, outputs, x, losses)
        first_steps = list(islice(steps(plan.kinked), 2))
        chunk = self._chunk(plan, x, images, first_steps)
        sizes = replace(chunk, points=min(chunk.points, 2), images=min(chunk.images, 2), at_once=1)
        kind = sizes, self.backend, self.mode, self.values, self.checked_for
        if kind not in plan.checked:
            kept = [key for key in plan.checked if key[-1].alive][-MOST_CHECKED:]
            for key in plan.checked.keys() - kept:
                del plan.checked[key]
            nodes = first_steps[0].nodes.tolist()
            alpha = nodes[comparison_node(nodes)]
            if self._checked_in_run(plan, chunk) and self.scale is None and 0 < alpha < 1:
                with falling_back():
                    sample = ReferenceSample.of(self.path, alpha, x, gt, self.objective)
                check_first = partial(self._record_comparison, plan, kind, sample)
            else:
                generic = outputs is not None and outputs.generic
                plan.checked[kind] = self._compare(plan, x, gt, chunk, generic)
        if plan.checked.get(kind):
            raise PointByPoint(plan.checked[kind])
        return plan, chunk, PendingChecks(check_ends, check_first)

    def _one_sample(self, plan: Plan, chunk: Chunk) -> bool:
        """Whether the network's own graph runs one image at one point, which mixes nothing."""
        one = chunk.points == chunk.images == chunk.segments == 1 and not chunk.averages
        return one and plan.runs_alone(self.backend)

    def _checked_in_run(self, plan: Plan, chunk: Chunk) -> bool:
        """Whether to check a graph of one sample in its run: tracing a corner would take longer."""
        return self._one_sample(plan, chunk) and len(plan.graph.nodes) > MOST_NODES

    @staticmethod
    def _record_comparison(
        plan: Plan,
        kind: Any,
        sample: ReferenceSample,
        weight: float,
        loss: Tensor,
        gradients: Mapping[str, Tensor],
    ) -> None:
        plan.checked[kind] = sample.differs(weight, loss, gradients)
        if plan.checked[kind]:
            raise PointByPoint(plan.checked[kind])

    def _losses_as_is(self, outputs: PairOutputs, x: Tensor, gt: Tensor) -> list[float]:
        """L(θ̄) and L(θ) by the networks as they are; raise if they differ in more than tensors."""
        if not outputs.same_calls:
            compare_endpoints(self.own_path, self.modules, self.objective, x, gt)
        return [loss(self.objective, output, gt).item() for output in outputs.values]

    def _settle(
        self,
        plan: Plan,
        outputs: PairOutputs,
        x: Tensor,
        as_is: list[float],
        end_losses: tuple[float, float],
    ) -> None:
        difference = endpoint_losses_differ(end_losses, as_is, self.path, x)
        self.graphs.settle(self.path, x, outputs.state, difference or plan)
        if difference:
            raise PointByPoint(difference)

    def _compare(self, plan: Plan, x: Tensor, gt: Tensor, chunk: Chunk, generic: bool) -> str:
        compare = partial(differs, self.path, alone=self._one_sample(plan, chunk))
        for side in () if self._checked_in_run(plan, chunk) else CORNER_SIDES:
            part, part_gt = corner(x, gt, side, self.objective, self.modules[1])
            if part is x:
                continue
            other = plan if generic else self.graphs.plan_of(self.path, part)
            if other is None or not same_operations(other, plan):
                continue
            if not compare(other, self.tensors, part, part_gt, self.objective, chunk):
                return ""
        return compare(plan, self.tensors, x, gt, self.objective, chunk)

    def _chunk(self, plan: Plan, x: Tensor, images: int, steps: Sequence[Step]) -> Chunk:
        budget = self.budget or default_budget(x.device)
        at_once = self.scale is None and is_ours(self.objective)
        preferred = preferred_chunk(plan, x.device, self.backend, images, at_once)
        if plan.averages and steps[0].cells is not None:
            preferred = averaging(preferred, max(len(step.nodes) for step in steps))
        with falling_back(RuntimeError):  # of an operation without data
            return fit_chunk(plan, self.tensors, x, preferred, budget)
