"""The path engine: all images of a batch, many points of the line at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from faigfast.engine.check import differs, ends_differ, small_enough
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
        self.chunks: dict[Any, Chunk] = {}

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
        plan, chunk = self._trusted(x[:1], gt[:1], ends)
        done = 0
        while done < len(x):
            part = slice(done, done + chunk.images)
            try:
                integrals = self._images(plan, chunk, steps(), x[part], gt[part], sums, advance)
            except torch.OutOfMemoryError:
                chunk = self._smaller(chunk)
                continue
            yield from integrals
            done += len(integrals)
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
        given = prepared = None
        for step in steps:
            if given is None:
                given = with_sums(self.given, len(x))
                prepared = prepare(plan, given, arranged(x))
            for alpha, weight in self._parts(step, chunk.points, x):
                points = Points(alpha, len(x))
                accumulate(plan, prepared, points, weight, gt, self.objective, chunk.segments)
                advance(len(alpha) * len(x))
            going = total.add(step, gradients(given))
            if not going:
                break
            if len(going) < len(x):
                x, gt, given = x[going], gt[going], None
        return total.integrals()

    @staticmethod
    def _parts(step: Step, size: int, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut a step's nodes and weights into chunks."""
        parts = (torch.as_tensor(v).to(x).split(size) for v in (step.nodes, step.weights))
        return zip(*parts, strict=True)

    def _trusted(self, x: Tensor, gt: Tensor, ends: Mapping[float, float]) -> tuple[Plan, Chunk]:
        """Plan and chunk for images of a shape, checked against the network."""
        for again in (True, False):
            plan = plan_for(self.path, x)
            if isinstance(plan, str):
                raise PointByPoint(plan)
            chunk = self._chunk(plan, x)
            kind = replace(chunk, points=min(chunk.points, 2), images=min(chunk.images, 2))
            if kind not in plan.checked:
                plan.checked[kind] = self._check(plan, x, gt, chunk)
            if plan.checked[kind]:
                raise PointByPoint(plan.checked[kind])
            if not ends_differ(plan, self.given, arranged(x), gt, self.objective, ends):
                return plan, chunk
            # The network is not what it was when the graph was made, or the graph is wrong.
            forget(self.path.module)
            if not again:
                break
        raise PointByPoint("the captured graph's losses at the ends are not the networks'")

    def _check(self, plan: Plan, x: Tensor, gt: Tensor, chunk: Chunk) -> str:
        corner, corner_gt = small_enough(self.path, plan, x, gt)
        if corner is not x:
            found = plan_for(self.path, corner)
            assert isinstance(found, Plan)
            plan = found
        return differs(self.path, plan, self.given, corner, corner_gt, self.objective, chunk)

    def _chunk(self, plan: Plan, x: Tensor) -> Chunk:
        budget = self.budget or default_budget(x.device)
        wanted = WANTED.get(x.device.type, WANTED["cuda"])
        return fitted(plan, self.given, x, wanted, budget)

    def _smaller(self, chunk: Chunk) -> Chunk:
        """Halve a chunk that did not fit the device after all."""
        torch.cuda.empty_cache()
        if chunk.points > 1:
            smaller = replace(chunk, points=chunk.points // 2)
        elif chunk.images > 1:
            smaller = replace(chunk, images=chunk.images // 2)
        elif chunk.segments < 32:
            smaller = replace(chunk, segments=2 * chunk.segments)
        else:
            raise
        self.notes.setdefault(f"memory: out of memory with {chunk}; went on with {smaller}")
        return smaller
