"""Packing: an image and the networks' further inputs in one tensor.

The engine knows one tensor for each image. This tensor carries the further inputs as channels
after the image's own. The call of a network unpacks them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How images and their inputs lie in one tensor.

    Parameters
    ----------
    channels : int
        C of the image.
    layout : tuple
        Name (None: by position) and kind of each input. The kind is the shape and the type of a row
        for a tensor, and the name of the type and the value for anything else.
    """

    channels: int
    layout: tuple[Any, ...]

    def pack(self, x: Tensor, rows: Sequence[Sequence[Any]]) -> Tensor:
        """Append the inputs of N images, each [1, ...], to x [N, C, *spatial] as channels.

        Raises
        ------
        ValueError
            If a value, such as a large integer, does not fit the type of x.
        """
        flat = []
        for one in rows:
            parts = [value.flatten() for value in one if isinstance(value, Tensor)]
            for part in parts:
                if not part.is_floating_point() and not torch.equal(
                    part.to(x.dtype).to(part), part
                ):
                    raise ValueError(f"inputs hold integers that {x.dtype} cannot hold")
            flat.append(torch.cat([part.to(x.dtype) for part in parts] or [x.new_empty(0)]))
        content = torch.stack(flat)  # [N, K]
        pixels = prod(x.shape[2:])
        extra = -(-content.shape[1] // pixels)
        filled = x.new_zeros(len(x), extra * pixels)
        filled[:, : content.shape[1]] = content
        return torch.cat([x, filled.view(len(x), extra, *x.shape[2:])], 1)

    def unpack(self, packed: Tensor) -> tuple[Tensor, list[Any], dict[str, Any]]:
        """Give x, the arguments after it and the arguments by name."""
        x = packed[:, : self.channels]
        rest = packed[:, self.channels :].flatten(1)  # [1, ≥ K]
        arguments: list[Any] = []
        by_name: dict[str, Any] = {}
        start = 0
        for name, (shape, dtype) in self.layout:
            value: Any = dtype  # for a number, the layout has its value here
            if isinstance(shape, torch.Size):
                size = shape.numel()
                value = rest[:, start : start + size].reshape(len(packed), *shape)
                if not dtype.is_floating_point:
                    value = value.to(dtype)
                start += size
            if name is None:
                arguments.append(value)
            else:
                by_name[name] = value
        return x, arguments, by_name


_packing: ContextVar[Packing | None] = ContextVar("packing", default=None)


@contextmanager
def packed_as(used: Packing | None) -> Iterator[None]:
    """Unpack the images of every call of a network by this packing."""
    token = _packing.set(used)
    try:
        yield
    finally:
        _packing.reset(token)


def packing() -> Packing | None:
    """Give the packing of the images in use; None where they have no further inputs."""
    return _packing.get()


def arguments_of(x: Tensor) -> tuple[Tensor, list[Any], dict[str, Any]]:
    """Give the image, the networks' arguments after it and their arguments by name."""
    used = _packing.get()
    return (x, [], {}) if used is None else used.unpack(x)
