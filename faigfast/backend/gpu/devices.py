"""Several devices of one machine: one process for each device attributes parts of the batches."""

import copy
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import connection, get_context
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from faigfast.integration.batch import Batch, batches
from faigfast.io.text_table import counted
from faigfast.models.state import unwrap
from faigfast.result import Attribution

Run = Callable[..., Attribution]
GUARD = (
    "a script that uses several devices begins its work under `if __name__ == '__main__':`, since "
    "their processes read it"
)
KINDS = {kind.__name__: kind for kind in (ValueError, TypeError)}  # others are RuntimeError


def known_devices(devices: Any) -> list[torch.device]:
    """Check and resolve the argument `devices`.

    Parameters
    ----------
    devices : "all" or sequence of str or torch.device
        "all" means every GPU; a device that is named twice gets two processes.

    Raises
    ------
    TypeError, ValueError
        If they are no devices, of several types, or absent.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if devices == "all":
        devices = [f"cuda:{n}" for n in range(gpus)]
        if not devices:
            raise ValueError("devices is 'all', and torch finds no GPU here")
    if isinstance(devices, str) or not isinstance(devices, Iterable):
        raise TypeError(f"devices is {devices!r}; expected 'all' or names such as ['cuda:0']")
    try:
        resolved = [torch.device(device) for device in devices]
    except (RuntimeError, TypeError) as problem:
        reason = (str(problem).splitlines() or [""])[0]
        raise ValueError(f"devices is {list(devices)!r}: {reason}") from None
    resolved = [torch.device("cuda:0") if str(d) == "cuda" else d for d in resolved]
    types = sorted({device.type for device in resolved})
    if len(types) != 1:
        raise ValueError(f"devices is {list(devices)!r}; expected some, all of one type")
    missing = [d for d in resolved if d.type == "cuda" and d.index >= gpus]
    if missing:
        raise ValueError(f"devices holds {str(missing[0])!r}, and torch finds {gpus} GPUs here")
    return resolved


def attribute_on_devices(
    devices: Any,
    model_a: nn.Module,
    model_b: nn.Module,
    batch: Any,
    run: Run,
    options: dict[str, Any],
    progress: bool = False,
) -> Attribution:
    """Attribute the images of batches on several devices; results come in the images' order.

    Parameters
    ----------
    devices
        As in `known_devices`.
    model_a, model_b, batch
        As in `faigfast.attribute`, on any device.
    run : callable
        `faigfast.attribute`.
    options : dict
        Its other arguments.
    progress : bool
        Show a progress bar in images.

    Raises
    ------
    ValueError, TypeError
        As `faigfast.attribute`, with the device's name; or if something cannot be sent to another
        process.
    RuntimeError
        If a device's process fails otherwise, or ends.
    """
    resolved = known_devices(devices)
    first = next(unwrap(model_b, "model_b").parameters(), None)
    placement = (
        (torch.device("cpu"), torch.float32) if first is None else (first.device, first.dtype)
    )
    parts: list[Attribution] = []
    with (
        Devices(resolved, model_a, model_b, run, options) as pool,
        tqdm(unit="image", disable=not progress, leave=None) as bar,
    ):
        for part in pool.map(_shares(batches(batch, *placement), len(resolved))):
            parts.append(part)
            bar.update(part.images)
            if not options.get("per_image", True):
                parts = [parts[0].merge(parts[1:])]
        counts = ", ".join(f"{d} {counted(n, 'image')}" for d, n in pool.images)
    result = parts[0].merge(parts[1:])
    return replace(result, notes=(*result.notes, f"devices: {counts}"))


def _shares(parts: Iterable[Batch], devices: int) -> Iterator[Batch]:
    """Cut batches into contiguous runs of images, one for each device."""
    for part in parts:
        count = min(devices, part.images)
        edges = [part.images * n // count for n in range(count + 1)]
        for start, end in pairwise(edges):
            yield _copy_images(part, slice(start, end))


def _copy_images(part: Batch, images: slice) -> Batch:
    """Copy some images: pickling a view would send all of its memory."""
    sides = (part.lq, part.gt)
    return Batch(*({k: v[images].detach().cpu().clone() for k, v in s.items()} for s in sides))


@dataclass
class _Worker:
    """A device, its process, and the numbers of its current part and that part's first image."""

    name: str
    process: Any
    pipe: Any
    part: int | None = None
    start: int = 0
    images: int = 0


class Devices:
    """One process for each device, which attributes batches.

    Parameters
    ----------
    devices : sequence of torch.device
        From `known_devices`.
    model_a, model_b : nn.Module
        Baseline and target; every device gets a copy.
    run : callable
        Takes the networks, a batch and the options; the other process imports it by name.
    options : dict
        Of `run`.

    Raises
    ------
    ValueError
        If networks or options cannot be sent to another process.
    """

    def __init__(
        self,
        devices: Sequence[torch.device],
        model_a: nn.Module,
        model_b: nn.Module,
        run: Run,
        options: dict[str, Any],
    ) -> None:
        pair = [
            copy.deepcopy(unwrap(net, name)).cpu()
            for net, name in ((model_a, "model_a"), (model_b, "model_b"))
        ]
        try:
            self.arguments = pickle.dumps((pair, run, options))
        except (pickle.PicklingError, AttributeError, TypeError) as problem:
            raise ValueError(
                f"the networks or settings cannot be sent to another process: {problem}; expected "
                "classes and functions that a module defines"
            ) from None
        self.devices = list(devices)
        # With a measured precision, all devices use the one measured for the first image.
        self.settle = options.get("precision", "auto") == "auto" and devices[0].type != "cpu"
        self.workers: list[_Worker] = []

    def __enter__(self) -> "Devices":
        """Start the processes."""
        context = get_context("spawn")  # a forked process cannot use a GPU
        sharing = len(self.devices) if self.devices[0].type == "cpu" else 1
        threads = max(1, torch.get_num_threads() // sharing)
        for device in self.devices:
            own, other = context.Pipe()
            process = context.Process(
                target=_serve, args=(other, str(device), threads), daemon=True
            )
            process.start()
            other.close()
            self.workers.append(_Worker(str(device), process, own))
        for worker in self.workers:
            self._send(worker, self.arguments)
        return self

    def __exit__(self, *failure: object) -> None:
        """End the processes, busy or not."""
        for worker in self.workers:
            worker.process.terminate()
        for worker in self.workers:
            worker.process.join()
            worker.pipe.close()

    @property
    def images(self) -> list[tuple[str, int]]:
        """Number of images that each device has attributed."""
        return [(worker.name, worker.images) for worker in self.workers]

    def map(self, parts: Iterable[Batch]) -> Iterator[Attribution]:
        """Attribute batches; yield each result, in the order of batches, as soon as possible.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            The error of a device, with its name, and images counted over all batches.
        """
        tasks = self._numbered(parts)
        done: dict[int, Attribution] = {}
        settled: dict[str, str] = {}
        following, given, more = 0, 0, True
        while more or given > following:
            idle = [worker for worker in self.workers if worker.part is None]
            if self.settle and not settled and given:
                idle = []
            while idle and more:
                task = next(tasks, None)
                more = task is not None
                if task is not None:
                    worker = idle.pop(0)
                    worker.part, worker.start = given, task[0]
                    self._send(worker, pickle.dumps((task[1], settled)))
                    given += 1
                    if self.settle and not settled:
                        break
            if given > following and following not in done:
                for number, result in self._answers():
                    done[number] = result
                    if self.settle and not settled:
                        settled["precision"] = result.precision
            while following in done:
                yield done.pop(following)
                following += 1

    def _numbered(self, parts: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
        """Pair every part with the number of its first image; `settle` puts image 0 apart."""
        start = 0
        for part in parts:
            alone = self.settle and start == 0 and part.images > 1
            for images in (slice(1), slice(1, None)) if alone else (slice(None),):
                piece = _copy_images(part, images)
                yield start, piece
                start += piece.images

    def _answers(self) -> Iterator[tuple[int, Attribution]]:
        """Wait for results of at least one device; raise a device's error with its name."""
        busy = {worker.pipe: worker for worker in self.workers if worker.part is not None}
        for pipe in connection.wait(list(busy)):
            worker = busy[pipe]
            try:
                kind, content = pickle.loads(worker.pipe.recv_bytes())
            except (EOFError, OSError):
                raise self._ended(worker) from None
            if kind != "done":
                image = re.search(r"(?<=image )\d+(?=:)", content)  # of this part
                text = content
                if image:
                    number = worker.start + int(image[0])
                    text = f"{content[: image.start()]}{number}{content[image.end() :]}"
                raise KINDS.get(kind, RuntimeError)(f"{worker.name}: {text}")
            done, worker.part = worker.part, None
            assert done is not None
            worker.images += content.images
            yield done, content

    def _send(self, worker: _Worker, content: bytes) -> None:
        try:
            worker.pipe.send_bytes(content)
        except (BrokenPipeError, OSError):
            raise self._ended(worker) from None

    @staticmethod
    def _ended(worker: _Worker) -> RuntimeError:
        worker.process.join(5)
        return RuntimeError(
            f"{worker.name}: its process ended with exit code {worker.process.exitcode}; {GUARD}"
        )


def _serve(pipe: Any, name: str, threads: int) -> None:
    """Attribute batches from the pipe on one device; runs in a process of its own."""
    torch.set_num_threads(threads)
    device = torch.device(name)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        pair, run, options = pickle.loads(pipe.recv_bytes())
        pair = [net.to(device) for net in pair]
        while True:
            part, settled = pickle.loads(pipe.recv_bytes())
            moved = Batch(
                *({k: v.to(device) for k, v in side.items()} for side in (part.lq, part.gt))
            )
            result = run(*pair, {"lq": moved.lq, "gt": moved.gt}, **{**options, **settled})
            pipe.send_bytes(pickle.dumps(("done", result)))
    except (EOFError, KeyboardInterrupt):  # the parent is done, or reports the interrupt
        os._exit(0)
    except BaseException as problem:
        kind = next((k for k, v in KINDS.items() if isinstance(problem, v)), type(problem).__name__)
        text = str(problem) if kind in KINDS else f"{type(problem).__name__}: {problem}"
        pipe.send_bytes(pickle.dumps((kind, text)))
