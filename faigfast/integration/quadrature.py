"""Quadrature on [0, 1]: nodes and weights in float64."""

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

RULES = (
    "left", "right", "midpoint", "graded", "averaged", "trapezoid", "gauss-legendre",
    "gauss-kronrod",
)  # fmt: skip
GRADING = 0.4
EMULATION_NODES = 17  # fewest that come closer to the authors' sum than its own error, with kinks
MOST_STEPS = 1_000_000
PHASES, MOST_IN_PHASES = 3, 27  # points whose sums can be kept apart are at most so many
# Ratio of a coarse rule's difference to the estimated error: 8 in theory (`faigfast.integration.
# phases`), and measured on smooth networks from 9 points on; less with kinks, so that few errors
# are above their estimates.
SMOOTH_RATIO, KINKED_RATIO = 8.0, 5.0
MOST_GAUSS = 2001

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quadrature:
    """A weighted sum that approximates an integral over [0, 1].

    Parameters
    ----------
    nodes : ndarray
        [P], float64, α_s in [0, 1].
    weights : ndarray
        [P], float64, w_s.
    embedded : ndarray, optional
        [P], weights of a coarser rule on the same nodes; the difference of the two sums estimates
        the error.
    cells : ndarray, optional
        [P, 2], for nodes in ascending order, the part of [0, 1] over which the slopes of kinks are
        averaged in place of the slope at the node.
    """

    nodes: Array
    weights: Array
    embedded: Array | None = None
    cells: Array | None = None

    @property
    def phases(self) -> int:
        """Number of sums that estimate the error: those of every third point, or one alone."""
        fits = self.cells is not None and len(self.nodes) % PHASES == 0
        return PHASES if fits and PHASES < len(self.nodes) <= MOST_IN_PHASES else 1

    def steps(self, kinked: bool = True) -> Iterator["Step"]:
        """Yield all points, or with `embedded` one group for each ratio of the two weights.

        Estimates of errors depend on whether the network is `kinked`.
        """
        if self.embedded is None:
            ratio = KINKED_RATIO if kinked else SMOOTH_RATIO
            yield Step(self.nodes, self.weights, cells=self.cells, phases=self.phases, ratio=ratio)
            return
        ratios = np.round(self.embedded / self.weights, 12)
        for ratio in np.unique(ratios):
            same = ratios == ratio
            yield Step(self.nodes[same], self.weights[same], coarse=float(ratio))


@dataclass(frozen=True)
class Step:
    """Points that are added to the sum, and the factor of the sum so far.

    Parameters
    ----------
    nodes, weights : ndarray
        [P], float64.
    keep : float
        Factor of the sum so far.
    coarse : float, optional
        Factor of these points' sum in the sum of a coarser rule.
    compares : bool
        Whether to compare the scores after this step with the scores before it.
    factor : float
        Ratio of the scores' estimated error to their change in this step.
    cells : ndarray, optional
        [P, 2], as in `Quadrature`.
    phases : int
        3: the sums of every third point are kept apart and estimate errors, see
        `faigfast.integration.phases`.
    adapts : bool
        Whether an image is done if its error is estimated below the one of the authors' rule.
    ratio : float
        Ratio of the coarse rule's difference to the estimated error, with `phases`.
    """

    nodes: Array
    weights: Array
    keep: float = 1.0
    coarse: float | None = None
    compares: bool = False
    factor: float = 1.0
    cells: Array | None = None
    phases: int = 1
    adapts: bool = False
    ratio: float = KINKED_RATIO


def quadrature(rule: str, steps: int, emulate: bool = False) -> Quadrature:
    """Nodes and weights of a rule.

    Parameters
    ----------
    rule : str
        "left" is the authors' rule, α_s = 1 − s/S; "right" its mirror, α_s = 1 − (s+1)/S;
        "midpoint"; "graded", midpoints that are denser towards both ends, where gradients change
        fastest: α = φ(t), φ(t) = (1−c)t + c(3t² − 2t³) with c = 0.4, at midpoints t and with
        weights in proportion to φ′(t); "averaged", the graded rule with slopes of ReLU, LeakyReLU
        and PReLU averaged over cells (`faigfast.integration.cells`); "trapezoid"; "gauss-legendre";
        "gauss-kronrod" extends the Gauss rule of (steps − 1)/2 nodes and estimates its error.
    steps : int
        Number of nodes, positive.
    emulate : bool
        Predict the sum of the left or right rule of `steps` nodes from 17 nodes, the graded rule
        that counts both ends (`graded_with_ends`), by the first term of Euler and Maclaurin:
        R_S ≈ ∫g ± (g(1) − g(0)) / (2S).

    Returns
    -------
    Quadrature

    Raises
    ------
    TypeError
        If `steps` is not an integer.
    ValueError
        If the rule is unknown, has no such number of nodes, or cannot be emulated.

    Examples
    --------
    >>> quadrature("left", 4).nodes.tolist()
    [1.0, 0.75, 0.5, 0.25]
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; expected one of {', '.join(RULES)}")
    steps = node_count(steps)
    if emulate:
        return _emulated(rule, steps)
    position = np.arange(steps, dtype=np.float64)
    equal = np.full(steps, 1 / steps)
    if rule == "left":
        return Quadrature(1 - position / steps, equal)
    if rule == "right":
        return Quadrature(1 - (position + 1) / steps, equal)
    if rule == "midpoint":
        return Quadrature((position + 0.5) / steps, equal)
    if rule == "graded":
        return graded((position + 0.5) / steps, np.ones(steps))
    if rule == "averaged":
        rule_at_nodes = graded((position + 0.5) / steps, np.ones(steps))
        ends = np.concatenate([[0.0], np.cumsum(rule_at_nodes.weights)[:-1], [1.0]])
        return replace(rule_at_nodes, cells=np.stack([ends[:-1], ends[1:]], axis=1))
    if rule == "trapezoid":
        if steps < 2:
            raise ValueError("steps is 1; the trapezoid rule has at least 2 nodes, the two ends")
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return Quadrature(position / (steps - 1), weights)
    if steps > MOST_GAUSS:
        raise ValueError(
            f"steps is {steps}; expected at most {MOST_GAUSS} for {rule}, whose nodes come from a "
            "matrix of as many rows"
        )
    if rule == "gauss-legendre":
        return _from_jacobi(_legendre_recurrence(steps))
    if steps < 3 or steps % 2 == 0:
        raise ValueError(
            f"steps is {steps}; gauss-kronrod has an odd number of nodes, at least 3 (2n + 1 nodes "
            "around n of Gauss)"
        )
    return _kronrod((steps - 1) // 2)


def graded(t: Array, weights: Array) -> Quadrature:
    """Give the rule in α that follows from a rule in t by the change of variable α = φ(t)."""
    weights = weights * (1 - GRADING + 6 * GRADING * t * (1 - t))
    nodes = (1 - GRADING) * t + GRADING * t**2 * (3 - 2 * t)
    return Quadrature(nodes, weights / weights.sum())


def graded_with_ends(steps: int) -> Quadrature:
    """Give the graded rule of equal steps in t from 0 to 1; both endpoints have half the weight."""
    weights = np.ones(steps)
    weights[[0, -1]] = 0.5
    return graded(np.linspace(0, 1, steps), weights)


def node_count(steps: int) -> int:
    """Check a number of nodes.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is not positive, or above `MOST_STEPS`.
    """
    try:
        count = None if isinstance(steps, bool) else operator.index(steps)
    except TypeError:
        count = None
    if count is None:
        raise TypeError(f"steps is {steps!r}; expected a positive integer")
    if not 1 <= count <= MOST_STEPS:
        raise ValueError(f"steps is {count}; expected a positive integer up to {MOST_STEPS}")
    return count


def _emulated(rule: str, steps: int) -> Quadrature:
    if rule not in ("left", "right"):
        raise ValueError(f"emulate serves the rules left and right, not {rule!r}")
    graded_rule = graded_with_ends(EMULATION_NODES)
    # The left rule counts the target (α = 1) and leaves the baseline (α = 0) out.
    correction = (0.5 if rule == "left" else -0.5) / steps
    weights = graded_rule.weights.copy()
    weights[[0, -1]] += (-correction, correction)
    return Quadrature(graded_rule.nodes, weights)


def _legendre_recurrence(n: int) -> Array:
    """Squared off-diagonal b_0 … b_{n−1} of Legendre's Jacobi matrix on [−1, 1]; b_0 = 2."""
    k = np.arange(1, n, dtype=np.float64)
    return np.concatenate([[2.0], k**2 / (4 * k**2 - 1)])


def _from_jacobi(b: Array) -> Quadrature:
    """Gauss's rule of a symmetric weight from its recurrence (Golub and Welsch), on [0, 1]."""
    off = np.sqrt(b[1:])
    nodes, vectors = np.linalg.eigh(np.diag(off, 1) + np.diag(off, -1))
    weights = vectors[0] ** 2
    # Symmetric in theory; averaged with their mirror image, symmetric to the last bit too.
    nodes, weights = (nodes - nodes[::-1]) / 2, (weights + weights[::-1]) / 2
    return Quadrature((1 + nodes) / 2, weights / weights.sum())


def _kronrod(n: int) -> Quadrature:
    """Gauss-Kronrod rule of 2n + 1 nodes by Laurie's algorithm (Math. Comp. 66, 1997).

    The diagonal of the Jacobi matrix vanishes, since Legendre's weight is symmetric.
    """
    b = np.zeros(2 * n + 1)
    known = _legendre_recurrence(math.ceil(3 * n / 2) + 1)
    b[: len(known)] = known
    # s and t: two rows of mixed moments, their index shifted by one.
    s, t = np.zeros(n // 2 + 2), np.zeros(n // 2 + 2)
    t[1] = b[n + 1]
    for m in range(n - 1):
        k = np.arange((m + 1) // 2, -1, -1)
        s[k + 1] = np.cumsum(b[k + n + 1] * s[k] - b[m - k] * s[k + 1])
        s, t = t, s
    s[1:] = s[:-1].copy()
    for m in range(n - 1, 2 * n - 2):
        k = np.arange(m + 1 - n, (m - 1) // 2 + 1)
        j = n - 1 - (m - k)
        s[j + 1] = np.cumsum(-b[k + n + 1] * s[j + 1] + b[m - k] * s[j + 2])
        if m % 2:
            b[(m + 1) // 2 + n + 1] = s[j[-1] + 1] / s[j[-1] + 2]
        s, t = t, s
    kronrod = _from_jacobi(b)
    embedded = np.zeros(2 * n + 1)
    embedded[1::2] = _from_jacobi(_legendre_recurrence(n)).weights
    return Quadrature(kronrod.nodes, kronrod.weights, embedded)
