"""Memory that a network allocates without values has the same content in every recording."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def filled_memory() -> Iterator[None]:
    """Let torch fill memory without values, such as that of `torch.empty`, with NaN.

    Otherwise two recordings of one network differ where it overwrites such memory later. NaN that
    stays in an output also shows that the network reads what nobody wrote.
    """
    # `torch.use_deterministic_algorithms` would import a compiler.
    before = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch._C._set_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch._C._set_deterministic_algorithms(before, warn_only=warns)
