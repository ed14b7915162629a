"""Refinement for the ranking: more points until the error of the contrasts is small enough.

Images whose estimated errors are the largest take the next level of averaged points; the others
keep theirs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import torch

from faigfast.integration.image_scores import ImageScores
from faigfast.integration.phases import relative
from faigfast.integration.quadrature import node_count, quadrature
from faigfast.integration.refinement import LEVELS, MOST_STEPS, NESTED, Steps, fixed, next_level
from faigfast.result import Attribution
from faigfast.result_errors import error_of_points, stability_of_points

FRACTION = 0.01  # the best filters of `overlap`
NOTE = "refinement: with the most points the contrast of {} has {}"
LARGE_SHARE = 0.5  # images with at least so much of the largest error take more points


@dataclass(frozen=True)
class RankingGoal:
    """What the points of the line may change in the contrast of every degradation.

    Parameters
    ----------
    tol_contrast : float, optional
        Most estimated relative L1 error, `ContrastError.points`.
    overlap : float, optional
        Least estimated share of the best 1 %, `Stability.points`.
    most : int
        Most points of a level.
    """

    tol_contrast: float | None
    overlap: float | None
    most: int

    def missed_by(self, result: Attribution) -> list[str]:
        """Give a note for every degradation whose contrast is not 0 and misses the goal."""
        notes = []
        for name in result.degradations:
            if not result.contrast(name)[result.scored].any():
                continue
            error = error_of_points(result, name)
            if self.tol_contrast is not None and not error <= self.tol_contrast:
                problem = f"an error of {error:.1e}, above tol_contrast={self.tol_contrast:g}"
                notes.append(NOTE.format(name, problem))
            elif self.overlap is not None:
                share = stability_of_points(result, name, FRACTION)
                if not share >= self.overlap:
                    problem = f"an overlap of {share:.3f}, below overlap={self.overlap:g}"
                    notes.append(NOTE.format(name, problem))
        return notes


def ranking_goal(
    tol_contrast: float | None, overlap: float | None, rule: str, steps: int | None, emulate: bool
) -> RankingGoal | None:
    """Check the two options; None where neither is given.

    Raises
    ------
    TypeError, ValueError
        If one is of the wrong kind or out of range, or the rule does not estimate signed errors.
    """
    given = {"tol_contrast": tol_contrast, "overlap": overlap}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} is {value!r}; expected a number such as 0.01 or 0.99")
    if not given:
        return None
    if rule != "averaged" or emulate:
        raise ValueError(
            f"{' and '.join(given)} with rule={rule!r}{' and emulate' * emulate}; expected the "
            "rule 'averaged', whose points estimate errors filter by filter"
        )
    if tol_contrast is not None and not 0 < tol_contrast < math.inf:
        raise ValueError(f"tol_contrast is {tol_contrast!r}; expected a positive relative error")
    if overlap is not None and not 0 < overlap <= 1:
        raise ValueError(f"overlap is {overlap!r}; expected a share above 0, at most 1")
    if steps is not None and node_count(steps) < LEVELS[-1]:
        raise ValueError(
            f"steps is {steps}; with {' and '.join(given)} it is the most points of a level; "
            f"expected at least {LEVELS[-1]}"
        )
    return RankingGoal(
        None if tol_contrast is None else float(tol_contrast),
        None if overlap is None else float(overlap),
        MOST_STEPS if steps is None else steps,
    )


def refined(
    scores: Sequence[ImageScores],
    goal: RankingGoal,
    collect: Callable[[list[ImageScores]], Attribution],
    integrate: Callable[[list[int], Steps], list[ImageScores]],
) -> list[ImageScores]:
    """Take more points until the goal is met or every image has the most points.

    Parameters
    ----------
    scores : sequence of ImageScores
        Of D·N images, with estimated errors.
    goal : RankingGoal
        Of the contrasts.
    collect : callable
        From the scores of all images to an attribution.
    integrate : callable
        From numbers of images and steps to their scores.

    Returns
    -------
    list of ImageScores
    """
    parts = list(scores)
    while goal.missed_by(collect(parts)):
        sizes = [_size_of_error(part) for part in parts]
        open_images = [n for n, part in enumerate(parts) if next_level(part.level) <= goal.most]
        if not open_images:
            break
        largest = max(sizes[n] for n in open_images)
        chosen = [n for n in open_images if sizes[n] >= LARGE_SHARE * largest]
        level = min(next_level(parts[n].level) for n in chosen)
        chosen = [n for n in chosen if next_level(parts[n].level) == level]
        more = integrate(chosen, fixed(quadrature("averaged", level)))
        for n, part in zip(chosen, more, strict=True):
            parts[n] = _joined(parts[n], part)
    return parts


def _size_of_error(part: ImageScores) -> float:
    """L1 norm of the estimated error; infinite without an estimate."""
    return math.inf if part.score_error is None else float(part.score_error.abs().sum())


def _joined(before: ImageScores, after: ImageScores) -> ImageScores:
    """Give the later scores with the points of both, and with an error from their difference."""
    line = torch.cat([before.line, after.line])
    if after.score_error is None:
        error = NESTED["averaged"] * (before.scores - after.scores)
        after = replace(after, score_error=error, error=float(relative(error, after.scores)))
    return replace(
        after,
        evaluations=before.evaluations + after.evaluations,
        line=line[line[:, 0].argsort()],
    )
