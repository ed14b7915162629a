"""The work of a sweep's worker: networks are kept, and the scores of one unit after another."""

import time
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from faigfast.analysis.baselines import rank_by
from faigfast.attribution.attributor import Attributor
from faigfast.data.images import read_hashed
from faigfast.integration.settings import LINE_METHODS
from faigfast.models.fingerprint import fingerprints
from faigfast.models.state import own_type
from faigfast.result import Attribution
from faigfast.sweeps.degradation_levels import Level
from faigfast.sweeps.image_list import GT, ImageFile
from faigfast.sweeps.local_copies import local_copy
from faigfast.sweeps.method_settings import MethodSettings
from faigfast.sweeps.score_files import write_once

PAIRS = 2  # whose networks a worker keeps
# Kinds of failure, which the driver treats differently.
IMAGE, TRANSIENT, PAIR, OUTPUT = "image", "transient", "pair", "output"


@dataclass(frozen=True)
class Task:
    """All that a worker needs for one unit, apart from the pair's networks.

    Parameters
    ----------
    unit : str
        Identity of the unit.
    pair : int
        Number of the pair.
    setting : MethodSettings
        Method and options.
    level : Level
        The degradation.
    images : tuple of ImageFile
        Images of one size; none for methods that look at the weights alone.
    seed : int
        Of the plan.
    scale, channels, alpha
        How images are read.
    names : dict of str to str
        Names of pair, degradation and setting, for readers of the file.
    """

    unit: str
    pair: int
    setting: MethodSettings
    level: Level
    images: tuple[ImageFile, ...]
    seed: int
    scale: int
    channels: int
    alpha: str
    names: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a worker tells of a finished unit: bytes and digest of its file, and its time."""

    size: int
    digest: bytes
    seconds: float


class UnitFailure(Exception):
    """A unit that failed, with its kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind, self.text = kind, text


def read_batch(task: Task, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Read and degrade the images of a unit, in the form that `faigfast.attribute` takes.

    Returns
    -------
    dict
        {"lq": {degradation: [n, C, h, w]}, "gt": [n, C, H, W], "name": [str]}.

    Raises
    ------
    FileNotFoundError, ValueError
        If an image is gone, damaged, or another one than when the sweep listed it.
    """
    x, gt = [], []
    for image in task.images:
        large = _read(image, GT, task)
        height, width = image.size
        large = large[:, :height, :width].contiguous()
        low = height // task.scale, width // task.scale
        if task.level.degradation is None:
            small = _read(image, task.level.name, task)[:, : low[0], : low[1]].contiguous()
        else:
            small = task.level(large, image.hashes[GT], task.seed)
        if small.shape[1:] != low or not small.isfinite().all():
            raise ValueError(
                f"image {image.name!r} as {task.level.name!r} is {list(small.shape)}; expected "
                f"finite values {[task.channels, *low]}"
            )
        x.append(small)
        gt.append(large)
    names = [image.name for image in task.images]
    lq = {task.level.name: torch.stack(x).to(dtype)}
    return {"lq": lq, "gt": torch.stack(gt).to(dtype), "name": names}


def _blank_batch(task: Task, dtype: torch.dtype) -> dict[str, Any]:
    """Give one pixel in place of images, in the form of `read_batch`."""
    x = torch.zeros(1, task.channels, 1, 1, dtype=dtype)
    return {"lq": {task.level.name: x}, "gt": x, "name": []}


def _read(image: ImageFile, role: str, task: Task) -> Tensor:
    """Read one image [C, H, W]."""
    with local_copy(image.files[role]) as path:
        values, digest = read_hashed(path, channels=task.channels, alpha=task.alpha)
    if digest != image.hashes[role]:
        raise ValueError(
            f"image {image.files[role]} has changed since the sweep listed it; expected the same "
            "file until the sweep ends, or another run of it"
        )
    return values


class Loadable(Protocol):
    """Where the networks of a pair come from."""

    @property
    def name(self) -> str:
        """Name of the pair."""

    def load(self) -> tuple[nn.Module, nn.Module]:
        """Give the baseline and the target."""


class UnitComputer:
    """Computes units, keeping the networks of the last pairs and an `Attributor` a setting.

    Parameters
    ----------
    folder : path
        Of the sweep, where the scores are written.
    memory : int, optional
        Budget in bytes for activations, of settings without one of their own.
    """

    def __init__(self, folder: Path, memory: int | None = None) -> None:
        self.folder, self.memory = folder, memory
        self._sources: dict[int, tuple[Loadable, tuple[str, str]]] = {}
        self._pairs: OrderedDict[tuple[int, str], tuple[nn.Module, nn.Module]] = OrderedDict()
        self._attributors: dict[tuple[int, str, str], Attributor] = {}

    def add_pair(self, number: int, source: Loadable, prints: tuple[str, str]) -> None:
        """Tell where the networks of a pair come from, and their fingerprints."""
        self._sources[number] = source, prints

    def knows(self, number: int) -> bool:
        """Whether `add_pair` was called for a pair."""
        return number in self._sources

    def compute(self, task: Task) -> Outcome:
        """Compute a unit and write its scores.

        Raises
        ------
        UnitFailure
            If the images, the networks or the output stand in the way.
        """
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes are kept with the scores
            result = self.attribute(task)
            tensors, metadata = _content(task, result)
            try:
                size, digest = write_once(self.folder, task.unit, tensors, metadata)
            except ValueError as problem:
                raise UnitFailure(OUTPUT, str(problem)) from problem
        return Outcome(size, digest, time.perf_counter() - start)

    def attribute(self, task: Task) -> Attribution:
        """Attribute the images of a unit; errors as `compute`."""
        try:
            pair = self._networks(task)
        except Exception as problem:  # of files, or of the user's own code
            raise UnitFailure(PAIR, _text(problem)) from problem
        place = next(pair[1].parameters()).device
        try:
            batch = (read_batch if task.images else _blank_batch)(task, own_type(pair[1]))
            lq = {name: x.to(place) for name, x in batch["lq"].items()}
            return self._scores(pair, task, {**batch, "lq": lq, "gt": batch["gt"].to(place)})
        except (MemoryError, torch.OutOfMemoryError) as problem:
            raise UnitFailure(TRANSIENT, _text(problem)) from problem
        except (ValueError, TypeError, FloatingPointError, FileNotFoundError) as problem:
            raise UnitFailure(IMAGE, _text(problem)) from problem
        except (OSError, RuntimeError) as problem:
            raise UnitFailure(TRANSIENT, _text(problem)) from problem

    def _scores(
        self, pair: tuple[nn.Module, nn.Module], task: Task, batch: dict[str, Any]
    ) -> Attribution:
        arguments = task.setting.arguments()
        if self.memory is not None and task.images:
            arguments.setdefault("memory", self.memory)
        if task.setting.method not in LINE_METHODS:
            return rank_by(task.setting.method, *pair, batch, **arguments)
        key = (task.pair, task.setting.device, task.setting.name)
        if key not in self._attributors:
            self._attributors[key] = Attributor(*pair, **arguments)
        return self._attributors[key](batch)

    def _networks(self, task: Task) -> tuple[nn.Module, nn.Module]:
        key = (task.pair, task.setting.device)
        if key not in self._pairs:
            source, prints = self._sources[task.pair]
            baseline, target = source.load()
            if tuple(fingerprints(baseline, target)) != tuple(prints):
                raise ValueError(
                    f"the weights of pair {source.name!r} have changed since the sweep listed them"
                )
            device = torch.device(task.setting.device)
            while len(self._pairs) >= PAIRS:
                old, _ = self._pairs.popitem(last=False)
                for used in [used for used in self._attributors if used[:2] == old]:
                    del self._attributors[used]
            self._pairs[key] = baseline.to(device), target.to(device)
        self._pairs.move_to_end(key)
        return self._pairs[key]


def _content(task: Task, result: Attribution) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give the tensors and the metadata of a unit's file."""
    name = task.level.name
    tensors = {
        "scores": result.by_degradation[name],  # [n, F]
        "scored": result.scored,  # [F]
        "losses": result.losses[0],  # [n, 2]
        "completeness": result.completeness[0],  # [n]
        "error": result.error[0],  # [n]
        "points": result.points[0],  # [n]
        "barrier": result.barrier[0],  # [n]
    }
    # Rows of one element keep the strides of their matrix, which files do not take.
    tensors = {key: x.clone(memory_format=torch.contiguous_format) for key, x in tensors.items()}
    metadata: Mapping[str, Any] = {
        **task.names,
        "images": [image.identity for image in task.images],
        "names": [image.name for image in task.images],
        "backend": result.backend,
        "precision": result.precision,
        "notes": list(result.notes),
    }
    return tensors, dict(metadata)


def _text(problem: BaseException) -> str:
    return " ".join(str(problem).split()) or type(problem).__name__
