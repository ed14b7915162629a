"""The precision of "auto" on a GPU: the fastest whose error is below the rule's own error."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.catalogue import choose
from faigfast.engine.verify import CORNER_SIDES, corner
from faigfast.integration.batch import Batch, batches, is_one_batch
from faigfast.integration.refinement import LEVELS, NESTED, default_steps
from faigfast.result import Attribution

TYPES = ("cuda",)  # types of devices on which other precisions are faster than float32
# By the rate of matrix instructions, fastest first.
FASTEST_FIRST = ("fp16", "bf16", "tf32", "bf16x3")
EXACT = "fp32"
POINTS = 32  # most points of the comparison on a crop
# Order in which a rule's error falls with its points; with kinks, as for a Brownian path.
ORDERS = {"left": 1.0, "right": 1.0, "averaged": 2.0}
ORDER = 1.5
EMULATED = 17  # points of an emulated rule
TOL = 1e-12  # never reached, so that all points are evaluated
MOST_KNOWN = 64

Attribute = Callable[..., Attribution]

_known: dict[Any, tuple[str, str]] = {}


@dataclass(frozen=True)
class RuleSettings:
    """Settings that decide the rule's own error: `tol`, or an estimate.

    Parameters
    ----------
    backend : str
        Backend as the caller asked for it.
    rule, points, tol, emulate, pad
        As `faigfast.attribute` takes them; points is None where their number depends on the image.
    """

    backend: str
    rule: str
    points: int | None
    tol: float | None
    emulate: bool
    pad: int = 0


def attribute_in_fastest(
    run: Attribute, batch: Any, tensor: Tensor, settings: RuleSettings, key: Any, progress: bool
) -> Attribution:
    """Attribute in the precision that is measured to be fast and accurate enough.

    Parameters
    ----------
    run : callable
        `faigfast.attribute` with networks and options bound.
    batch
        As in `faigfast.attribute`.
    tensor : Tensor
        A tensor of the networks, for device and type.
    settings : RuleSettings
        Settings of the rule.
    key : hashable
        Identifies networks and settings: equal keys share one measurement.
    progress : bool
        As in `faigfast.attribute`.

    Raises
    ------
    ValueError
        As `faigfast.attribute`; or if values exceed the range of a precision that was measured for
        the first of several batches. A single batch is attributed again in float32.
    """
    parts = batches(batch, tensor.device, tensor.dtype)
    head = next(parts)
    precision, note = settle(run, head, tensor.device, settings, key)
    all_parts = (
        {"lq": part.lq, "gt": part.gt, "name": part.names, "inputs": part.given_inputs}
        for part in chain([head], parts)
    )
    one_batch = is_one_batch(batch)
    try:
        result = run(batch if one_batch else all_parts, precision=precision, progress=progress)
    except ValueError as problem:
        if precision == EXACT or "finite" not in str(problem):
            raise
        if not one_batch:
            raise ValueError(
                f"{problem}; precision {precision!r} was measured for the first image, and "
                f"precision={EXACT!r} has more range"
            ) from problem
        note = f"precision: {EXACT}, since in {precision}, as measured on a crop, {problem}"
        result = run(batch, precision=EXACT, progress=progress)
    return replace(result, notes=tuple(filter(None, (note, *result.notes))))


def settle(
    run: Attribute, part: Batch, device: torch.device, settings: RuleSettings, key: Any
) -> tuple[str, str]:
    """Measure which precision is accurate enough for networks in float32.

    Scores of a corner of the first image, under every degradation, are computed in float32 by plain
    PyTorch at up to 32 points, which also estimates the error of the rule, and then in faster
    precisions at the same points.

    Returns
    -------
    precision : str
    note : str
        Measured errors; empty where there was nothing to measure.
    """
    key = key, device, settings
    if key not in _known:
        if len(_known) >= MOST_KNOWN:
            _known.clear()
        _known[key] = _measured(run, part, device, settings)
    return _known[key]


def _measured(
    run: Attribute, part: Batch, device: torch.device, settings: RuleSettings
) -> tuple[str, str]:
    precisions = possible(settings.backend, device)
    if not precisions:
        return EXACT, ""
    nested = settings.rule if settings.rule in NESTED and not settings.emulate else "midpoint"
    side = max(CORNER_SIDES[-1], settings.pad + 1)  # a corner that reflection can pad
    crops = {name: corner(part.lq[name][:1], part.gt[name][:1], side) for name in part.lq}
    batch = {
        "lq": {name: x for name, (x, _) in crops.items()},
        "gt": {name: gt for name, (_, gt) in crops.items()},
    }
    options = {"rule": nested, "steps": POINTS, "tol": TOL, "emulate": False, "per_image": True}
    options |= {"tol_contrast": None, "overlap": None}
    if nested == "averaged":  # estimates its error without levels
        options |= {"steps": LEVELS[-1], "tol": None}
    try:
        exact = run(batch, **options, backend="torch", precision=EXACT)
    except ValueError as problem:  # a corner may be too small for the network
        return EXACT, f"precision: {EXACT}, since a crop cannot be compared: {problem}"
    if settings.tol is None:
        usual = default_steps(settings.rule, next(iter(part.lq.values()))[0, 0].numel())
        count = EMULATED if settings.emulate else settings.points or usual
        order = ORDERS.get(nested, ORDER)
        bound = exact.error[:, 0] * (exact.evaluations / count) ** order
    else:
        bound = torch.full_like(exact.error[:, 0], settings.tol)

    def errors(precision: str) -> Tensor:
        return differences(
            run(batch, **options, backend=settings.backend, precision=precision), exact
        )

    precision, errors_by_precision = decide(errors, bound, precisions)
    size = "×".join(map(str, next(iter(crops.values()))[0].shape[2:]))
    whose = "tol" if settings.tol is not None else "the rule's own error"
    text = f"precision: {precision}, measured on a crop of {size}; {whose} is {bound.min():.1e}"
    return precision, "; ".join([text, *errors_by_precision])


def possible(backend: str, device: torch.device) -> list[str]:
    """Precisions of a backend, or of the backend that "auto" chooses for each; fastest first."""
    if backend not in ("auto", "triton", "cuda", "torch"):
        return []
    precisions = []
    for precision in FASTEST_FIRST:
        try:
            name = choose(backend, device, precision)[0]
        except ValueError:
            continue
        if name == "triton" or precision in ("fp16", "bf16"):
            precisions.append(precision)
    return precisions


def differences(result: Attribution, exact: Attribution) -> Tensor:
    """Relative L1 difference of the scores of the first image, by degradation [D]."""
    rows = []
    for name in exact.degradations:
        one, other = (part.scores(name)[0].double().cpu() for part in (result, exact))
        rows.append((one - other).abs().sum() / other.abs().sum())
    return torch.stack(rows)


def decide(
    errors: Callable[[str], Tensor], bound: Tensor, precisions: Iterable[str]
) -> tuple[str, list[str]]:
    """Take the first precision whose error is below the bound under every degradation.

    Parameters
    ----------
    errors : callable
        Gives the errors [D] of a precision; an exception refuses the precision.
    bound : Tensor
        [D].
    precisions : iterable of str
        Fastest first; the last resort is float32.

    Returns
    -------
    precision : str
    measured : list of str
        Error of every precision that was tried, in words.
    """
    measured = []
    for precision in precisions:
        try:
            own = errors(precision)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
            measured.append(f"{precision} fails: {reason}")
            continue
        measured.append(f"{precision} is off by {float(own.max()):.1e}")
        if bool((own <= bound.to(own)).all()):  # false for NaN
            return precision, measured
    return EXACT, measured
