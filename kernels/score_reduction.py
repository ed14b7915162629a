"""Scores of filters: Σ |Δ·total| over every kernel, per image."""

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels.launch import Launch

BLOCK = 128


@triton.jit(do_not_specialize=("filters",))
def score_reduction(total, delta, scores, filters, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK filters of one image."""
    image = tl.program_id(1).to(tl.int64)
    f = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    score = tl.zeros((BLOCK,), dtype=tl.float32)
    for tap in range(TAPS):
        at = f.to(tl.int64) * TAPS + tap
        value = tl.load(total + image * filters * TAPS + at, mask=f < filters, other=0.0)
        score += tl.abs(value * tl.load(delta + at, mask=f < filters, other=0.0))
    tl.store(scores + image * filters + f, score, mask=f < filters)


def launch(total: Tensor, delta: Tensor, scores: Tensor) -> Launch:
    """Fill scores [N, O·I] from total [N, O, I, *k] and Δ [O, I, *k]; all float32, contiguous."""
    filters = scores.shape[1]
    arguments = {
        "total": total, "delta": delta, "scores": scores, "filters": filters,
        "TAPS": delta[0, 0].numel(), "BLOCK": BLOCK,
    }  # fmt: skip
    return Launch(score_reduction, (triton.cdiv(filters, BLOCK), len(scores)), arguments)
