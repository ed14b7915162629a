"""Computation: two networks and settings, ready to attribute batches of images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from faigfast import reference
from faigfast.attribution.contrast_refinement import RankingGoal, refined
from faigfast.backend.cpu import extension as _extension
from faigfast.backend.cpu.state import computing
from faigfast.backend.precision import ROUND_LATE, mode_of, type_of_values
from faigfast.engine.accumulator import GradientAccumulator
from faigfast.engine.endpoints import compare_endpoints
from faigfast.engine.graph import Graphs
from faigfast.engine.integrate import Engine
from faigfast.engine.memory import default_budget
from faigfast.engine.own_copy import OnCopy
from faigfast.engine.verify_in_run import PointByPoint
from faigfast.filters.index import FilterIndex
from faigfast.integration.batch import Batch
from faigfast.integration.gradients import gradients_at
from faigfast.integration.image_range import RANGE_NOTE, resembles_bytes
from faigfast.integration.image_scores import ImageScores
from faigfast.integration.line_losses import joined_tables
from faigfast.integration.named_images import (
    NamedImage,
    group_by_shape,
    name_in_errors,
    named_error,
)
from faigfast.integration.objective import Objective
from faigfast.integration.padding import reflected
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Step
from faigfast.integration.refinement import Steps
from faigfast.integration.result_notes import named
from faigfast.integration.settings import AttributionSettings
from faigfast.models.distance import Distance
from faigfast.models.packing import Packing, packed_as
from faigfast.models.state import as_out_of_memory, own_type
from faigfast.result import Attribution

SIGNED = "signed"
OVERWRITTEN_NOTE = (
    "forward: the network itself writes to {}, so the next forward may undo a mask of their "
    "filters; merge branches first by fuse=, or leave these layers out by parameters="
)
MEMORY_NOTE = (
    "memory: the budget has no effect, since one image at one point is held, the least there is"
)
EMULATED_NOTE = (
    "precision: bf16 without AMX, which this processor or FAIGFAST_ISA lacks, is slower than fp32"
)
SLOW_NOTE = (
    "runs point by point: {}; the scores are as exact, and the run is slower (the how-to on your "
    "own network says what helps)"
)


@dataclass(eq=False)
class Computation:
    """Integrates images over the line, and collects their scores in an `Attribution`.

    Parameters
    ----------
    own_path : WeightPath
        The line between the networks, in the type of their tensors.
    modules : tuple of nn.Module
        Baseline and target, unwrapped.
    schedule : callable
        From the pixels of an image to the steps of the rule.
    objective : callable
        L, of (output, gt).
    index : FilterIndex
        All filters.
    scored : frozenset of str
        Layers that are scored.
    settings : AttributionSettings
        All settings that the scores depend on.
    tol : float, optional
        Estimated relative L1 error at which an image is done.
    goal : RankingGoal, optional
        What the contrasts of a batch are refined to.
    memory : int, optional
        Bytes for activations.
    graphs : Graphs
        Captured graphs of the networks.
    """

    own_path: WeightPath
    modules: tuple[nn.Module, nn.Module]
    schedule: Callable[[int], Steps]
    objective: Objective
    index: FilterIndex
    scored: frozenset[str]
    settings: AttributionSettings
    tol: float | None
    goal: RankingGoal | None
    memory: int | None
    graphs: Graphs
    own_notes: dict[str, None] = field(default_factory=dict)
    compared: set[torch.Size] = field(default_factory=set)  # shapes of images, see `compare`
    packings: dict[torch.Size, Packing | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay out the line in the type of the computation, and make the engine."""
        used = self.settings
        values = type_of_values(used.precision, used.backend)
        late = self.settings.backend in ROUND_LATE
        self.dtype = torch.promote_types(values, torch.float32) if late else values
        cast = self.dtype != own_type(self.modules[1])
        self.path = WeightPath(*self.modules, self.dtype) if cast else self.own_path
        own, layers = self.own_path, self.index.layers
        self.distance = Distance.of(own.start, own.delta, layers, self.modules[1])
        self.engine: Engine | None = None
        if used.backend != "reference":
            mode = mode_of(used.precision, used.backend)
            if mode == "bf16" and not _extension.module.amx():  # type: ignore[union-attr]
                self.own_notes[EMULATED_NOTE] = None
            self.engine = Engine(
                self.path, self.own_path, self.modules, self.objective, self.graphs, self.memory,
                backend="" if used.backend == "torch" else used.backend,
                mode=mode,
                values=None if values == self.dtype else values,
            )  # fmt: skip
        elif self.memory is not None:
            self.own_notes[MEMORY_NOTE] = None

    @property
    def notes(self) -> list[str]:
        """Layers that the networks overwrite, and every fallback and why."""
        written = [key for key in self.index.layers if key in self._written & self.scored]
        overwritten = [OVERWRITTEN_NOTE.format(named(written))] if written else []
        return [
            *overwritten, *self.own_notes, *(self.engine.all_notes() if self.engine else ()),
        ]  # fmt: skip

    @property
    def _written(self) -> frozenset[str]:
        return self.path.written or frozenset()

    def attribute_batch(
        self, batch: Batch, before: int, bar: tqdm, batches: int, number: int
    ) -> Attribution:
        """Attribute every image of one batch.

        Parameters
        ----------
        batch : Batch
            Images and ground truths.
        before : int
            Number of images in the batches before this one.
        bar : tqdm
            Counts points·images.
        batches : int
            Number of batches; 0 if unknown.
        number : int
            Position of this batch, from 1.
        """
        if before == 0 and self.engine is not None:
            self.engine.state = None
        if before == 0:
            self.own_notes.pop(RANGE_NOTE, None)  # of an earlier call
        if any(resembles_bytes(gt) for gt in batch.gt.values()):
            self.own_notes[RANGE_NOTE] = None
        shape = (len(batch.lq), batch.images)
        images = [
            NamedImage(
                f"degradation {name!r}, image {batch.image_name(n, before)}",
                batch.lq[name][n].detach(),
                batch.gt[name][n].detach(),
                batch.inputs[name].of_image(n) if batch.inputs else None,
            )
            for name in batch.lq
            for n in range(batch.images)
        ]
        if self.tol is None and batches:
            # Of a rule that adapts, the first step: most images need no other.
            points = sum(len(step.nodes) for image in images for step in self._expected(image))
            # Estimate: later batches take as many points as the average so far.
            bar.total = (bar.n + points) * batches // number
            bar.refresh()
        parts = self._integrate_all(images, bar)
        if self.goal is not None:
            parts = self._refined(self.goal, tuple(batch.lq), images, parts, bar)
        return self.collect(tuple(batch.lq), shape, parts)

    def _refined(
        self,
        goal: RankingGoal,
        names: tuple[str, ...],
        images: Sequence[NamedImage],
        parts: Sequence[ImageScores],
        bar: tqdm,
    ) -> list[ImageScores]:
        """Take more points until the goal of the ranking is met."""
        shape = len(names), len(images) // len(names)

        def integrate(numbers: list[int], steps: Steps) -> list[ImageScores]:
            chosen = [images[n] for n in numbers]
            if bar.total is not None:
                bar.total += sum(len(step.nodes) for step in steps() for _ in chosen)
            return self._integrate_all(chosen, bar, steps)

        return refined(
            parts, goal, lambda all_parts: self.collect(names, shape, all_parts), integrate
        )

    def _integrate_all(
        self, images: Sequence[NamedImage], bar: tqdm, steps: Steps | None = None
    ) -> list[ImageScores]:
        """Integrate images of any shapes, shape by shape; give their scores in order."""
        on_cpu = self.engine is not None and self.engine.device.type == "cpu"
        scores: dict[int, ImageScores] = {}
        for positions in group_by_shape(images):
            group = [images[i] for i in positions]
            with (
                computing() if on_cpu else nullcontext(),
                self._memory_errors(group[0]),
                packed_as(self._packing_of(group[0])),
            ):
                scores |= zip(positions, self.integrate(group, bar, steps), strict=True)
        return [scores[i] for i in range(len(images))]

    @contextmanager
    def _memory_errors(self, image: NamedImage) -> Iterator[None]:
        """Say for which images the memory of a CPU ran out, and what would take less."""
        try:
            with as_out_of_memory():
                yield
        except torch.OutOfMemoryError as problem:
            if image.x.device.type != "cpu":
                raise
            budget = self.memory or default_budget(image.x.device)
            raise ValueError(
                f"memory ran out at {image.name} of x {list(image.x.shape)} with memory={budget}: "
                f"{problem}; expected memory={budget // 2} or less, or smaller images"
            ) from problem

    def _packing_of(self, image: NamedImage) -> Packing | None:
        """Give the packing of an image with further inputs, one for each shape of x."""
        packing = None
        if image.inputs is not None:
            packing = Packing(len(image.x), image.inputs.layout)
        if self.packings.setdefault(image.x.shape, packing) != packing:
            raise ValueError(
                f"{image.name}: inputs differ in number, shape, type or a number from those of an "
                f"earlier image of {list(image.x.shape)}; expected one form for each shape of x (a "
                "tensor with one row an image holds what differs)"
            )
        return packing

    def prepared(self, images: Sequence[NamedImage]) -> torch.Tensor:
        """Give images [N, C, *spatial] with their padding, and with further inputs as channels."""
        with name_in_errors(images[0].name):
            x = reflected(torch.stack([image.x for image in images]), self.settings.pad)
            rows = [image.inputs.values for image in images if image.inputs]
            packing = self.packings.get(images[0].x.shape)
            return x if packing is None else packing.pack(x, rows)

    def _expected(self, image: NamedImage) -> Iterator[Step]:
        for step in self.steps_of(image)():
            yield step
            if step.adapts:
                return

    def steps_of(self, image: NamedImage) -> Steps:
        """Give the function that iterates over the steps for an image, whatever its padding."""
        return self.schedule(image.x[0].numel())

    def integrate(
        self, images: Sequence[NamedImage], bar: tqdm, steps: Steps | None = None
    ) -> Iterator[ImageScores]:
        """Integrate images of one shape; None: by the steps of the rule."""
        steps = steps or self.steps_of(images[0])
        signed = self.settings.method == SIGNED
        if self.engine is not None:
            x = self.prepared(images).to(self.dtype)
            gt = torch.stack([image.gt for image in images]).to(self.dtype)
            accumulator = partial(
                GradientAccumulator, self.path, self.index, self.scored, tol=self.tol, signed=signed
            )
            done = 0
            try:
                for image_scores in self.engine.integrate(steps, x, gt, accumulator, bar.update):
                    done += 1
                    yield image_scores
                return
            except PointByPoint as problem:
                self.engine.notes.setdefault(SLOW_NOTE.format(problem))
                if self.memory is not None:
                    self.engine.notes.setdefault(MEMORY_NOTE)
                if self.engine.values is not None or self.engine.mode != "ieee":
                    self.engine.notes.setdefault(f"precision: point by point in {self.dtype}")
            except (ValueError, TypeError) as problem:
                raise named_error(
                    images[done + getattr(problem, "image", 0)].name, problem
                ) from problem
            images = images[done:]
        self.compare(images[0])
        evaluate = gradients_at if self.engine is None else OnCopy()
        for image in images:
            with name_in_errors(image.name):
                yield reference.integrate(
                    self.path, steps, self.objective, self.index, self.scored,
                    self.prepared([image]).to(self.dtype), image.gt[None].to(self.dtype),
                    self.tol, bar.update, signed, evaluate,
                )  # fmt: skip

    def compare(self, image: NamedImage) -> None:
        """Compare both modules with the endpoints of the line, once for every shape of images."""
        if image.x.shape not in self.compared:
            with name_in_errors(image.name):
                x, gt = self.prepared([image]), image.gt[None]
                compare_endpoints(self.own_path, self.modules, self.objective, x, gt)
            self.compared.add(image.x.shape)

    def collect(
        self, names: tuple[str, ...], shape: tuple[int, int], images: list[ImageScores]
    ) -> Attribution:
        """Collect the scores of D·N images in an `Attribution`."""
        scores = torch.stack([part.scores for part in images]).cpu().unflatten(0, shape)
        if not self.settings.per_image:
            scores = scores.double().mean(1, keepdim=True)
        double = partial(torch.tensor, dtype=torch.float64, device="cpu")
        losses = double([part.losses for part in images]).view(*shape, 2)
        change = losses[..., 1] - losses[..., 0]
        totals = double([part.total for part in images]).view(shape)
        sizes = zip(self.index.layers, self.index.shapes, strict=True)
        scored = [
            torch.full((s[0] * s[1],), layer in self.scored, device="cpu") for layer, s in sizes
        ]
        line = joined_tables([part.line[None] for part in images], 0)
        errors = [part.score_error for part in images if part.score_error is not None]
        mean_error = torch.empty(0, device="cpu")
        if len(errors) == len(images):
            starts = range(0, len(errors), shape[1])
            means = [torch.stack(errors[i : i + shape[1]]).mean(0) for i in starts]
            mean_error = torch.stack(means).float().cpu()  # [D, F]
        zero_gradient = frozenset.intersection(*(part.zero_gradient for part in images))
        return Attribution(
            index=self.index,
            by_degradation=dict(zip(names, scores, strict=True)),
            completeness=(totals - change).abs() / change.abs(),
            losses=losses,
            error=double([part.error for part in images]).view(shape),
            points=torch.tensor([part.evaluations for part in images], device="cpu").view(shape),
            scored=torch.cat(scored),
            setting=self.settings,
            zero_gradient=tuple(key for key in self.index.layers if key in zero_gradient),
            line=line.unflatten(0, shape),
            distance=self.distance,
            mean_error=mean_error,
        )
