"""Run: one call of `attribute` after its arguments were checked, batch by batch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast import reference
from faigfast.batch import Batch
from faigfast.engine.check import corner
from faigfast.engine.integrate import Engine, PointByPoint
from faigfast.engine.sums import Sums
from faigfast.filters import FilterIndex
from faigfast.integral import Integral
from faigfast.networks import attributes, call_as_is, generators
from faigfast.objective import Objective, loss
from faigfast.path import WeightPath
from faigfast.refinement import Steps
from faigfast.result import Attribution, Setting

PRECISIONS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True)
class Image:
    """One degraded image [C, *spatial] and its ground truth [...]."""

    name: str
    x: Tensor
    gt: Tensor


# Networks whose ends were compared, by target, and how many states of one are remembered.
STATES = 64
_checked: "WeakKeyDictionary[nn.Module, set[tuple[str, ...]]]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Run:
    """One call of `attribute`, after its arguments were checked."""

    line: WeightPath
    path: WeightPath
    modules: tuple[nn.Module, nn.Module]
    steps: Steps
    tol: float | None
    objective: Objective
    index: FilterIndex
    scored: frozenset[str]
    setting: Setting
    memory: int | None
    bar: tqdm

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the line is computed."""
        return PRECISIONS[self.setting.precision]

    @cached_property
    def engine(self) -> Engine | None:
        """The path engine, where it is the backend."""
        if self.setting.backend != "torch":
            return None
        return Engine(self.path, self.objective, self.end_losses, self.memory)

    def check_ends(self, batch: Batch) -> None:
        """Refuse modules that draw random numbers, or differ in more than the tensors on the line.

        What was found right is not looked at again, where the engine compares as well.
        """
        name = next(iter(batch.lq))
        x, gt = (part[name][0].detach() for part in (batch.lq, batch.gt))
        image = Image(f"degradation {name!r}, image 0", x, gt)
        if self.engine is None:
            self.compare_ends(image)
            return
        known = _checked.setdefault(self.modules[1], set())
        used = self.setting
        state = used.baseline, used.target, attributes(self.modules[0]), self.engine.state
        if state not in known:
            self.compare_ends(image)
            if len(known) >= STATES:
                known.clear()
            known.add(state)

    def compare_ends(self, image: "Image") -> None:
        """Compare the losses of the two modules as they are with those of the line's two ends."""
        x, gt = corner(image.x[None], image.gt[None])
        before = generators()
        with torch.no_grad(), _naming(image.name):
            points = (self.line.at(a) for a in (0.0, 1.0))
            ends = [loss(self.objective, self.line.call(p, x), gt).item() for p in points]
            own = [loss(self.objective, call_as_is(m, x), gt).item() for m in self.modules]
        if generators() != before:
            raise ValueError("the networks draw random numbers in eval mode; expected none")
        tolerance = torch.finfo(x.dtype).eps ** 0.5
        for argument, value, end in zip(("model_a", "model_b"), own, ends, strict=True):
            if abs(value - end) > tolerance * max(abs(value), abs(end)):
                raise ValueError(
                    f"{argument} has the loss {value:.6g} as it is and {end:.6g} with its tensors "
                    "in model_b; expected two networks that differ in their tensors alone"
                )

    def notes(self) -> list[str]:
        """Tell every fallback and why."""
        return [] if self.engine is None else list(self.engine.notes)

    def batch(self, batch: Batch, before: int) -> Attribution:
        """Attribute every image of one batch, after `before` others."""
        shape = (len(batch.lq), batch.images)
        if self.tol is None:
            points = sum(len(step.nodes) for step in self.steps())
            self.bar.total = self.bar.n + shape[0] * shape[1] * points
            self.bar.refresh()
        images = [
            Image(
                f"degradation {name!r}, image {before + n}",
                batch.lq[name][n].detach(),
                batch.gt[name][n].detach(),
            )
            for name in batch.lq
            for n in range(batch.images)
        ]
        integrals: list[Integral | None] = [None] * len(images)
        for places in _alike(images):
            found = self.integrate([images[i] for i in places])
            for place, integral in zip(places, found, strict=True):
                integrals[place] = integral
        return self.gathered(tuple(batch.lq), shape, [i for i in integrals if i])

    def end_losses(self, x: Tensor, gt: Tensor) -> tuple[float, float]:
        """L(θ̄) and L(θ), by the networks as they are where they have the precision asked for."""
        with torch.no_grad():
            if self.path is self.line:
                outputs = [call_as_is(module, x) for module in self.modules]
            else:
                outputs = [self.path.call(self.path.at(a), x) for a in (0.0, 1.0)]
            first, last = (loss(self.objective, output, gt).item() for output in outputs)
        return first, last

    def integrate(self, images: Sequence["Image"]) -> Iterator[Integral]:
        """Integrate images of one shape."""
        if self.engine is not None:
            x, gt = (
                torch.stack([getattr(image, part) for image in images]).to(self.dtype)
                for part in ("x", "gt")
            )
            sums = partial(Sums, self.path, self.index, self.scored, tol=self.tol)
            done = 0
            try:
                for integral in self.engine.integrate(self.steps, x, gt, sums, self.bar.update):
                    done += 1
                    yield integral
                return
            except PointByPoint as problem:
                self.compare_ends(images[0])  # which may be what the graph was found wrong by
                self.engine.notes.setdefault(f"runs point by point: {problem}")
            except (ValueError, TypeError) as problem:
                raise _named(images[done + getattr(problem, "image", 0)].name, problem) from problem
        for image in images:
            with _naming(image.name):
                yield reference.integrate(
                    self.path, self.steps(), self.objective, self.index, self.scored,
                    image.x[None].to(self.dtype), image.gt[None].to(self.dtype),
                    self.tol, self.bar.update,
                )  # fmt: skip

    def gathered(
        self,
        names: tuple[str, ...],
        shape: tuple[int, int],
        integrals: list[Integral],
    ) -> Attribution:
        """Put what was found of D·N images together."""
        scores = torch.stack([part.scores for part in integrals]).cpu().unflatten(0, shape)
        if not self.setting.per_image:
            scores = scores.double().mean(1, keepdim=True)
        double = partial(torch.tensor, dtype=torch.float64, device="cpu")
        ends = double([part.losses for part in integrals]).view(*shape, 2)
        change = ends[..., 1] - ends[..., 0]
        totals = double([part.total for part in integrals]).view(shape)
        scored = [
            layer in self.scored
            for layer, size in zip(self.index.layers, self.index.shapes, strict=True)
            for _ in range(size[0] * size[1])
        ]
        return Attribution(
            index=self.index,
            by_degradation=dict(zip(names, scores, strict=True)),
            completeness=(totals - change).abs() / change.abs(),
            losses=ends,
            error=double([part.error for part in integrals]).view(shape),
            points=torch.tensor([part.evaluations for part in integrals]).view(shape),
            scored=torch.tensor(scored, device="cpu"),
            setting=self.setting,
        )


def _alike(images: Sequence[Image]) -> Iterable[list[int]]:
    """Group images whose tensors have equal shapes."""
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault((image.x.shape, image.gt.shape), []).append(place)
    return groups.values()


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Put the place before the message of an error about a value."""
    try:
        yield
    except (ValueError, TypeError) as problem:
        raise _named(place, problem) from problem


def _named(place: str, problem: Exception) -> Exception:
    kind = TypeError if isinstance(problem, TypeError) else ValueError
    return kind(f"{place}: {problem}")
