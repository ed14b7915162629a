"""Pending checks of a new plan in its first run, and the way out where one fails."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from faigfast.engine.verify import failed


class PointByPoint(Exception):
    """The engine cannot serve a network; the message says why."""


@dataclass(frozen=True)
class PendingChecks:
    """Checks of a plan in its first run; each raises `PointByPoint` if it fails.

    Parameters
    ----------
    end_losses : callable, optional
        Takes L(θ̄) and L(θ) of the first image.
    first_chunk : callable, optional
        Takes weight and loss of the first chunk of the run, one point, and its gradients.
    """

    end_losses: Callable[[tuple[float, float]], None] | None = None
    first_chunk: Callable[[float, Tensor, Mapping[str, Tensor]], None] | None = None


@contextmanager
def falling_back(kind: type[Exception] = Exception) -> Iterator[None]:
    """Turn an error into `PointByPoint`; a network that fails by itself raises it again there."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except kind as problem:
        raise PointByPoint(failed(problem)) from problem
