"""Phases: sums of every third point, and the errors that they estimate.

The graded nodes are midpoints in t. The second, fifth, … of them are the midpoints of a rule with
three times the step: its scores differ from the scores of all points by eight times the error of
those, if the error falls with the square of the step. The last phase less the first one gives the
change of the gradient over the line, and so the error of the authors' rule: R_S ≈ ∫g + (g(1) −
g(0)) / (2S), see `faigfast.integration.quadrature.quadrature`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from faigfast.integration.quadrature import GRADING

# Of the coarse rule's difference from the fine one to the estimated error: 8 in theory, less here,
# so that few errors are above their estimates.
RATIO = 5.0
ENOUGH = 0.5  # an image is done if so much of its estimate is below the authors' error
AUTHORS_STEPS = 100

Sums = Mapping[str, Tensor]


class Estimates(NamedTuple):
    """Estimated errors of scores, and of the authors' rule's scores.

    Parameters
    ----------
    error, authors_error : Tensor
        Relative L1 errors.
    score_error : Tensor
        [..., F], signed error of every score.
    """

    error: Tensor
    authors_error: Tensor
    score_error: Tensor


def coarse_sums(phases: Sequence[Sums]) -> dict[str, Tensor]:
    """Give the sums of the rule that takes every third point, from the sums of the phases."""
    return {key: 3 * value for key, value in phases[1].items()}


def authors_sums(total: Sums, phases: Sequence[Sums], points: int) -> dict[str, Tensor]:
    """Give the sums of the authors' 100 points, to first order."""
    # The difference of the phases, times three, is 2/n of the change in t over the line.
    factor = 3 * points / 2 / (1 - GRADING) / (2 * AUTHORS_STEPS)
    first, _, last = phases
    return {key: value + factor * (last[key] - first[key]) for key, value in total.items()}


def estimates(
    scores: Callable[[Sums], Tensor],
    difference: Callable[[Tensor, Tensor], Tensor],
    total: Sums,
    phases: Sequence[Sums],
    points: int,
) -> Estimates:
    """Estimate the errors of scores, and of the authors' rule's scores.

    Parameters
    ----------
    scores : callable
        From sums to scores.
    difference : callable
        Relative L1 difference of scores from others.
    total : mapping of str to Tensor
        Sums over all points.
    phases : sequence of mapping
        Sums over every third point, from the first, the second and the third.
    points : int
        Their number.
    """
    fine, coarse = scores(total), scores(coarse_sums(phases))
    return Estimates(
        difference(coarse, fine) / RATIO,
        difference(scores(authors_sums(total, phases, points)), fine),
        (coarse - fine) / RATIO,
    )
