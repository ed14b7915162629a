"""Glance: what a network asks of torch for a small image, told apart from what it asked before.

A trace of a network costs a forward and more. Between two calls it is enough to see that its code
still does what was traced: the functions of torch that it calls, in order, with their arguments and
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

from faigfast.integration.path import WeightPath

# They say what a tensor is, and do nothing.
_OF_SHAPES = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad")
) | {Tensor.size, Tensor.dim, Tensor.__len__, Tensor.numel, Tensor.is_floating_point}


@dataclass(frozen=True)
class Glance:
    """The calls of a network for one image, as one name, and what it gave."""

    calls: str
    found: Any


def glance(
    path: WeightPath, module: nn.Module, tensors: Mapping[str, Tensor], x: Tensor
) -> Glance | None:
    """Run a network on one image; equal results at two times say that it computes the same.

    Parameters
    ----------
    path, module, tensors
        As in `faigfast.engine.trace.trace`.
    x : Tensor
        One image [1, C, *spatial].

    Returns
    -------
    Glance or None
        None where the network does not take the image.
    """
    given = {key: value.clone() for key, value in tensors.items()}
    image = x.clone().requires_grad_().clone()
    watch = Calls([*given.values(), image])
    nothing = saved_tensors_hooks(lambda value: None, lambda value: value)  # kept for a backward
    try:
        with nothing, watch:
            found = path.evaluate(given, image, module=module)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # of a network's own code; where it counts, it is raised
        return None
    return Glance(watch.digest(), tree_map(_detached, found))


class Calls(TorchFunctionMode):
    """Writes down every call of a function of torch."""

    def __init__(self, inputs: list[Tensor]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.places: Any = WeakIdKeyDictionary()
        self.count = 0
        for value in inputs:
            self._place(value)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _OF_SHAPES:
            return func(*args, **kwargs)
        own = getattr(func, "__self__", None)
        name = func.__name__ if own is None else f"{getattr(own, '__name__', own)}.{func.__name__}"
        line = [name, "" if torch.is_grad_enabled() else " without gradients"]
        self._write(args, line)
        self._write(kwargs, line)
        found = func(*args, **kwargs)
        line.append("→")
        self._results(found, line)
        self.lines.append(" ".join(line))
        return found

    def _write(self, value: Any, line: list[str]) -> None:
        """Write arguments down."""
        if isinstance(value, Tensor):
            line.append(self.places.get(value) or named_by_values(value))
        elif isinstance(value, list | tuple):
            line.append("(")
            for part in value:
                self._write(part, line)
            line.append(")")
        elif isinstance(value, dict):
            for key, part in value.items():
                line.append(f"{key}=")
                self._write(part, line)
        else:
            line.append(repr(value))

    def _results(self, found: Any, line: list[str]) -> None:
        if isinstance(found, Tensor):
            self._place(found)
        elif isinstance(found, list | tuple):
            for part in found:
                self._results(part, line)
        else:
            line.append(repr(found))

    def _place(self, value: Tensor) -> None:
        self.places[value] = f"%{self.count}"
        self.count += 1

    def digest(self) -> str:
        """Name all calls."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def named_by_values(value: Tensor) -> str:
    """Name a tensor by its type, shape and values, each time anew: a network may write on it."""
    name = f"{value.dtype} {[*value.shape]}"
    if value.is_meta:
        return name
    octets = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{name} {hashlib.sha256(octets.data).hexdigest()}"


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value
