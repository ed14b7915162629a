"""NamedImage: the tensors of one image and its name in errors; images grouped by shape."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from faigfast.integration.inputs import Inputs


@dataclass(frozen=True)
class NamedImage:
    """One degraded image [C, *spatial] and its ground truth [...]."""

    name: str
    x: Tensor
    gt: Tensor
    inputs: Inputs | None = None


def group_by_shape(images: Sequence[NamedImage]) -> Iterable[list[int]]:
    """Give the positions of images in groups whose tensors have equal shapes."""
    groups: dict[Any, list[int]] = {}
    for position, image in enumerate(images):
        layout = image.inputs and image.inputs.layout
        groups.setdefault((image.x.shape, image.gt.shape, layout), []).append(position)
    return groups.values()


@contextmanager
def name_in_errors(name: str) -> Iterator[None]:
    """Put a name before the message of any ValueError or TypeError."""
    try:
        yield
    except (ValueError, TypeError) as problem:
        raise named_error(name, problem) from problem


def named_error(name: str, problem: Exception) -> Exception:
    """Give a ValueError or TypeError with a name before its message."""
    kind = TypeError if isinstance(problem, TypeError) else ValueError
    return kind(f"{name}: {problem}")
