"""The tile of a matrix kernel, by device and shape: timed once, within a bound, and remembered."""

import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import triton

from faigfast.files import write_json
from faigfast.kernels.launch import Tile

SECONDS = 3.0  # for one shape; candidates that were not reached are left out
ALTOGETHER = 60.0  # for one process; then the first candidate is taken
ROUNDS = 5

_known: dict[str, dict[str, Tile]] = {}
_spent = 0.0


def cache_file() -> Path:
    """Where choices are kept: FAIGFAST_CACHE, or the user's cache folder."""
    own = os.environ.get("FAIGFAST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own or Path(base) / "faigfast") / "triton.json"


def device_key(device: torch.device) -> str:
    """Name a device and the compiler, since a choice holds for these alone."""
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} sm_{found.major}{found.minor}, triton {triton.__version__}"


def shape_key(kernel: str, mode: str, **sizes: object) -> str:
    """Name a kernel and a shape; how many pixels and points there are counts by powers of two."""
    parts = [f"{name}={value}" for name, value in sizes.items()]
    return " ".join([kernel, mode, *parts])


def rounded(count: int) -> int:
    """Give the power of two from `count` on."""
    return int(triton.next_power_of_2(count))


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
    if device.type != "cuda" or os.environ.get("FAIGFAST_TUNE") == "0":
        return candidates[0]
    own = device_key(device)
    known = _known.setdefault(own, _read().get(own, {}))
    if key not in known:
        if _spent > ALTOGETHER or torch.cuda.is_current_stream_capturing():
            return candidates[0]
        known[key] = _fastest(candidates, attempt)
        _write(own, known)
    return known[key]


def _fastest(candidates: Sequence[Tile], attempt: Callable[[Tile], object]) -> Tile:
    global _spent
    start = time.perf_counter()
    best, least = candidates[0], float("inf")
    for tile in candidates:
        try:
            found = _seconds(lambda tile=tile: attempt(tile))  # type: ignore[misc]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # too large for this device
            continue
        if found < least:
            best, least = tile, found
        if time.perf_counter() - start > SECONDS:
            break
    _spent += time.perf_counter() - start
    return best


def _seconds(run: Callable[[], object]) -> float:
    """Median of a few runs, by events of the device."""
    run()  # compiles
    times = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def _read() -> dict[str, dict[str, Tile]]:
    """All choices that were kept; a file that cannot be read is as good as none."""
    try:
        content = json.loads(cache_file().read_text())
        return {
            device: {key: Tile(**tile) for key, tile in tiles.items()}
            for device, tiles in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write(device: str, tiles: dict[str, Tile]) -> None:
    file = cache_file()
    everything = _read()
    everything[device] = {**everything.get(device, {}), **tiles}
    content = {
        name: {key: asdict(tile) for key, tile in sorted(found.items())}
        for name, found in sorted(everything.items())
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    except (OSError, ValueError):  # a folder that cannot be written costs time at the next start
        pass


def described() -> dict[str, dict[str, str]]:
    """Write out the choices that are kept: device → shape → tile."""
    return {
        device: {
            key: f"{tile.m} × {tile.n} × {tile.k}, {tile.warps} warps, {tile.stages} stages, "
            f"γ formed {'before' if tile.formed else 'in the kernel'}"
            for key, tile in sorted(found.items())
        }
        for device, found in sorted(_read().items())
    }
