"""attribute(): check, plan, integrate, and hand the result over."""

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from tqdm import tqdm

from faigfast.backends import choose
from faigfast.batch import batches
from faigfast.filters import FilterIndex
from faigfast.networks import fingerprint, undisturbed, unwrap
from faigfast.objective import Objective, resolve_objective
from faigfast.path import WeightPath
from faigfast.refinement import schedule
from faigfast.result import Attribution, Setting
from faigfast.run import PRECISIONS, Run

MEMORY_NOTE = "memory: not counted, the reference holds one image at one point, the least there is"

Selection = str | Iterable[str] | Callable[[str, Tensor], bool]


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
        Number of nodes; unless given 20, 14 of "graded", 21 of "gauss-kronrod" and the authors' 100
        of "left" and "right"; docs/accuracy.md compares. With `tol` the most that are taken, 729
        unless given.
    tol : float, optional
        Refine the rule ("graded" is the most economical; "midpoint", "trapezoid", "left" and
        "right" nest too), image by image, until the estimated relative L1 error of its scores is
        at most this; no point is evaluated twice.
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
        Budget in bytes for activations, gradients and their sums; None: a quarter of the device's
        memory. Scores do not depend on it beyond rounding. The reference backend holds one image
        at one point of the line, the least there is, and does not count it.
    progress : bool
        Show a progress bar in points·images with rate and time left.
    per_image : bool
        Keep the scores of every image. If False, only their mean is kept, and memory does not
        grow with the number of batches.

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
    if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int)):
        raise TypeError(f"memory is {memory!r}; expected a number of bytes")
    if memory is not None and memory <= 0:
        raise ValueError(f"memory is {memory}; expected a positive number of bytes")
    count, steps_of = schedule(rule, steps, tol, emulate)
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
        path = line if precision == own else WeightPath(baseline, target, PRECISIONS[precision])
        run = Run(
            line=line,
            path=path,
            modules=(baseline, target),
            steps=steps_of,
            tol=tol,
            objective=function,
            index=index,
            scored=_select(parameters, index, line.end),
            setting=Setting(
                rule=rule,
                steps=count,
                tol=tol,
                emulate=bool(emulate),
                objective=objective_name,
                backend=used,
                precision=precision,
                per_image=bool(per_image),
                baseline=fingerprint(baseline),
                target=fingerprint(target),
            ),
            memory=memory,
            bar=bar,
        )
        parts: list[Attribution] = []
        done = 0
        for part in batches(batch, first.device, first.dtype):
            if not parts:
                run.check_ends(part)
            parts.append(run.batch(part, done))
            done += part.images
            if not per_image:
                parts = [parts[0].merge(parts[1:])]
        notes = [why, MEMORY_NOTE if memory and used == "reference" else "", *run.notes()]
    return replace(parts[0].merge(parts[1:]), notes=tuple(note for note in notes if note))


def check_precision(precision: str) -> None:
    """Refuse a precision that is unknown or not part of this version, by a ValueError."""
    if precision == "tf32":
        raise ValueError("precision 'tf32' is not part of this version; fp32 means float32 proper")
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision is {precision!r}; expected auto, {', '.join(PRECISIONS)}")


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
