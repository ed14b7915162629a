"""What the integration of one image over the line gives."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Integral:
    """Scores of one image.

    Parameters
    ----------
    scores : Tensor
        [F], Σ |I_i| over each kernel; 0 where a layer is not scored.
    losses : tuple of float
        L(θ̄) and L(θ).
    total : float
        Σ I_i over every interpolated tensor.
    error : float
        Estimated relative L1 error of the scores; NaN where the rule gives none.
    evaluations : int
        Points of the line at which gradients were taken.
    """

    scores: Tensor
    losses: tuple[float, float]
    total: float
    error: float
    evaluations: int
