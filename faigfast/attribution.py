"""attribute(): check, plan, integrate, and hand the result over."""

import fnmatch
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast import reference
from faigfast.backends import choose
from faigfast.batch import Batch, batches
from faigfast.filters import FilterIndex
from faigfast.networks import call_as_is, fingerprint, generators, undisturbed, unwrap
from faigfast.objective import Objective, loss, resolve_objective
from faigfast.path import WeightPath
from faigfast.quadrature import Quadrature, quadrature
from faigfast.result import Attribution, Setting

PRECISIONS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}

MEMORY_NOTE = "memory: not counted, the reference holds one image at one point, the least there is"

Selection = str | Iterable[str] | Callable[[str, Tensor], bool]


def attribute(
    model_a: nn.Module,
    model_b: nn.Module,
    batch: Any,
    *,
    rule: str = "midpoint",
    steps: int = 20,
    tol: float | None = None,
    emulate: bool = False,
    objective: str | Objective = "squared_error",
    parameters: Selection | None = None,
    backend: str = "auto",
    precision: str = "auto",
    memory: int | None = None,
    progress: bool = False,
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
    steps : int
        Number of nodes. The authors take 100 of the left rule; on the shipped pair 20 midpoints are
        more accurate than that.
    tol : float, optional
        Not available yet; only None is taken.
    emulate : bool
        Predict the sum of the left or right rule of `steps` nodes from 12 evaluations.
    objective : str or callable
        "squared_error" (summed over an image), "absolute_error", or a function
        `(output, gt) -> [B]` with one loss a sample.
    parameters : str, iterable of str or callable, optional
        Names or glob patterns of convolution weights, or a predicate on (name, tensor), that are
        scored; all others still move. None: every convolution weight.
    backend : str
        "auto" or one that `faigfast.backends()` has.
    precision : str
        "fp64", "fp32", "bf16", "fp16", or "auto", the networks' own.
    memory : int, optional
        Budget in bytes for activations. The reference backend holds one image at one point of
        the line, the least there is, and does not count it.
    progress : bool
        Show a progress bar in points·images with rate and time left.

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
    over the line.

    Examples
    --------
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> result = attribute(a, b, (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    >>> result.scores().shape
    torch.Size([2, 9])
    """
    if tol is not None:
        raise ValueError(f"tol is {tol!r}; refinement is not available yet, expected None")
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int)):
        raise TypeError(f"memory is {memory!r}; expected a number of bytes")
    if memory is not None and memory <= 0:
        raise ValueError(f"memory is {memory}; expected a positive number of bytes")
    nodes = quadrature(rule, steps, emulate)
    objective_name, function = resolve_objective(objective)
    check_precision(precision)
    baseline, target = unwrap(model_a, "model_a"), unwrap(model_b, "model_b")
    first = next((p for p in target.parameters() if p.is_floating_point()), None)
    if first is None:
        raise ValueError("model_b has no parameters: nothing to attribute")
    used, why = choose(backend, first.device)
    own = next((name for name, dtype in PRECISIONS.items() if dtype == first.dtype), None)
    if own is None:
        raise ValueError(f"model_b is of {first.dtype}; expected one of {', '.join(PRECISIONS)}")
    precision = own if precision == "auto" else precision

    with (
        undisturbed(baseline, target),
        tqdm(unit="point·image", disable=not progress, leave=None) as bar,
    ):
        index = FilterIndex.of(target)
        if not len(index):
            raise ValueError("the networks have no convolution: there are no filters to attribute")
        line = WeightPath(baseline, target)
        run = _Run(
            path=line if precision == own else WeightPath(baseline, target, PRECISIONS[precision]),
            nodes=nodes,
            objective=function,
            index=index,
            scored=_select(parameters, index, line.end),
            setting=Setting(
                rule=rule,
                steps=int(steps),
                emulate=bool(emulate),
                objective=objective_name,
                backend=used,
                precision=precision,
                baseline=fingerprint(baseline),
                target=fingerprint(target),
                evaluations=len(nodes.nodes),
            ),
            notes=tuple(note for note in (why, MEMORY_NOTE if memory else "") if note),
            bar=bar,
        )
        parts: list[Attribution] = []
        for part in batches(batch, first.device, first.dtype):
            if not parts:
                _check_ends(line, (baseline, target), function, part)
            parts.append(run.batch(part, sum(done.images for done in parts)))
    return parts[0].merge(parts[1:])


def check_precision(precision: str) -> None:
    """Refuse a precision that is unknown or not part of this version, by a ValueError."""
    if precision == "tf32":
        raise ValueError("precision 'tf32' is not part of this version; fp32 means float32 proper")
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision is {precision!r}; expected auto, {', '.join(PRECISIONS)}")


@dataclass(frozen=True)
class _Run:
    """One call of `attribute`, after its arguments were checked."""

    path: WeightPath
    nodes: Quadrature
    objective: Objective
    index: FilterIndex
    scored: frozenset[str]
    setting: Setting
    notes: tuple[str, ...]
    bar: tqdm

    def batch(self, batch: Batch, before: int) -> Attribution:
        """Attribute every image of one batch, after `before` others."""
        shape = (len(batch.lq), batch.images)
        self.bar.total = self.bar.n + shape[0] * shape[1] * len(self.nodes.nodes)
        self.bar.refresh()
        losses: list[list[float]] = []
        integrals: list[reference.Integral] = []
        for name in batch.lq:
            for n in range(batch.images):
                with _naming(f"degradation {name!r}, image {before + n}"):
                    x, gt = (part[name][n : n + 1].detach() for part in (batch.lq, batch.gt))
                    found, integral = self.image(x, gt)
                losses.append(found)
                integrals.append(integral)
        scores = torch.stack([part.scores for part in integrals]).cpu().unflatten(0, shape)
        double = partial(torch.tensor, dtype=torch.float64, device="cpu")
        ends = double(losses).view(*shape, 2)
        change = ends[..., 1] - ends[..., 0]
        totals = double([part.total for part in integrals]).view(shape)
        errors = double([part.error for part in integrals]).view(shape)
        scored = [
            layer in self.scored
            for layer, size in zip(self.index.layers, self.index.shapes, strict=True)
            for _ in range(size[0] * size[1])
        ]
        return Attribution(
            index=self.index,
            by_degradation=dict(zip(batch.lq, scores, strict=True)),
            completeness=(totals - change).abs() / change.abs(),
            losses=ends,
            error=errors,
            scored=torch.tensor(scored, device="cpu"),
            setting=self.setting,
            notes=self.notes,
        )

    def image(self, x: Tensor, gt: Tensor) -> tuple[list[float], reference.Integral]:
        """L(θ̄), L(θ) and the integral of one image [1, C, *spatial]."""
        dtype = PRECISIONS[self.setting.precision]
        x, gt = x.to(dtype), gt.to(dtype)
        ends = _end_losses(self.path, self.objective, x, gt)
        return ends, reference.integrate(
            self.path, self.nodes, self.objective, self.index, self.scored, x, gt, self.bar.update
        )


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Put the place before the message of an error about a value."""
    try:
        yield
    except (ValueError, TypeError) as problem:
        kind = TypeError if isinstance(problem, TypeError) else ValueError
        raise kind(f"{place}: {problem}") from problem


def _end_losses(path: WeightPath, objective: Objective, x: Tensor, gt: Tensor) -> list[float]:
    with torch.no_grad():
        return [loss(objective, path.call(path.at(a), x), gt).item() for a in (0.0, 1.0)]


def _check_ends(
    path: WeightPath, modules: tuple[nn.Module, nn.Module], objective: Objective, batch: Batch
) -> None:
    """Refuse modules that draw random numbers, or differ in more than the tensors on the line.

    The losses of the two modules as they are must be those of the line's two ends.
    """
    name = next(iter(batch.lq))
    x, gt = (part[name][:1].detach() for part in (batch.lq, batch.gt))
    before = generators()
    ends = _end_losses(path, objective, x, gt)
    with torch.no_grad():
        own = [loss(objective, call_as_is(module, x), gt).item() for module in modules]
    if generators() != before:
        raise ValueError("the networks draw random numbers in eval mode; expected none")
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    for argument, value, end in zip(("model_a", "model_b"), own, ends, strict=True):
        if abs(value - end) > tolerance * max(abs(value), abs(end)):
            raise ValueError(
                f"{argument} has the loss {value:.6g} as it is and {end:.6g} with its tensors in "
                "model_b; expected two networks that differ in their tensors alone"
            )


def _select(
    parameters: Selection | None, index: FilterIndex, state: dict[str, Tensor]
) -> frozenset[str]:
    """Layers of the index that `parameters` names."""
    if parameters is None:
        return frozenset(index.layers)
    if callable(parameters):
        chosen = {layer for layer in index.layers if parameters(layer, state[layer])}
    else:
        if not isinstance(parameters, Iterable):
            raise TypeError(
                f"parameters is a {type(parameters).__name__}; expected names, patterns or a "
                "function"
            )
        chosen = set()
        for pattern in [parameters] if isinstance(parameters, str) else parameters:
            if not isinstance(pattern, str):
                raise TypeError(
                    f"parameters holds a {type(pattern).__name__}; expected names or patterns"
                )
            matches = {layer for layer in index.layers if fnmatch.fnmatchcase(layer, pattern)}
            if not matches:
                raise ValueError(
                    f"parameters holds {pattern!r}, which matches no convolution weight; expected "
                    f"names such as {index.layers[0]!r}"
                )
            chosen |= matches
    if not chosen:
        raise ValueError("parameters selects no convolution weight")
    return frozenset(chosen)
