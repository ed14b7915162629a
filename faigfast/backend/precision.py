"""Precisions in which networks are evaluated."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The type of activations. Weights on the line are at least float32 where kernels round them.
PRECISIONS = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "tf32": torch.float32,
    "bf16x3": torch.float32,
}
# Float32 multiplied by matrix instructions: rounded to 10 bits, or as three products of bfloat16.
MATRIX = ("tf32", "bf16x3")
# Backends whose kernels interpolate weights in float32, and round afterwards.
ROUND_LATE = ("triton", "cuda")


def type_of_values(precision: str, backend: str) -> torch.dtype:
    """Type of activations; on the backend cpu, bf16 is a way to multiply."""
    return torch.float32 if (precision, backend) == ("bf16", "cpu") else PRECISIONS[precision]


def mode_of(precision: str, backend: str) -> str:
    """How kernels multiply float32: the `mode` of `faigfast.ops.registry.Use`."""
    return precision if precision in MATRIX or (precision, backend) == ("bf16", "cpu") else "ieee"


@contextmanager
def proper_float32() -> Iterator[None]:
    """Keep cuDNN and cuBLAS from rounding float32 to tf32 while the block runs."""
    # Reading the older flags `allow_tf32` fails if a caller has set a single operation's precision.
    settings: list[Any] = [
        torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn,
        torch.backends.cuda.matmul,
    ]
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, own in zip(settings, before, strict=True):
            setting.fp32_precision = own


def check_precision(precision: str, backend: str = "triton") -> None:
    """Raise ValueError for a precision that is unknown, or that a backend does not have."""
    if precision not in ("auto", *PRECISIONS):
        raise ValueError(f"precision is {precision!r}; expected auto, {', '.join(PRECISIONS)}")
    if precision in MATRIX and backend != "triton":
        others = [name for name in PRECISIONS if name not in MATRIX]
        raise ValueError(
            f"precision is {precision!r}, which is of the backend triton, and the backend is "
            f"{backend!r}; expected one of auto, {', '.join(others)}"
        )
