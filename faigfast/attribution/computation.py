"""Computation: two networks and settings, ready for batches of images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from faigfast import reference
from faigfast.backend.cpu.state import computing
from faigfast.backend.precision import MATRIX, PRECISIONS, ROUND_LATE
from faigfast.engine.accumulator import Sums
from faigfast.engine.endpoints import compare_ends
from faigfast.engine.graph import Graphs
from faigfast.engine.integrate import Engine
from faigfast.engine.verify_in_run import PointByPoint
from faigfast.filters.filter_set import FilterIndex
from faigfast.integration.batch import Batch
from faigfast.integration.image_scores import Integral
from faigfast.integration.named_images import Image, alike, named, naming
from faigfast.integration.objective import Objective
from faigfast.integration.path import WeightPath
from faigfast.integration.refinement import Steps
from faigfast.integration.settings import Setting
from faigfast.models.state import own_type
from faigfast.result import Attribution

SIGNED = "signed"
MEMORY_NOTE = "memory: not counted, since one image at one point is held, the least there is"


@dataclass(eq=False)
class Computation:
    """Integrates images, and puts together what is found.

    Parameters
    ----------
    line : WeightPath
        Between the networks' tensors, in their own type.
    modules : tuple of nn.Module
        Baseline and target, unwrapped.
    schedule : callable
        Gives the steps for an image of so many pixels.
    objective : callable
        L, of (output, gt).
    index : FilterIndex
        All filters.
    scored : frozenset of str
        Layers that are scored.
    setting : Setting
        Everything that the numbers depend on.
    tol : float, optional
        Estimated relative L1 error at which an image is done.
    memory : int, optional
        Bytes for activations.
    graphs : Graphs
        What is known of how the networks compute.
    """

    line: WeightPath
    modules: tuple[nn.Module, nn.Module]
    schedule: Callable[[int], Steps]
    objective: Objective
    index: FilterIndex
    scored: frozenset[str]
    setting: Setting
    tol: float | None
    memory: int | None
    graphs: Graphs
    own_notes: dict[str, None] = field(default_factory=dict)
    compared: set[torch.Size] = field(default_factory=set)  # of images, with the networks as is

    def __post_init__(self) -> None:
        """Lay out the line in the type in which it is computed, and the engine that does it."""
        values = PRECISIONS[self.setting.precision]
        late = self.setting.backend in ROUND_LATE
        self.dtype = torch.promote_types(values, torch.float32) if late else values
        cast = self.dtype != own_type(self.modules[1])
        self.path = WeightPath(*self.modules, self.dtype) if cast else self.line
        self.engine: Engine | None = None
        if self.setting.backend != "reference":
            used = self.setting
            self.engine = Engine(
                self.path, self.line, self.modules, self.objective, self.graphs, self.memory,
                backend="" if used.backend == "torch" else used.backend,
                mode=used.precision if used.precision in MATRIX else "ieee",
                values=None if values == self.dtype else values,
            )  # fmt: skip
        elif self.memory is not None:
            self.own_notes[MEMORY_NOTE] = None

    @property
    def notes(self) -> list[str]:
        """Every fallback and why."""
        return [*self.own_notes, *(self.engine.told() if self.engine else ())]

    def batch(self, batch: Batch, before: int, bar: tqdm, batches: int, number: int) -> Attribution:
        """Attribute every image of one batch.

        Parameters
        ----------
        batch : Batch
            Its `number` among the batches is 1 for the first.
        before : int
            How many images came before it.
        bar : tqdm
            Counts points·images.
        batches : int
            How many batches there are; 0: that is not known.
        """
        if before == 0 and self.engine is not None:
            self.engine.state = None
        shape = (len(batch.lq), batch.images)
        images = [
            Image(
                f"degradation {name!r}, image {before + n}",
                batch.lq[name][n].detach(),
                batch.gt[name][n].detach(),
            )
            for name in batch.lq
            for n in range(batch.images)
        ]
        if self.tol is None and batches:
            points = sum(len(step.nodes) for image in images for step in self.steps_of(image)())
            # As if the batches to come were as those that came.
            bar.total = (bar.n + points) * batches // number
            bar.refresh()
        integrals: list[Integral | None] = [None] * len(images)
        for places in alike(images):
            on_cpu = self.engine is not None and self.engine.device.type == "cpu"
            with computing() if on_cpu else nullcontext():
                found = list(self.integrate([images[i] for i in places], bar))
            for place, integral in zip(places, found, strict=True):
                integrals[place] = integral
        return self.gathered(tuple(batch.lq), shape, [i for i in integrals if i])

    def steps_of(self, image: Image) -> Steps:
        """Give what makes the steps for an image."""
        return self.schedule(image.x[0].numel())

    def integrate(self, images: Sequence[Image], bar: tqdm) -> Iterator[Integral]:
        """Integrate images of one shape."""
        steps, signed = self.steps_of(images[0]), self.setting.method == SIGNED
        if self.engine is not None:
            x, gt = (
                torch.stack([getattr(image, part) for image in images]).to(self.dtype)
                for part in ("x", "gt")
            )
            sums = partial(Sums, self.path, self.index, self.scored, tol=self.tol, signed=signed)
            done = 0
            try:
                for integral in self.engine.integrate(steps, x, gt, sums, bar.update):
                    done += 1
                    yield integral
                return
            except PointByPoint as problem:
                self.engine.notes.setdefault(f"runs point by point: {problem}")
                if self.memory is not None:
                    self.engine.notes.setdefault(MEMORY_NOTE)
                if self.engine.values is not None:
                    self.engine.notes.setdefault(f"precision: point by point in {self.dtype}")
            except (ValueError, TypeError) as problem:
                raise named(images[done + getattr(problem, "image", 0)].name, problem) from problem
        self.compare(images[0])
        for image in images:
            with naming(image.name):
                yield reference.integrate(
                    self.path, steps(), self.objective, self.index, self.scored,
                    image.x[None].to(self.dtype), image.gt[None].to(self.dtype),
                    self.tol, bar.update, signed,
                )  # fmt: skip

    def compare(self, image: Image) -> None:
        """Compare the modules as they are with the ends of the line, once for a shape."""
        if image.x.shape not in self.compared:
            with naming(image.name):
                x, gt = image.x[None], image.gt[None]
                compare_ends(self.line, self.modules, self.objective, x, gt)
            self.compared.add(image.x.shape)

    def gathered(
        self, names: tuple[str, ...], shape: tuple[int, int], integrals: list[Integral]
    ) -> Attribution:
        """Put what was found of D·N images together."""
        scores = torch.stack([part.scores for part in integrals]).cpu().unflatten(0, shape)
        if not self.setting.per_image:
            scores = scores.double().mean(1, keepdim=True)
        double = partial(torch.tensor, dtype=torch.float64, device="cpu")
        ends = double([part.losses for part in integrals]).view(*shape, 2)
        change = ends[..., 1] - ends[..., 0]
        totals = double([part.total for part in integrals]).view(shape)
        sizes = zip(self.index.layers, self.index.shapes, strict=True)
        scored = [
            torch.full((s[0] * s[1],), layer in self.scored, device="cpu") for layer, s in sizes
        ]
        return Attribution(
            index=self.index,
            by_degradation=dict(zip(names, scores, strict=True)),
            completeness=(totals - change).abs() / change.abs(),
            losses=ends,
            error=double([part.error for part in integrals]).view(shape),
            points=torch.tensor([part.evaluations for part in integrals]).view(shape),
            scored=torch.cat(scored),
            setting=self.setting,
        )
