"""ImageScores: the result of integrating one image over the line."""

from dataclasses import dataclass

from torch import Tensor

NO_GRADIENT = (
    "the loss does not depend on any weight that differs; expected networks that are neither "
    "detached nor under no_grad"
)


@dataclass(frozen=True)
class ImageScores:
    """Scores of one image.

    Parameters
    ----------
    scores : Tensor
        [F], Σ |I_i| over each kernel; 0 for layers that are not scored.
    losses : tuple of float
        L(θ̄) and L(θ).
    total : float
        Σ I_i over every interpolated tensor.
    error : float
        Estimated relative L1 error of the scores; NaN if the rule has no estimate.
    evaluations : int
        Points of the line at which gradients were taken.
    line : Tensor
        [P, 2] in float64 on the CPU, α and loss at the points, in ascending order of α.
    zero_gradient : frozenset of str
        Scored layers that differ, but whose gradient is 0 in this image and those beside it.
    score_error : Tensor, optional
        [F], estimated error with a sign, so that means over images cancel as those of the errors
        do. None if the rule has no estimate.
    level : int
        Points of the last step.
    """

    scores: Tensor
    losses: tuple[float, float]
    total: float
    error: float
    evaluations: int
    line: Tensor
    zero_gradient: frozenset[str] = frozenset()
    score_error: Tensor | None = None
    level: int = 0
