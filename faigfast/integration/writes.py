"""Writes: the tensors of a network that its own forward overwrites."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_GET_DATA = Tensor.data.__get__  # type: ignore[attr-defined]


class _DataRecorder(TorchFunctionMode):
    """Keeps the results of `tensor.data`, whose writes the tensor itself does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.views: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func == _GET_DATA:
            self.views.append((args[0], result))
        return result


@contextmanager
def recorded_writes(given: Mapping[str, Tensor], written: set[str]) -> Iterator[None]:
    """Add to `written` the keys of the tensors that the code inside writes to.

    Versions and addresses are compared, never values: a write of equal values counts too.

    Parameters
    ----------
    given : mapping of str to Tensor
        Tensors by key, with storage of their own.
    written : set of str
        Receives the keys.
    """
    with torch._C.DisableTorchFunction():  # modes of the caller are to see the network alone
        before = {key: (value.data_ptr(), value._version) for key, value in given.items()}
    recorder = _DataRecorder()
    with recorder:
        yield
    changed = {id(owner) for owner, view in recorder.views if view._version}
    with torch._C.DisableTorchFunction():
        written |= {
            key
            for key, value in given.items()
            if before[key] != (value.data_ptr(), value._version) or id(value) in changed
        }
