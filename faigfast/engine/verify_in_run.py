"""Doubts: what a new plan has yet to show, and the way out where it does not."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from faigfast.engine.verify import failed


class PointByPoint(Exception):
    """The engine cannot serve a network; the message says why."""


@dataclass(frozen=True)
class Doubts:
    """What a plan has yet to show when it is run; each raises `PointByPoint` if it does not.

    Parameters
    ----------
    ends : callable, optional
        Takes L(θ̄) and L(θ) of the first image.
    part : callable, optional
        Takes weight and loss of the first part of the run, one point, and the sums then.
    """

    ends: Callable[[tuple[float, float]], None] | None = None
    part: Callable[[float, Tensor, Mapping[str, Tensor]], None] | None = None


@contextmanager
def doubted() -> Iterator[None]:
    """Go point by point where something fails; if the network fails too, it will say so there."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:
        raise PointByPoint(failed(problem)) from problem
