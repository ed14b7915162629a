"""The path engine: all images of a batch, many points of the line at once."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdRef

from faigfast.ends import corner
from faigfast.engine.check import alike, differs, ends_differ, on_copies
from faigfast.engine.execute import (
    Plan,
    Values,
    arranged,
    gradients,
    leaves,
    prepare,
    with_sums,
)
from faigfast.engine.losses import accumulate, check_losses, losses_at
from faigfast.engine.memory import Chunk, default_budget, fitted
from faigfast.engine.plan import PLANS, forget, plan_for
from faigfast.engine.resident import CHUNKS, faster
from faigfast.engine.rules import Points
from faigfast.engine.sums import Sums, summed
from faigfast.engine.threads import MOST, spread
from faigfast.integral import Integral
from faigfast.networks import attributes
from faigfast.objective import Objective, is_ours
from faigfast.ops.cpu_memory import free_cached
from faigfast.ops.gradient_scale import GradientScale
from faigfast.ops.layers import LAYERS, RIVALS, LayerChoice
from faigfast.ops.table import Use, using
from faigfast.path import WeightPath
from faigfast.quadrature import Step

# On a CPU one sample fills the cores and stays in their caches; four at once took a tenth longer.
# Kernels of our own take points together, which shares what a layer costs in Python.
WANTED = {"cpu": Chunk(points=1, images=1), "cuda": Chunk(points=8, images=8)}
MOST_POINTS = 8  # of which twice as many were hardly faster
KEPT = 0.25  # of the budget that is default: what the backend "cpu" keeps for the next call
TOGETHER = {"cpu": 1 << 17}  # pixels of a chunk, by the backend whose kernels run
SHARING = 4  # images of such a chunk at most, where as many points fit beside them

KNOWN_SIDE = 8  # pixels of an image on which a known plan is compared again

LARGE = 1 << 22  # bytes of a sample's values from where chunks run at the same time

Ends = Sequence[tuple[float, float]]


class PointByPoint(Exception):
    """The engine cannot serve a network; the message says why."""


@dataclass
class Engine:
    """One call of `attribute` by many points of the line at once.

    Parameters
    ----------
    path : WeightPath
        The line γ.
    objective : callable
        L, of (output, gt).
    as_they_are : callable
        Gives losses of an image and its ground truth from the networks as they are, for ends of the
        line: L(θ̄) for 0 and L(θ) for 1.
    budget : int, optional
        Bytes for activations; None: a share of the device's memory.
    backend : str
        Whose kernels serve the path operations; "": plain PyTorch.
    mode : str
        How those kernels multiply float32; see `faigfast.ops.table.Use`.
    values : torch.dtype, optional
        Type of activations where the line is wider: images are given in the line's type.
    """

    path: WeightPath
    objective: Objective
    as_they_are: Callable[[Tensor, Tensor, Sequence[float]], list[float]]
    budget: int | None = None
    backend: str = ""
    mode: str = "ieee"
    values: torch.dtype | None = None
    notes: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay the line's tensors out once."""
        self.given = leaves(self.path, self.values)
        self.state = attributes(self.path.module)
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
        kind = x.shape, gt.shape
        if kind not in self.trusted:
            with using(self.use):
                self.trusted[kind] = self._trusted(x[:1], gt[:1], len(x))
                if len(self.trusted) > PLANS:
                    del self.trusted[next(iter(self.trusted))]
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
                    integrals = self._images(plan, chunk, steps(), x[part], gt[part], sums, count)
            except torch.OutOfMemoryError:
                smaller = chunk.smaller()
                if smaller is None:
                    raise
            if smaller is None:
                yield from integrals
                done += len(integrals)
                continue
            # Only here, since the error held on to what did not fit.
            torch.cuda.empty_cache()
            advance(-counted)
            self.notes.setdefault(f"memory: out of memory with {chunk}; went on with {smaller}")
            chunk = smaller
            self.trusted[kind] = plan, chunk
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
    ) -> Sequence[Integral]:
        if self.scale is not None:
            self.scale.begin()
        workers = self._workers(plan, chunk, x)
        losses: list[tuple[Points, Tensor]] = []
        total = sums(self._ends(plan, workers[0][1], x, gt, together=chunk.points > 1))

        def run(number: int, part: tuple[list[float], list[float]]) -> int:
            nodes, factors = part
            points = Points.at(nodes, x)
            prepared = workers[number][1]
            found = accumulate(plan, prepared, points, factors, gt, self.loss, chunk.segments)
            losses.append((points, found))
            return len(nodes) * len(x)

        for step in steps:
            found = None
            while found is None:
                for count in spread(run, self._parts(step, chunk), chunk.at_once):
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

    @staticmethod
    def _parts(step: Step, chunk: Chunk) -> list[tuple[list[float], list[float]]]:
        """Cut a step's nodes and weights into chunks, which are as even as can be."""
        nodes, weights = step.nodes.tolist(), step.weights.tolist()
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

    def _trusted(self, x: Tensor, gt: Tensor, images: int) -> tuple[Plan, Chunk]:
        """Plan and chunk for images of a shape, checked against the networks."""
        plan = self._plan(x, gt)
        if plan.checked and self._changed(plan, x, gt):
            forget(self.path.module)
            plan = self._plan(x, gt)
        chunk = self._chunk(plan, x, gt, images)
        two = {"points": min(chunk.points, 2), "images": min(chunk.images, 2)}
        sizes = replace(chunk, **two, at_once=1)
        kind = sizes, self.backend, self.mode, self.values, self.checked_for
        if kind not in plan.checked:
            known = {key: found for key, found in plan.checked.items() if key[-1]() is not None}
            new = all(key[-1] != self.checked_for for key in known)
            difference = self._ends_differ(plan, x, gt) if new else ""
            if difference:
                forget(self.path.module)
                raise PointByPoint(difference)
            plan.checked = known | {kind: self._check(plan, x, gt, chunk)}
        if plan.checked[kind]:
            raise PointByPoint(plan.checked[kind])
        return plan, chunk

    def _plan(self, x: Tensor, gt: Tensor) -> Plan:
        plan = plan_for(self.path, x, self.state)
        if isinstance(plan, str):
            raise PointByPoint(plan)
        if not plan.checked:
            # Made together: in one that is made later, what changed meanwhile would not show.
            part, _ = corner(x, gt, KNOWN_SIDE)
            other = plan if part is x else plan_for(self.path, part, self.state)
            plan.small = other if isinstance(other, Plan) and alike(other, plan) else None
        return plan

    def _changed(self, plan: Plan, x: Tensor, gt: Tensor) -> str:
        """How the baseline is not what it was, which a part of the image shows too.

        The target's attributes, as far as they show, are part of what a plan is found by.
        """
        if plan.small is not None:
            part, part_gt = corner(x, gt, KNOWN_SIDE)
            # The graph is in question, not the kernels; for few pixels torch's own are faster.
            use = replace(self.use, backend="") if self.backend == "cpu" else self.use
            try:
                with using(use):
                    return self._ends_differ(plan.small, part, part_gt, (0.0,))
            except torch.OutOfMemoryError:
                raise
            except Exception:  # of a network or an objective that takes no part of an image
                pass
        return self._ends_differ(plan, x, gt, (0.0,))

    def _ends_differ(
        self, plan: Plan, x: Tensor, gt: Tensor, alphas: Sequence[float] = (0.0, 1.0)
    ) -> str:
        ends = dict(zip(alphas, self.as_they_are(x, gt, alphas), strict=True))
        return ends_differ(self.path, plan, self.given, arranged(x), gt, self.objective, ends)

    def _check(self, plan: Plan, x: Tensor, gt: Tensor, chunk: Chunk) -> str:
        part, part_gt = corner(x, gt)
        if part is not x:
            other = plan_for(self.path, part, self.state)
            if isinstance(other, Plan) and alike(other, plan):
                line = self.path, other, self.given
                if not differs(*line, part, part_gt, self.objective, chunk):
                    return ""
        return differs(self.path, plan, self.given, x, gt, self.objective, chunk)

    def _chunk(self, plan: Plan, x: Tensor, gt: Tensor, images: int) -> Chunk:
        budget = self.budget or default_budget(x.device)
        wanted = WANTED.get(x.device.type, WANTED["cuda"])
        if self.backend == "triton":  # its interpreter too, which runs on a CPU
            wanted = WANTED["cuda"]
        if self.backend in TOGETHER:
            samples = TOGETHER[self.backend] // x.shape[2:].numel()
            sharing = max(1, min(SHARING, images, samples // SHARING))
            points = max(1, min(samples // sharing, MOST_POINTS))
            wanted = Chunk(points, images=sharing)
        wanted = replace(wanted, images=min(wanted.images, images))
        large = plan.bytes_of_sample >= LARGE
        # Kernels of our own fill all cores with many points of one layer.
        idle = x.device.type == "cpu" and not self.backend and self.scale is None
        if idle and large and is_ours(self.objective):
            wanted = replace(wanted, at_once=min(torch.get_num_threads(), MOST))
        chunk = fitted(plan, self.given, x, wanted, budget)
        if not CHUNKS.times(x.device):
            return chunk
        return faster(plan, self.given, x, gt, self.loss, chunk, self.notes)
