"""Operations of faigfast, each with its plain PyTorch twin."""

from faigfast.ops.score_reduction import score_reduction, score_reduction_reference

__all__ = ["score_reduction", "score_reduction_reference"]
