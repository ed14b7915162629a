"""What "auto" takes on a GPU: the fastest precision whose error hides behind the rule's own."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from faigfast.backends import choose
from faigfast.batch import Batch
from faigfast.ends import corner
from faigfast.refinement import NESTED
from faigfast.result import Attribution

TYPES = ("cuda",)  # of devices on which other precisions are faster than float32
# By the rates of matrix instructions, fastest first.
FASTEST_FIRST = ("fp16", "bf16", "tf32", "bf16x3")
EXACT = "fp32"
POINTS = 32  # the most at which a crop is compared
# How a rule's error falls with the number of points: beside kinks as of a path of Brownian motion.
ORDERS = {"left": 1.0, "right": 1.0}
ORDER = 1.5
TOL = 1e-12  # is not reached: all points are taken
KNOWN = 64

Attribute = Callable[..., Attribution]

_known: dict[Any, tuple[str, str]] = {}


def settle(
    run: Attribute,
    part: Batch,
    device: torch.device,
    backend: str,
    *,
    rule: str,
    points: int,
    tol: float | None,
    emulate: bool,
    key: Any,
) -> tuple[str, str]:
    """Measure which precision networks in float32 can be attributed in.

    Scores of a corner of the first image, under every degradation, are computed in float32 by plain
    PyTorch at up to 32 points, which also estimates the error of the rule, and then in faster
    precisions at the same points.

    Parameters
    ----------
    run : callable
        `faigfast.attribute` of these networks, without batch, backend, precision and rule.
    part : Batch
        Whose first image is taken.
    device : torch.device
        Where it is.
    backend : str
        As it was asked for.
    rule, points, tol, emulate
        What will be used: its error is `tol`, or estimated.
    key : hashable
        What tells networks and settings apart: for the same, the answer stays.

    Returns
    -------
    precision : str
    note : str
        Which errors were found.
    """
    key = key, device, backend, rule, points, tol, emulate
    if key not in _known:
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = _measured(run, part, device, backend, rule, points, tol, emulate)
    return _known[key]


def _measured(
    run: Attribute,
    part: Batch,
    device: torch.device,
    backend: str,
    rule: str,
    points: int,
    tol: float | None,
    emulate: bool,
) -> tuple[str, str]:
    nested = rule if rule in NESTED and not emulate else "midpoint"
    crops = {name: corner(part.lq[name][:1], part.gt[name][:1]) for name in part.lq}
    batch = {
        "lq": {k: x for k, (x, _) in crops.items()},
        "gt": {k: g for k, (_, g) in crops.items()},
    }

    def scores(backend: str, precision: str) -> Attribution:
        return run(batch, rule=nested, steps=POINTS, tol=TOL, backend=backend, precision=precision)

    try:
        exact = scores("torch", EXACT)
    except ValueError as problem:  # a corner may be too small for the network
        return EXACT, f"precision: {EXACT}, since a crop cannot be compared: {problem}"
    if tol is None:
        taken = 17 if emulate else points
        order = ORDERS.get(nested, ORDER)
        bound = exact.error[:, 0] * (exact.evaluations / taken) ** order
    else:
        bound = torch.full_like(exact.error[:, 0], tol)

    def errors(precision: str) -> Tensor:
        return differences(scores(backend, precision), exact)

    precision, found = decide(errors, bound, possible(backend, device))
    size = "×".join(map(str, next(iter(crops.values()))[0].shape[2:]))
    whose = "tol" if tol is not None else "the rule's own error"
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
