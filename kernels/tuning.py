"""The fastest tile of a matrix kernel by device and shape: timed once, within a time limit."""

from collections.abc import Callable, Sequence

import torch
import triton

from faigfast.backend.gpu.timed_choices import Candidate, TimedChoices, device_name
from faigfast.kernels.launch import Tile


def device_and_compiler(device: torch.device) -> str:
    """Name a device and the compiler; a choice holds only for the two."""
    return f"{device_name(device)}, triton {triton.__version__}"


TILES = TimedChoices("triton.json", seconds=3.0, altogether=60.0, name=device_and_compiler)


def shape_key(kernel: str, mode: str, **sizes: object) -> str:
    """Name a kernel and a shape; callers round pixels and points to powers of two."""
    parts = [f"{name}={value}" for name, value in sizes.items()]
    return " ".join([kernel, mode, *parts])


def chosen(
    key: str,
    device: torch.device,
    candidates: Sequence[Tile],
    attempt: Callable[[Tile], object],
) -> Tile:
    """Take the fastest candidate, or the first on devices without timing.

    Parameters
    ----------
    key : str
        From `shape_key`.
    device : torch.device
        Device of the kernel.
    candidates : sequence of Tile
        The first must run on every device.
    attempt : callable
        Runs the kernel with a tile, on output memory that a later run overwrites.
    """
    if not TILES.times(device):
        return candidates[0]

    def run(tile: Tile) -> Callable[[], object]:
        return lambda: attempt(tile)

    ways = [Candidate(str(tile), tile, run(tile)) for tile in candidates]
    return TILES.chosen(device, key, ways)[0]
