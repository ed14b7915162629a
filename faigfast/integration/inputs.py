"""Further inputs of the networks, beside the image: noise levels, maps, kernels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from faigfast.models.state import unusual_kind


@dataclass(frozen=True)
class Inputs:
    """Inputs of the images of a batch, in the order of the call.

    Parameters
    ----------
    names : tuple of str or None
        Argument names; None: by position, after x.
    values : tuple of Tensor or number
        [N, ...], one row for each image; numbers are the same for all images.
    """

    names: tuple[str | None, ...]
    values: tuple[Any, ...]

    @classmethod
    def read(cls, given: Any, images: int, device: torch.device) -> "Inputs | None":
        """Read `inputs` of a batch of N images.

        Raises
        ------
        TypeError
            If `given` is neither a tuple, a list nor a mapping of tensors and numbers.
        ValueError
            If a tensor does not have one row of finite values for each image, or is on another
            device.
        """
        if given is None:
            return None
        if isinstance(given, Mapping):
            names, values = tuple(given), tuple(given.values())
            if not all(isinstance(name, str) for name in names):
                raise TypeError(f"inputs has the keys {list(names)}; expected names of arguments")
        elif isinstance(given, tuple | list):
            names, values = (None,) * len(given), tuple(given)
        else:
            raise TypeError(
                f"inputs is a {type(given).__name__}; expected a tuple, or a mapping by name"
            )
        for place, value in zip(names, values, strict=True):
            whose = f"inputs[{place!r}]" if place is not None else "a tensor of inputs"
            _check(value, whose, images, device)
        return cls(names, values) if values else None

    @property
    def given(self) -> Any:
        """Give the form that `read` takes."""
        if None in self.names:
            return self.values
        return dict(zip(self.names, self.values, strict=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Inputs":
        """Change every tensor."""
        values = (change(v) if isinstance(v, Tensor) else v for v in self.values)
        return Inputs(self.names, tuple(values))

    def of_image(self, n: int) -> "Inputs":
        """Give the inputs of one image: rows [1, ...]."""
        return self.map(lambda value: value[n : n + 1].detach())

    @property
    def layout(self) -> tuple[Any, ...]:
        """Layout of `Packing`: images with equal layouts run together."""
        parts = (
            (v.shape[1:], v.dtype) if isinstance(v, Tensor) else (type(v).__name__, v)
            for v in self.values
        )
        return tuple(zip(self.names, parts, strict=True))


def _check(value: Any, whose: str, images: int, device: torch.device) -> None:
    if isinstance(value, bool | Real | str) or value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{whose} is a {type(value).__name__}; expected a tensor or a number")
    if (kind := unusual_kind(value)) or value.is_complex():
        raise ValueError(f"{whose} is {kind or 'complex'}; expected a dense tensor with values")
    if value.ndim == 0 or len(value) != images:
        raise ValueError(
            f"{whose} is {list(value.shape)}; expected one row for each of {images} images (a "
            "number is the same for all)"
        )
    if value.device != device:
        raise ValueError(f"{whose} is on {value.device}; expected {device}, as the networks are")
    if value.is_floating_point() and not value.isfinite().all():
        raise ValueError(f"{whose} holds values that are not finite")
