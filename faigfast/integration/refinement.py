"""Refinement: default numbers of points, and nested rules until the scores barely change."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real

import numpy as np

from faigfast.integration.quadrature import (
    RULES,
    Quadrature,
    Step,
    graded_with_ends,
    node_count,
    quadrature,
)

# Default nodes of a rule; docs/explanation/accuracy.md compares their errors.
STEPS = {"left": 100, "right": 100, "graded": 16, "averaged": 15, "gauss-kronrod": 21}
STEPS_OF_OTHERS = 20
# Kinks of many units average out: images of at least LARGE pixels need fewer nodes.
LARGE = 64 * 64
STEPS_OF_LARGE = {"midpoint": 15, "graded": 14}
# Points of averaged levels; later ones double. Networks with kinks begin with the second.
LEVELS = 6, 15, 24
MOST_STEPS = 729  # default limit with a tolerance
# Rules that `tol` refines → ratio of the estimated error to the change of the scores from level to
# level.
# One-sided rules change by about their error; 1.1 covers the error in 98 % of 288 cases.
NESTED = {
    "midpoint": 0.4, "trapezoid": 2 / 3, "graded": 2 / 3, "averaged": 0.5, "left": 1.1, "right": 1.1
}  # fmt: skip


@dataclass(frozen=True)
class Steps:
    """Makes an iterator over the steps of a rule at every call.

    Parameters
    ----------
    make : callable
        From whether the network has kinks to the iterator.
    depend_on_kinks : bool
        Whether that makes a difference; then see `faigfast.integration.kinks.KinkDetector`.
    """

    make: Callable[[bool], Iterator[Step]]
    depend_on_kinks: bool = False

    def __call__(self, kinked: bool = True) -> Iterator[Step]:
        """Iterate over the steps for a network with or without kinks."""
        return self.make(kinked)


def default_steps(rule: str, pixels: int) -> int:
    """Default number of nodes of a rule, for an image of so many pixels."""
    count = STEPS.get(rule, STEPS_OF_OTHERS)
    return STEPS_OF_LARGE.get(rule, count) if pixels >= LARGE else count


def schedule(
    rule: str, steps: int | None = None, tol: float | None = None, emulate: bool = False
) -> tuple[int | None, Callable[[int], Steps]]:
    """Check the options of the sum over the line, and make its steps.

    Parameters
    ----------
    rule : str
        As in `quadrature`.
    steps : int, optional
        Number of nodes, with `tol` the most; None: the default.
    tol : float, optional
        Relative error to refine to.
    emulate : bool
        As in `quadrature`.

    Returns
    -------
    steps : int, optional
        The number of nodes, given or default; None if it depends on the size of the image.
    make : callable
        From the pixels of an image to the steps.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, out of range, or contradicts another.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; expected one of {', '.join(RULES)}")
    if rule == "averaged" and steps is None and tol is None and not emulate:
        adaptive = Steps(partial(averaged, LEVELS[-1], adapts=True), depend_on_kinks=True)
        return None, lambda pixels: adaptive
    if tol is None:
        count = default_steps(rule, 1) if steps is None else node_count(steps)
        make = fixed(quadrature(rule, count, emulate))
        if steps is not None or rule not in STEPS_OF_LARGE:
            return count, lambda pixels: make
        return None, lambda pixels: fixed(quadrature(rule, default_steps(rule, pixels)))
    if isinstance(tol, bool) or not isinstance(tol, Real):
        raise TypeError(f"tol is {tol!r}; expected a relative error such as 0.01")
    try:
        tol = float(tol)
    except OverflowError:
        tol = math.inf
    if not 0 < tol < math.inf:
        raise ValueError(f"tol is {tol!r}; expected a positive relative error such as 0.01")
    if emulate:
        raise ValueError("emulate predicts a rule of a fixed number of steps; expected tol=None")
    count = MOST_STEPS if steps is None else node_count(steps)
    next(refinement(rule, count, kinked=True))
    refining = Steps(partial(refinement, rule, count), depend_on_kinks=rule == "averaged")
    return count, lambda pixels: refining


def fixed(rule: Quadrature) -> Steps:
    """Give the steps of a rule; its points are the same for every network."""
    return Steps(rule.steps, depend_on_kinks=rule.phases > 1)


def refinement(rule: str, most: int, kinked: bool) -> Iterator[Step]:
    """Yield rules step by step; all but "averaged" keep the points of the previous rule.

    The error after a step is estimated as a factor times the change of the scores. An integrand
    with kinks resembles a path of Brownian motion: a rule of three or two times as many points then
    changes the scores by √8 or √3 times its own error; a smooth integrand by more.

    Parameters
    ----------
    rule : str
        One of `NESTED`.
    most : int
        Largest number of points.
    kinked : bool
        Whether the network has kinks; "averaged" begins with fewer points without.

    Raises
    ------
    ValueError
        If the rule does not nest, or `most` is too small for two levels.

    Examples
    --------
    >>> [len(step.nodes) for step in refinement("graded", 50, kinked=True)]
    [6, 7, 12, 24]
    """
    if rule not in NESTED:
        raise ValueError(f"tol refines the rules {', '.join(NESTED)}, not {rule!r}")
    if rule == "averaged":
        yield from averaged(most, kinked)
        return
    levels = _levels(rule)
    coarse, fine = next(levels), next(levels)
    if most < len(fine.nodes):
        raise ValueError(
            f"steps is {most}; with tol it is the most points to take, and {rule} compares "
            f"{len(coarse.nodes)} points with {len(fine.nodes)} first"
        )
    yield Step(coarse.nodes, coarse.weights, compares=True)
    while len(fine.nodes) <= most:
        near = np.isclose(fine.nodes[:, None], coarse.nodes, rtol=0, atol=1e-9)
        old = near.any(1)
        # All weights of the previous level change by one factor.
        keep = fine.weights[old].sum() / coarse.weights.sum()
        yield Step(fine.nodes[~old], fine.weights[~old], float(keep), None, True, NESTED[rule])
        coarse, fine = fine, next(levels)


def averaged(most: int, kinked: bool, adapts: bool = False) -> Iterator[Step]:
    """Yield levels of averaged points; each takes points of its own, since cells change.

    Parameters
    ----------
    most : int
        Largest number of points of a level.
    kinked : bool
        As in `refinement`.
    adapts : bool
        As in `faigfast.integration.quadrature.Step`.

    Raises
    ------
    ValueError
        If `most` is too small for the first level of a network with kinks.

    Examples
    --------
    >>> [len(step.nodes) for step in averaged(50, kinked=True)]
    [15, 24, 48]
    """
    if most < LEVELS[1]:
        raise ValueError(
            f"steps is {most}; with tol it is the most points to take, and averaged takes "
            f"{LEVELS[1]} points first on a network with kinks"
        )
    for count in _averaged_counts():
        if count > most:
            return
        if kinked and count < LEVELS[1]:
            continue
        level = quadrature("averaged", count)
        (step,) = level.steps(kinked)
        factor = NESTED["averaged"]
        yield replace(step, keep=0.0, compares=True, factor=factor, adapts=adapts)


def next_level(count: int) -> int:
    """Points of the averaged level after one of `count` points.

    Examples
    --------
    >>> next_level(15), next_level(24)
    (24, 48)
    """
    return next(more for more in _averaged_counts() if more > count)


def _averaged_counts() -> Iterator[int]:
    yield from LEVELS
    yield from (LEVELS[-1] * 2**power for power in itertools.count(1))


def _levels(rule: str) -> Iterator[Quadrature]:
    """Yield rules; each contains the nodes of the previous one."""
    if rule == "graded":
        yield quadrature(rule, 6)
        for doublings in itertools.count(1):
            # First midpoints, then equal steps of half the width.
            yield graded_with_ends(6 * 2**doublings + 1)
    for power in itertools.count():
        if rule == "trapezoid":
            yield quadrature(rule, 2 ** (power + 1) + 1)
        else:
            yield quadrature(rule, 3 * 3**power if rule == "midpoint" else 2 * 2**power)
