"""State of the processor and of the heap while the engine computes on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from faigfast.backend.cpu import extension as _extension


@contextmanager
def flushed() -> Iterator[None]:
    """Treat denormal numbers as 0 in this thread and its torch threads.

    Weights exp(-100) of masked attention are denormal, and torch's products and softmax then take
    up to ten times as long. Without the extension this does nothing.
    """
    if _extension.module is None:
        yield
        return
    before = _extension.module.flush_denormals(torch.get_num_threads())
    try:
        yield
    finally:
        _extension.module.set_control_words(before)


@contextmanager
def computing() -> Iterator[None]:
    """Treat denormal numbers as 0, and keep memory that torch frees for its next tensors."""
    if _extension.module is None:
        yield
        return
    _extension.module.keep_freed(True)
    try:
        with flushed():
            yield
    finally:
        _extension.module.keep_freed(False)
