"""Memory of the kernels in C++, which is kept and used again."""

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension


def empty(*shape: int) -> Tensor:
    """Uninitialised, in memory that was used before: new pages take longer than a convolution."""
    return torch.from_dlpack(_extension.module.new_tensor(shape))  # type: ignore[union-attr]


def free_cached(kept: int = 0) -> None:
    """Give memory that nobody uses back to the system where it is more than `kept` bytes.

    With `kept` 0 this goes for what torch freed, too.
    """
    if _extension.module is None:
        return
    if _extension.module.cached() > kept:
        _extension.module.free_cached()
    if not kept:
        _extension.module.trim_heap()
