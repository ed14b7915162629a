"""One image of a run: its tensors, those of equal shapes, and its name in errors."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Image:
    """One degraded image [C, *spatial] and its ground truth [...]."""

    name: str
    x: Tensor
    gt: Tensor


def alike(images: Sequence[Image]) -> Iterable[list[int]]:
    """Group images whose tensors have equal shapes."""
    groups: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault((image.x.shape, image.gt.shape), []).append(place)
    return groups.values()


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put the place before the message of an error about a value."""
    try:
        yield
    except (ValueError, TypeError) as problem:
        raise named(place, problem) from problem


def named(place: str, problem: Exception) -> Exception:
    """Give an error about a value with the place before its message."""
    kind = TypeError if isinstance(problem, TypeError) else ValueError
    return kind(f"{place}: {problem}")
