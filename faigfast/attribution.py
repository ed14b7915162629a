"""attribute(): check, plan, integrate, and hand the result over."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from numbers import Integral as Integer
from operator import length_hint
from threading import RLock
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary
from tqdm import tqdm

from faigfast import reference
from faigfast._backends import choose
from faigfast.auto_precision import EXACT, TYPES, Plan, in_fastest
from faigfast.batch import Batch, batches, is_single
from faigfast.devices import spread
from faigfast.ends import compare_ends, end_losses
from faigfast.engine.integrate import Engine, PointByPoint
from faigfast.engine.sums import Sums
from faigfast.filters import FilterIndex
from faigfast.fingerprints import fingerprints
from faigfast.image import Image, alike, named, naming
from faigfast.integral import Integral
from faigfast.networks import attributes, undisturbed, unwrap
from faigfast.objective import Objective, resolve_objective
from faigfast.path import WeightPath
from faigfast.precision import MATRIX, PRECISIONS, ROUND_LATE, check_precision
from faigfast.refinement import Steps, schedule
from faigfast.result import Attribution
from faigfast.selection import Selection, select
from faigfast.setting import Setting

alone = RLock()  # networks hold other tensors, and are in eval mode, while they are attributed
SIGNED = "signed"
MEMORY_NOTE = "memory: not counted, since one image at one point is held, the least there is"


def attribute(
    model_a: nn.Module,
    model_b: nn.Module,
    batch: Any,
    *,
    rule: str = "midpoint",
    steps: int | None = None,
    tol: float | None = None,
    emulate: bool = False,
    objective: str | Objective = "squared_error",
    parameters: Selection | None = None,
    backend: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    progress: bool = False,
    per_image: bool = True,
    signed: bool = False,
    devices: Any = None,
) -> Attribution:
    """Attribute the removal of degradations to filters, by integrated gradients in weight space.

    On the line γ(α) = θ̄ + α(θ − θ̄) it computes, for every image x and its ground truth,
    I_i = Δ_i Σ_s w_s ∂L(γ(α_s), x)/∂γ_i and the score Σ |I_i| of every k×k kernel.

    Parameters
    ----------
    model_a, model_b : nn.Module
        Baseline θ̄ and target θ, of one architecture; called in eval mode, left as they are.
    batch : tuple, mapping or iterable
        `(x, gt)`; or `{"lq": x, "gt": gt}`; or several degradations of the same images,
        `{"lq": {"blur": xb, "noise": xn}, "gt": gt}` (gt may be such a mapping too); or an
        iterable of such batches, of any sizes. x is [N, C, *spatial], of the networks' dtype and
        device; gt [N, ...] is what the output is compared with.
    rule : str
        Quadrature rule; see `faigfast.quadrature.quadrature`. The authors' is "left".
    steps : int, optional
        Number of nodes; unless given 20, 16 of "graded", 21 of "gauss-kronrod" and the authors' 100
        of "left" and "right"; for images x of 64·64 pixels or more 15 of "midpoint" and 14 of
        "graded" (docs/accuracy.md compares). With `tol` the most that are taken, 729 unless given.
    tol : float, optional
        Refine the rule ("graded" is the most economical; "midpoint", "trapezoid", "left" and
        "right" nest too), image by image, until the estimated relative L1 error of its scores is
        at most this; no point is evaluated twice.
    emulate : bool
        Predict the sum of the left or right rule of `steps` nodes from 17 evaluations.
    objective : str or callable
        "squared_error" (summed over an image), "absolute_error", or a function
        `(output, gt) -> [B]` with one loss a sample.
    parameters : str, iterable of str or callable, optional
        Names or glob patterns of convolution weights, or a predicate on (name, tensor), that are
        scored; all others still move. None: every convolution weight.
    backend : str
        "auto" or one that `faigfast.backends()` has.
    precision : str
        "fp64", "fp32", "bf16", "fp16", or "auto": the networks' own; on a GPU, of networks in
        float32, the fastest whose error, measured on a crop, is below the rule's own. With the
        backend "triton" also "tf32" and "bf16x3", float32 multiplied by matrix instructions:
        rounded to 10 bits, or as three products of bfloat16.
    memory : int, optional
        Budget in bytes for activations, gradients and their sums; None: a quarter of the device's
        memory, four fifths of what is free where that is less. Scores do not depend on it beyond
        rounding. The reference backend, and networks that run point by point, hold one image at
        one point of the line, the least there is, and do not count it.
    progress : bool
        Show a progress bar in points·images with rate and time left.
    per_image : bool
        Keep the scores of every image. If False, only their mean is kept, and memory does not
        grow with the number of batches.
    signed : bool
        Score a kernel by −Σ I_i, how much of the loss it takes away, in place of Σ |I_i|: a rival
        of FAIG, in which what a kernel's weights do to each other's disadvantage is lost.
    devices : "all" or sequence of str or torch.device, optional
        Spread the images over several devices of this machine, such as ["cuda:0", "cuda:1"], with
        copies of the networks and a process for each; "all" stands for every GPU. A script begins
        its work under `if __name__ == "__main__":` then. None: where the networks are.

    Returns
    -------
    Attribution

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If an argument's value is out of range, the networks differ in more than their values or
        not at all, or the images do not fit; models and random generators are as before.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021. The absolute value is taken for each image, after the sum
    over the line. Calls from several threads wait for each other; nothing else may use the networks
    meanwhile.

    Examples
    --------
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> result = attribute(a, b, (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    >>> result.scores().shape
    torch.Size([2, 9])
    """
    flags = {"emulate": emulate, "per_image": per_image, "signed": signed}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name} is {flag!r}; expected True or False")
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, Integer)):
        raise TypeError(f"memory is {memory!r}; expected a number of bytes")
    if memory is not None and memory <= 0:
        raise ValueError(f"memory is {memory}; expected a positive number of bytes")
    count, steps_of = schedule(rule, steps, tol, emulate)
    objective_name, function = resolve_objective(objective)
    check_precision(precision)
    options: dict[str, Any] = {
        "rule": rule, "steps": steps, "tol": tol, "emulate": emulate, "objective": objective,
        "parameters": parameters, "backend": backend, "precision": precision, "memory": memory,
        "per_image": per_image, "signed": signed,
    }  # fmt: skip
    if devices is not None:
        return spread(devices, model_a, model_b, batch, attribute, options, progress)
    baseline, target = unwrap(model_a, "model_a"), unwrap(model_b, "model_b")
    first = next((p for p in target.parameters() if p.is_floating_point()), None)
    if first is None:
        raise ValueError("model_b has no parameters: nothing to attribute")
    used, why = choose(backend, first.device, precision, target)
    check_precision(precision, used)
    own = next((name for name, dtype in PRECISIONS.items() if dtype == first.dtype), None)
    if own is None:
        raise ValueError(f"model_b is of {first.dtype}; expected one of {', '.join(PRECISIONS)}")
    if precision == "auto" and own == EXACT and first.device.type in TYPES:
        once = partial(attribute, baseline, target, **options)
        prints = *fingerprints(baseline, target), id(function), str(parameters), signed
        plan = Plan(backend, rule, count, tol, emulate)
        return in_fastest(once, batch, first, plan, prints, progress)
    precision = own if precision == "auto" else precision

    with (
        alone,
        undisturbed(baseline, target),
        tqdm(unit="point·image", disable=not progress, leave=None) as bar,
    ):
        index = FilterIndex.of(target)
        if not len(index):
            raise ValueError("the networks have no convolution: there are no filters to attribute")
        line = WeightPath(baseline, target)
        kind = PRECISIONS[precision]
        if used in ROUND_LATE:
            kind = torch.promote_types(kind, torch.float32)
        path = line if kind == first.dtype else WeightPath(baseline, target, kind)
        ends = fingerprints(baseline, target)
        run = _Run(
            line=line,
            path=path,
            modules=(baseline, target),
            steps=steps_of,
            tol=tol,
            objective=function,
            index=index,
            scored=select(parameters, index, line.end),
            setting=Setting(
                rule=rule,
                steps=count,
                tol=tol,
                emulate=emulate,
                objective=objective_name,
                backend=used,
                precision=precision,
                per_image=per_image,
                baseline=ends[0],
                target=ends[1],
                method=SIGNED if signed else "faig",
            ),
            memory=None if memory is None else int(memory),
            bar=bar,
            batches=1 if is_single(batch) else length_hint(batch),
        )
        parts: list[Attribution] = []
        done = 0
        for number, part in enumerate(batches(batch, first.device, first.dtype), start=1):
            if not parts:
                run.check_ends(part)
            parts.append(run.batch(part, number, done))
            done += part.images
            if not per_image:
                parts = [parts[0].merge(parts[1:])]
        bar.total = bar.n
        bar.refresh()
        notes = [why, MEMORY_NOTE if memory and used == "reference" else "", *run.notes()]
    return replace(parts[0].merge(parts[1:]), notes=tuple(note for note in notes if note))


# Networks whose ends were compared, by target, and how many states of one are remembered.
_checked = WeakIdKeyDictionary()
STATES = 64


@dataclass(frozen=True)
class _Run:
    """One call of `attribute`, after its arguments were checked."""

    line: WeightPath
    path: WeightPath
    modules: tuple[nn.Module, nn.Module]
    steps: Callable[[int], Steps]  # by the pixels of an image
    tol: float | None
    objective: Objective
    index: FilterIndex
    scored: frozenset[str]
    setting: Setting
    memory: int | None
    bar: tqdm
    batches: int  # 0 where their number is not known

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type in which the line is computed."""
        kind = PRECISIONS[self.setting.precision]
        late = self.setting.backend in ROUND_LATE
        return torch.promote_types(kind, torch.float32) if late else kind

    @cached_property
    def engine(self) -> Engine | None:
        """The path engine, where it is the backend."""
        if self.setting.backend == "reference":
            return None
        used, values = self.setting, PRECISIONS[self.setting.precision]
        # Not by a method: in a circle with this they would be kept until Python looks for such.
        modules = self.modules if self.path is self.line else None
        losses = partial(end_losses, self.path, modules, self.objective)
        return Engine(
            self.path, self.objective, losses, self.memory,
            backend="" if used.backend == "torch" else used.backend,
            mode=used.precision if used.precision in MATRIX else "ieee",
            values=None if values == self.dtype else values,
        )  # fmt: skip

    def check_ends(self, batch: Batch) -> None:
        """Refuse modules that draw random numbers, or differ in more than the tensors on the line.

        What was found right is not looked at again, where the engine compares as well.
        """
        name = next(iter(batch.lq))
        x, gt = (part[name][0].detach() for part in (batch.lq, batch.gt))
        image = Image(f"degradation {name!r}, image 0", x, gt)
        if self.engine is None:
            first, last = map(attributes, self.modules)
            self.compare_ends(image, whole=first != last)
            return
        known: set[tuple[str, ...]] = _checked.setdefault(self.modules[1], set())
        used = self.setting
        state = used.baseline, used.target, attributes(self.modules[0]), self.engine.state
        if state not in known:
            self.compare_ends(image, whole=state[2] != state[3])
            if len(known) >= STATES:
                known.clear()
            known.add(state)

    def compare_ends(self, image: Image, whole: bool) -> None:
        """Compare the two modules as they are with the two ends of the line."""
        with naming(image.name):
            x, gt = image.x[None], image.gt[None]
            compare_ends(self.line, self.modules, self.objective, x, gt, whole)

    def notes(self) -> list[str]:
        """Tell every fallback and why."""
        return [] if self.engine is None else self.engine.told()

    def batch(self, batch: Batch, number: int, before: int) -> Attribution:
        """Attribute every image of one batch, the first of which is 1, after `before` others."""
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
        if self.tol is None and self.batches:
            points = sum(len(step.nodes) for image in images for step in self.steps_of(image)())
            # As if the batches to come were as those that came.
            self.bar.total = (self.bar.n + points) * self.batches // number
            self.bar.refresh()
        integrals: list[Integral | None] = [None] * len(images)
        for places in alike(images):
            found = self.integrate([images[i] for i in places])
            for place, integral in zip(places, found, strict=True):
                integrals[place] = integral
        return self.gathered(tuple(batch.lq), shape, [i for i in integrals if i])

    def steps_of(self, image: Image) -> Steps:
        """Give what makes the steps for an image."""
        return self.steps(image.x[0].numel())

    def integrate(self, images: Sequence[Image]) -> Iterator[Integral]:
        """Integrate images of one shape."""
        steps = self.steps_of(images[0])
        if self.engine is not None:
            x, gt = (
                torch.stack([getattr(image, part) for image in images]).to(self.dtype)
                for part in ("x", "gt")
            )
            signed = self.setting.method == SIGNED
            sums = partial(Sums, self.path, self.index, self.scored, tol=self.tol, signed=signed)
            done = 0
            try:
                for integral in self.engine.integrate(steps, x, gt, sums, self.bar.update):
                    done += 1
                    yield integral
                return
            except PointByPoint as problem:
                # Which may be what the graph was found wrong by.
                self.compare_ends(images[0], whole=True)
                self.engine.notes.setdefault(f"runs point by point: {problem}")
                if self.memory is not None:
                    self.engine.notes.setdefault(MEMORY_NOTE)
                if self.engine.values is not None:
                    self.engine.notes.setdefault(f"precision: point by point in {self.dtype}")
            except (ValueError, TypeError) as problem:
                raise named(images[done + getattr(problem, "image", 0)].name, problem) from problem
        for image in images:
            with naming(image.name):
                yield reference.integrate(
                    self.path, steps(), self.objective, self.index, self.scored,
                    image.x[None].to(self.dtype), image.gt[None].to(self.dtype),
                    self.tol, self.bar.update, self.setting.method == SIGNED,
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
