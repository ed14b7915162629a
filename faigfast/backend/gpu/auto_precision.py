"""What "auto" takes on a GPU: the fastest precision whose error hides behind the rule's own."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.catalogue import choose
from faigfast.engine.verify import CORNERS, corner
from faigfast.integration.batch import Batch, batches, is_single
from faigfast.integration.refinement import NESTED, usual_steps
from faigfast.result import Attribution

TYPES = ("cuda",)  # of devices on which other precisions are faster than float32
# By the rates of matrix instructions, fastest first.
FASTEST_FIRST = ("fp16", "bf16", "tf32", "bf16x3")
EXACT = "fp32"
POINTS = 32  # the most at which a crop is compared
# How a rule's error falls with the number of points: beside kinks as of a path of Brownian motion.
ORDERS = {"left": 1.0, "right": 1.0}
ORDER = 1.5
EMULATED = 17  # evaluations of an emulated rule
TOL = 1e-12  # is not reached: all points are taken
KNOWN = 64

Attribute = Callable[..., Attribution]

_known: dict[Any, tuple[str, str]] = {}


@dataclass(frozen=True)
class Plan:
    """How the line will be summed, and by whom: its error is `tol`, or estimated.

    Parameters
    ----------
    backend : str
        As it was asked for.
    rule, points, tol, emulate
        As `faigfast.attribute` takes them; points is None where their number depends on the image.
    """

    backend: str
    rule: str
    points: int | None
    tol: float | None
    emulate: bool


def in_fastest(
    run: Attribute, batch: Any, like: Tensor, plan: Plan, key: Any, progress: bool
) -> Attribution:
    """Attribute in the precision that is measured to be fast and accurate enough.

    Parameters
    ----------
    run : callable
        `faigfast.attribute` of these networks, with all options.
    batch
        As there.
    like : Tensor
        One of the networks', for device and type.
    plan : Plan
        How the line will be summed.
    key : hashable
        What tells networks and settings apart: for the same, the precision stays.
    progress : bool
        As in `faigfast.attribute`.

    Raises
    ------
    ValueError
        As there; if values are out of a precision's range that was measured for the first of
        several batches. A batch alone is attributed again in float32.
    """
    given = batches(batch, like.device, like.dtype)
    head = next(given)
    precision, note = settle(run, head, like.device, plan, key)
    several = ({"lq": part.lq, "gt": part.gt} for part in chain([head], given))
    single = is_single(batch)
    try:
        result = run(batch if single else several, precision=precision, progress=progress)
    except ValueError as problem:
        if precision == EXACT or "finite" not in str(problem):
            raise
        if not single:
            raise ValueError(
                f"{problem}; precision {precision!r} was measured for the first image, and "
                f"precision={EXACT!r} has more range"
            ) from problem
        note = f"precision: {EXACT}, since in {precision}, as measured on a crop, {problem}"
        result = run(batch, precision=EXACT, progress=progress)
    return replace(result, notes=tuple(filter(None, (note, *result.notes))))


def settle(
    run: Attribute, part: Batch, device: torch.device, plan: Plan, key: Any
) -> tuple[str, str]:
    """Measure in which precision networks in float32 can be attributed.

    Scores of a corner of the first image, under every degradation, are computed in float32 by plain
    PyTorch at up to 32 points, which also estimates the error of the rule, and then in faster
    precisions at the same points.

    Returns
    -------
    precision : str
    note : str
        Which errors were found; empty where there was nothing to measure.
    """
    key = key, device, plan
    if key not in _known:
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = _measured(run, part, device, plan)
    return _known[key]


def _measured(run: Attribute, part: Batch, device: torch.device, plan: Plan) -> tuple[str, str]:
    precisions = possible(plan.backend, device)
    if not precisions:
        return EXACT, ""
    nested = plan.rule if plan.rule in NESTED and not plan.emulate else "midpoint"
    crops = {name: corner(part.lq[name][:1], part.gt[name][:1], CORNERS[-1]) for name in part.lq}
    batch = {
        "lq": {name: x for name, (x, _) in crops.items()},
        "gt": {name: gt for name, (_, gt) in crops.items()},
    }
    way = {"rule": nested, "steps": POINTS, "tol": TOL, "emulate": False, "per_image": True}
    try:
        exact = run(batch, **way, backend="torch", precision=EXACT)
    except ValueError as problem:  # a corner may be too small for the network
        return EXACT, f"precision: {EXACT}, since a crop cannot be compared: {problem}"
    if plan.tol is None:
        usual = usual_steps(plan.rule, next(iter(part.lq.values()))[0, 0].numel())
        taken = EMULATED if plan.emulate else plan.points or usual
        order = ORDERS.get(nested, ORDER)
        bound = exact.error[:, 0] * (exact.evaluations / taken) ** order
    else:
        bound = torch.full_like(exact.error[:, 0], plan.tol)

    def errors(precision: str) -> Tensor:
        return differences(run(batch, **way, backend=plan.backend, precision=precision), exact)

    precision, found = decide(errors, bound, precisions)
    size = "×".join(map(str, next(iter(crops.values()))[0].shape[2:]))
    whose = "tol" if plan.tol is not None else "the rule's own error"
    text = f"precision: {precision}, measured on a crop of {size}; {whose} is {bound.min():.1e}"
    return precision, "; ".join([text, *found])


def possible(backend: str, device: torch.device) -> list[str]:
    """Precisions that a backend, or the one that "auto" takes for them, has; fastest first."""
    if backend not in ("auto", "triton", "cuda", "torch"):
        return []
    found = []
    for precision in FASTEST_FIRST:
        try:
            name = choose(backend, device, precision)[0]
        except ValueError:
            continue
        if name == "triton" or precision in ("fp16", "bf16"):
            found.append(precision)
    return found


def differences(found: Attribution, exact: Attribution) -> Tensor:
    """Relative L1 difference of the scores of the first image, by degradation [D]."""
    rows = []
    for name in exact.degradations:
        one, other = (part.scores(name)[0].double().cpu() for part in (found, exact))
        rows.append((one - other).abs().sum() / other.abs().sum())
    return torch.stack(rows)


def decide(
    errors: Callable[[str], Tensor], bound: Tensor, precisions: Iterable[str]
) -> tuple[str, list[str]]:
    """Take the first precision whose error is below the bound under every degradation.

    Parameters
    ----------
    errors : callable
        Gives the errors [D] of a precision; what it raises refuses the precision.
    bound : Tensor
        [D].
    precisions : iterable of str
        Fastest first; after them comes float32.

    Returns
    -------
    precision : str
    found : list of str
        What was measured, in words.
    """
    found = []
    for precision in precisions:
        try:
            own = errors(precision)
        except torch.OutOfMemoryError:
            raise
        except (ValueError, RuntimeError) as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:200]
            found.append(f"{precision} fails: {reason}")
            continue
        found.append(f"{precision} is off by {float(own.max()):.1e}")
        if bool((own <= bound.to(own)).all()):  # NaN is not
            return precision, found
    return EXACT, found
