"""Dry run: what a plan would compute, how many bytes, and how long by a measurement."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from faigfast.io.progress import duration
from faigfast.io.text_table import counted
from faigfast.sweeps.catalogue import Catalogue
from faigfast.sweeps.engines import Engine
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.image_list import ImageFile
from faigfast.sweeps.ledger import DONE, read_records
from faigfast.sweeps.local import worker_count
from faigfast.sweeps.plan import PathLike, Plan
from faigfast.sweeps.units import Grid
from faigfast.sweeps.worker import UnitComputer, UnitFailure

MEASURED = 3  # images
BYTES_OF_UNIT = 2500  # of a file beside its scores


@dataclass(frozen=True)
class DryRun:
    """What a plan would compute.

    Parameters
    ----------
    pairs, degradations, settings, images : int
        Of the grid.
    refused : dict of str to str
        Why an image cannot be used, by name.
    units, finished : int
        Of the plan, and the ones among them that the output holds.
    bytes : int
        Of the files that are still to be written.
    seconds : float
        Of the units that are left, by the measurement of three images.
    workers : int
        That share the seconds.
    notes : tuple of str
        About the images.
    """

    pairs: int
    degradations: int
    settings: int
    images: int
    refused: dict[str, str]
    units: int
    finished: int
    bytes: int
    seconds: float
    workers: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        """Say it in a few lines."""
        grid = " × ".join(
            counted(getattr(self, f"{noun}s"), noun)
            for noun in ("pair", "degradation", "setting", "image")
        )
        left = self.units - self.finished
        lines = [
            grid,
            f"{counted(self.units, 'unit')}, {self.finished} finished, {left} to compute",
            f"{self.bytes / 1e6:.3g} MB to write",
            f"about {duration(self.seconds)} with {counted(self.workers, 'worker')}, by a "
            f"measurement of {min(MEASURED, self.images)} images",
            *self.notes,
        ]
        if self.refused:
            name = next(iter(self.refused))
            lines.append(
                f"{counted(len(self.refused), 'image')} cannot be used: {self.refused[name]}"
            )
        return "\n".join(lines)


def dry_run(
    plan: Plan | Mapping[str, Any] | PathLike,
    output: PathLike | None = None,
    *,
    workers: int | None = None,
) -> DryRun:
    """Read all files of a plan, count its units and measure three images; nothing is written.

    Parameters
    ----------
    plan : Plan, mapping or path
        As in `faigfast.sweep`.
    output : path-like, optional
        Folder of a sweep whose finished units do not count.
    workers : int, optional
        Number of workers of this machine that would share the work.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError, ImportError
        As `faigfast.sweep`; ValueError too if none of the three images can be computed.
    """
    plan = Plan.of(plan)
    Engine("local", workers).check(plan.chosen_settings())
    # A folder that does not exist has neither catalogue nor records.
    folder = Path(output) if output is not None else Path("")
    known = folder if (folder / "plan.json").is_file() else None
    grid = Grid(plan, Catalogue(known or folder / "none"), FileCache(known))
    records = read_records(known or folder / "none")
    states = {record["id"].tobytes(): int(record["state"]) for record in records}
    units = finished = octets = 0
    left: Counter[tuple[int, tuple[int, int]]] = Counter()  # images by setting and size
    for whole in grid.units():
        for unit in grid.leaves(whole, lambda one: states.get(one.key, DONE) != DONE):
            units += 1
            if unit.key in states:
                finished += 1
                continue
            images = grid.images_of(unit.shard)
            filters = len(grid.pairs[unit.pair].index)
            if not images:  # scores of weights in float64; their time does not count
                octets += filters * 8 + filters + BYTES_OF_UNIT
                continue
            octets += len(images) * filters * 4 + filters + BYTES_OF_UNIT
            left[unit.setting, images[0].size] += len(images)
    clock = _Clock(grid)
    seconds = sum(n * clock.seconds(*key) for key, n in left.items())
    count = max(1, worker_count(workers, 1))
    return DryRun(
        pairs=len(grid.pairs),
        degradations=len(grid.degradations),
        settings=len(grid.settings),
        images=len(grid.images),
        refused=grid.listed.refused,
        units=units,
        finished=finished,
        bytes=octets,
        seconds=seconds / count,
        workers=count,
        notes=tuple(grid.listed.notes),
    )


class _Clock:
    """Times of single images by setting and size, between the sizes that were measured."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._computer = UnitComputer(Path())
        by_size = sorted(grid.images.values(), key=_pixels)
        places = {0, len(by_size) // 2, len(by_size) - 1}
        self._images = [by_size[place] for place in sorted(places)]
        self._times: dict[int, list[float]] = {}

    def seconds(self, setting: int, size: tuple[int, int]) -> float:
        """Time of one image."""
        if setting not in self._times:
            self._time(self._images[0], setting)  # the first call prepares the networks
            self._times[setting] = [self._time(image, setting) for image in self._images]
        pixels = [_pixels(image) for image in self._images]
        return float(np.interp(size[0] * size[1], pixels, self._times[setting]))

    def _time(self, image: ImageFile, setting: int) -> float:
        grid = self._grid
        shard = next(n for n in grid.shards if image in grid.images_of(n))
        pair, degradation = next(iter(grid.pairs)), grid.degradations_of(shard)[0]
        task = replace(grid.task(grid.unit(pair, degradation, setting, shard)), images=(image,))
        source = grid.pairs[pair]
        self._computer.add_pair(pair, source.source, source.prints)
        threads = torch.get_num_threads()
        torch.set_num_threads(task.setting.resources.threads)
        start = time.perf_counter()
        try:
            self._computer.attribute(task)
        except UnitFailure as failure:
            raise ValueError(f"image {image.name!r} was measured: {failure.text}") from failure
        finally:
            torch.set_num_threads(threads)
        return time.perf_counter() - start


def _pixels(image: ImageFile) -> int:
    return image.size[0] * image.size[1]
