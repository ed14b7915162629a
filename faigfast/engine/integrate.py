"""The path engine: all images of a batch, many points of the line at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from faigfast.engine.check import alike, differs, ends_differ, small_enough
from faigfast.engine.execute import (
    Plan,
    accumulate,
    arranged,
    gradients,
    leaves,
    prepare,
    with_sums,
)
from faigfast.engine.memory import Chunk, default_budget, fitted
from faigfast.engine.plan import forget, plan_for
from faigfast.engine.rules import Points
from faigfast.engine.sums import Sums
from faigfast.integral import Integral
from faigfast.networks import attributes
from faigfast.objective import Objective
from faigfast.path import WeightPath
from faigfast.quadrature import Step

WANTED = {"cpu": Chunk(points=1, images=4), "cuda": Chunk(points=8, images=8)}


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
    budget : int, optional
        Bytes for activations; None: a share of the device's memory.
    """

    path: WeightPath
    objective: Objective
    budget: int | None = None
    notes: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay the line's tensors out once."""
        self.given = leaves(self.path)
        self.state = attributes(self.path.module)
        self.trusted: dict[Any, tuple[Plan, Chunk]] = {}

    def integrate(
        self,
        steps: Callable[[], Iterator[Step]],
        x: Tensor,
        gt: Tensor,
        sums: Callable[[int], Sums],
        ends: Mapping[float, float],
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
            Makes the sums of a number of images.
        ends : mapping of float to float
            Losses of the first image at some α, from the networks as they are.
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
            self.trusted[kind] = self._trusted(x[:1], gt[:1], len(x), ends)
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

    def _images(
        self,
        plan: Plan,
        chunk: Chunk,
        steps: Iterator[Step],
        x: Tensor,
        gt: Tensor,
        sums: Callable[[int], Sums],
        advance: Callable[[int], object],
    ) -> Sequence[Integral]:
        total = sums(len(x))
        given = with_sums(self.given, len(x))
        prepared = prepare(plan, given, arranged(x))
        for step in steps:
            for nodes, weights in self._parts(step, chunk.points):
                points = Points.at(nodes, x)
                accumulate(plan, prepared, points, weights, gt, self.objective, chunk.segments)
                advance(len(nodes) * len(x))
            going = total.add(step, gradients(given))
            if not going:
                break
            if len(going) < len(x):
                x, gt = x[going], gt[going]
                given = with_sums(self.given, len(x))
                prepared = prepare(plan, given, arranged(x))
        return total.integrals()

    @staticmethod
    def _parts(step: Step, size: int) -> Iterator[tuple[list[float], list[float]]]:
        """Cut a step's nodes and weights into chunks."""
        nodes, weights = step.nodes.tolist(), step.weights.tolist()
        for start in range(0, len(nodes), size):
            yield nodes[start : start + size], weights[start : start + size]

    def _trusted(
        self, x: Tensor, gt: Tensor, images: int, ends: Mapping[float, float]
    ) -> tuple[Plan, Chunk]:
        """Plan and chunk for images of a shape, checked against the networks."""
        plan = self._plan(x)
        # The baseline's loss tells what the target's attributes do not.
        if plan.checked and self._ends_differ(plan, x, gt, {0.0: ends[0.0]}):
            forget(self.path.module)
            plan = self._plan(x)
        chunk = self._chunk(plan, x, images)
        kind = replace(chunk, points=min(chunk.points, 2), images=min(chunk.images, 2))
        if kind not in plan.checked:
            if not plan.checked and self._ends_differ(plan, x, gt, ends):
                forget(self.path.module)
                raise PointByPoint("the captured graph's losses at the ends are not the networks'")
            plan.checked[kind] = self._check(plan, x, gt, chunk)
        if plan.checked[kind]:
            raise PointByPoint(plan.checked[kind])
        return plan, chunk

    def _plan(self, x: Tensor) -> Plan:
        plan = plan_for(self.path, x, self.state)
        if isinstance(plan, str):
            raise PointByPoint(plan)
        return plan

    def _ends_differ(self, plan: Plan, x: Tensor, gt: Tensor, ends: Mapping[float, float]) -> bool:
        return ends_differ(self.path, plan, self.given, arranged(x), gt, self.objective, ends)

    def _check(self, plan: Plan, x: Tensor, gt: Tensor, chunk: Chunk) -> str:
        corner, corner_gt = small_enough(x, gt)
        if corner is not x:
            other = plan_for(self.path, corner, self.state)
            if isinstance(other, Plan) and alike(other, plan):
                line = self.path, other, self.given
                if not differs(*line, corner, corner_gt, self.objective, chunk):
                    return ""
        return differs(self.path, plan, self.given, x, gt, self.objective, chunk)

    def _chunk(self, plan: Plan, x: Tensor, images: int) -> Chunk:
        budget = self.budget or default_budget(x.device)
        wanted = WANTED.get(x.device.type, WANTED["cuda"])
        wanted = replace(wanted, images=min(wanted.images, images))
        return fitted(plan, self.given, x, wanted, budget)
