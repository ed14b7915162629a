"""Scores of filters by a Triton kernel."""

import torch
from torch import Tensor

from faigfast.backend.gpu.triton_conv import refuses
from faigfast.ops.registry import kernel
from faigfast.ops.score_reduction import check_arguments


def _refuses(total: Tensor, delta: Tensor) -> str:
    check_arguments(total, delta)
    if total.dtype != torch.float32:
        return f"tensors are of {total.dtype}"
    return refuses(total, delta)


@kernel("triton", "score_reduction", _refuses, "cuda", notes_refusal=False)
@kernel("triton", "score_reduction", _refuses, "triton")
def score_reduction(total: Tensor, delta: Tensor) -> Tensor:
    """As `faigfast.ops.score_reduction`."""
    from faigfast.kernels.score_reduction import launch

    scores = total.new_empty(total.shape[0], total.shape[1] * total.shape[2])
    launch(total.contiguous(), delta.contiguous(), scores).run()
    return scores
