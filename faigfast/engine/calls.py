"""Calls: the torch functions that a network calls for a small image, compared with earlier ones.

A trace costs more than a forward. Between two calls it is enough to check that the network's code
still computes the same: the functions of torch that it calls, in order, with their arguments and
the values of tensors from outside.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.weak import WeakIdKeyDictionary

from faigfast.engine.filled_memory import filled_memory
from faigfast.engine.own_functions import as_ordinary_code
from faigfast.integration.path import WeightPath

# These describe a tensor and compute nothing.
_OF_SHAPES = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad")
) | {Tensor.size, Tensor.dim, Tensor.__len__, Tensor.numel, Tensor.is_floating_point}


@dataclass(frozen=True)
class CallRecord:
    """The calls of a network for one image, as one digest, and its output."""

    calls: str
    output: Any


def record_calls(
    path: WeightPath, module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor
) -> CallRecord | None:
    """Run a network on one image; it computes the same as long as the calls are equal.

    Parameters
    ----------
    path, module, tensors
        As in `faigfast.engine.trace.trace`.
    x : Tensor
        One image [1, C, *spatial].

    Returns
    -------
    CallRecord or None
        None where the network does not take the image.
    """
    given = {key: value.clone() for key, value in tensors.items()}
    image = x.clone().requires_grad_().clone()
    recorder = CallRecorder([*given.values(), image])
    without_saving = saved_tensors_hooks(lambda value: None, lambda value: value)
    try:
        with without_saving, as_ordinary_code(), filled_memory(), recorder:
            output = path.evaluate(given, image, module=module)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # of the network's own code; a run for scores raises it
        return None
    return CallRecord(recorder.digest(), tree_map(_detached, output))


class CallRecorder(TorchFunctionMode):
    """Records every call of a function of torch."""

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.result_names: Any = WeakIdKeyDictionary()
        self.count = 0
        for value in inputs:
            self._name_result(value)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _OF_SHAPES:
            return func(*args, **kwargs)
        own = getattr(func, "__self__", None)
        name = func.__name__ if own is None else f"{getattr(own, '__name__', own)}.{func.__name__}"
        call = [name, "" if torch.is_grad_enabled() else " without gradients"]
        self._write(args, call)
        self._write(kwargs, call)
        result = func(*args, **kwargs)
        call.append("→")
        self._results(result, call)
        self.calls.append(" ".join(call))
        return result

    def _write(self, value: Any, call: list[str]) -> None:
        """Append a description of arguments to a call."""
        if isinstance(value, Tensor):
            call.append(self.result_names.get(value) or content_name(value))
        elif isinstance(value, list | tuple):
            call.append("(")
            for part in value:
                self._write(part, call)
            call.append(")")
        elif isinstance(value, dict):
            for key, part in value.items():
                call.append(f"{key}=")
                self._write(part, call)
        else:
            call.append(repr(value))

    def _results(self, result: Any, call: list[str]) -> None:
        if isinstance(result, Tensor):
            self._name_result(result)
        elif isinstance(result, list | tuple):
            for part in result:
                self._results(part, call)
        else:
            call.append(repr(result))

    def _name_result(self, value: Tensor) -> None:
        self.result_names[value] = f"%{self.count}"
        self.count += 1

    def digest(self) -> str:
        """Digest of all calls."""
        return hashlib.sha256("\n".join(self.calls).encode()).hexdigest()


def content_name(value: Tensor) -> str:
    """Name a tensor by type, shape and values; never cached, since a network may write on it."""
    name = f"{value.dtype} {[*value.shape]}"
    if value.is_meta:
        return name
    octets = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{name} {hashlib.sha256(octets.data).hexdigest()}"


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
