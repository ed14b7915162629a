"""Precisions in which networks are evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@contextmanager
def proper_float32() -> Iterator[None]:
    """Keep cuDNN and cuBLAS from rounding float32 to tf32 while the block runs."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def check_precision(precision: str) -> None:
    """Refuse a precision that is unknown or not part of this version, by a ValueError."""
    if precision == "tf32":
        raise ValueError("precision 'tf32' is not part of this version; fp32 means float32 proper")
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision is {precision!r}; expected auto, {', '.join(PRECISIONS)}")
