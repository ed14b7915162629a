"""Memory of the C++ kernels, from a pool."""

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension


def empty(*shape: int) -> Tensor:
    """Uninitialised tensor from the pool: mapping new pages takes longer than a convolution."""
    return torch.from_dlpack(_extension.module.new_tensor(shape))  # type: ignore[union-attr]


def free_cached(kept: int = 0) -> None:
    """Return unused memory of the pool to the system if it exceeds `kept` bytes.

    With `kept` 0, also return memory that torch has freed.
    """
    if _extension.module is None:
        return
    if _extension.module.cached() > kept:
        _extension.module.free_cached()
    if not kept:
        _extension.module.trim_heap()
