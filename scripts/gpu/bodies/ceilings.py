"""What the card reaches at best: a large matrix product and a large copy, by replays of graphs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..graph_timing import replay_seconds, spread

ROWS = 8192  # of the product
BYTES = 1 << 30  # of the copy
KINDS = {"fp16": torch.float16, "bf16": torch.bfloat16}


def steps() -> dict[str, Callable[[], dict[str, Any]]]:
    """Time the product in both types, and the copy."""
    products = {f"matmul, {name}": partial(matmul, kind) for name, kind in KINDS.items()}
    return {**products, "copy": copy}


def matmul(kind: torch.dtype) -> dict[str, Any]:
    """Time a matrix product; zeros would run faster than random numbers."""
    a, b = (torch.randn(ROWS, ROWS, device="cuda").to(kind) for _ in range(2))
    seconds = spread(replay_seconds([lambda: a @ b]))
    return seconds | {"flops": 2 * ROWS**3}


def copy() -> dict[str, Any]:
    """Time a copy on the card, larger than its cache; bytes read and written count."""
    source = torch.randint(0, 255, (BYTES,), dtype=torch.uint8, device="cuda")
    destination = torch.empty_like(source)

    def copied() -> Tensor:
        return destination.copy_(source)

    return spread(replay_seconds([copied])) | {"bytes": 2 * BYTES}
