"""Phases: sums of every third point, and the errors that they estimate.

The graded nodes are midpoints in t. The second, fifth, … of them are the midpoints of a rule with
three times the step: its scores differ from the scores of all points by eight times the error of
those, if the error falls with the square of the step (`Step.ratio`). The last phase less the first
one gives the change of the gradient over the line, and so the error of the authors' rule: R_S ≈ ∫g
+ (g(1) − g(0)) / (2S), see `faigfast.integration.quadrature.quadrature`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from faigfast.integration.quadrature import GRADING, PHASES, Step

ENOUGH = 0.8  # an image is done if so much of its estimate is below the authors' error
AUTHORS_STEPS = 100

Sums = Mapping[str, Tensor]
Scores = Callable[[Sums], Tensor]  # from sums to scores [..., F]


def score_error(scores_of: Scores, scores: Tensor, phases: Sequence[Sums], step: Step) -> Tensor:
    """Estimate the signed error of scores.

    Parameters
    ----------
    scores_of : callable
        From sums to scores.
    scores : Tensor
        [..., F], of the sums over all points.
    phases : sequence of mapping
        Sums over every third point, from the first, the second and the third.
    step : Step
        The points.
    """
    # The weights of the coarse rule add up to 1 as well; three times those of the phase do not.
    factor = float(step.weights.sum() / step.weights[1::PHASES].sum())
    coarse = {key: factor * value for key, value in phases[1].items()}
    return (scores_of(coarse) - scores) / step.ratio


def authors_error(
    scores_of: Scores, scores: Tensor, total: Sums, phases: Sequence[Sums], points: int
) -> Tensor:
    """Estimate the signed error of the scores that the authors' 100 points would give.

    Parameters
    ----------
    scores_of, scores, phases
        As in `score_error`.
    total : mapping of str to Tensor
        Sums over all points.
    points : int
        Their number.
    """
    # The difference of the phases, times three, is 2/n of the change in t over the line.
    factor = 3 * points / 2 / (1 - GRADING) / (2 * AUTHORS_STEPS)
    first, _, last = phases
    return scores_of({k: v + factor * (last[k] - first[k]) for k, v in total.items()}) - scores


def relative(error: Tensor, scores: Tensor) -> Tensor:
    """Relative size of an error in L1, over the last dimension; 0 where both are 0."""
    size = scores.abs().sum(-1)
    return error.abs().sum(-1) / torch.where(size == 0, 1, size)
