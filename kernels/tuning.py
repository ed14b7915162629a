"""The tile of a matrix kernel, by device and shape: timed once, within a bound, and remembered."""

from collections.abc import Callable, Sequence

import torch
import triton

from faigfast.backend.gpu.timed_choices import Candidate, Choices, device_name
from faigfast.kernels.launch import Tile


def named(device: torch.device) -> str:
    """Name a device and the compiler, since a choice holds for these alone."""
    return f"{device_name(device)}, triton {triton.__version__}"


TILES = Choices("triton.json", seconds=3.0, altogether=60.0, name=named)


def shape_key(kernel: str, mode: str, **sizes: object) -> str:
    """Name a kernel and a shape; how many pixels and points there are counts by powers of two."""
    parts = [f"{name}={value}" for name, value in sizes.items()]
    return " ".join([kernel, mode, *parts])


def chosen(
    key: str,
    device: torch.device,
    candidates: Sequence[Tile],
    attempt: Callable[[Tile], object],
) -> Tile:
    """Take the fastest of some tiles, or the first where nothing can be timed.

    Parameters
    ----------
    key : str
        From `shape_key`.
    device : torch.device
        Where the kernel runs.
    candidates : sequence of Tile
        The first must run on every device.
    attempt : callable
        Runs the kernel with a tile, into memory that is overwritten later.
    """
    if not TILES.times(device):
        return candidates[0]

    def run(tile: Tile) -> Callable[[], object]:
        return lambda: attempt(tile)

    ways = [Candidate(str(tile), tile, run(tile)) for tile in candidates]
    return TILES.chosen(device, key, ways)[0]
