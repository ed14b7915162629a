"""Passes of a 64→64 layer by one contender, timed by replays of graphs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..graph_timing import replay_seconds, sets_for, spread
from ..layers import BOUND, PASSES, SHAPES, PathLayer, poison, require
from ..outcomes import StepFailedError


def steps(who: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """One step a shape and pass.

    Parameters
    ----------
    who : str
        `torch`: point by point through torch; `cudnn`: one call of cuDNN for all samples with the
        weights of one point, which no line of several weights can use; `triton`, `cuda`, `hopper`.
    """
    require(who)
    torch.backends.cudnn.benchmark = True
    return {
        f"{part}, {name}": partial(measure, who, part, shape)
        for name, shape in SHAPES.items()
        for part in PASSES
    }


def measure(who: str, part: str, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Compare one pass with float64, then time it.

    Raises
    ------
    StepFailedError
        If the error is above the bound; there is no speed then.
    """
    layer = PathLayer(shape, seed=0)
    layer.served(part, who)
    figures: dict[str, Any] = {"flops": layer.flops, "bytes": layer.bytes}
    if who != "cudnn":
        poison()
        figures["error"] = layer.error(part, who)
        if not figures["error"] <= BOUND:
            raise StepFailedError(f"the error is over the bound of {BOUND:g}", figures)
    layers = [PathLayer(shape, seed) for seed in range(sets_for(layer.bytes))]
    calls = [partial(one.run, part, who) for one in layers]
    return figures | spread(replay_seconds(calls)) | {"sets": len(calls)}
