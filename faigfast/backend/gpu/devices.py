"""Several devices of one machine: one process for each device attributes parts of the batches."""

import copy
import os
import pickle
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from multiprocessing import active_children, get_context, parent_process
from threading import Thread
from typing import Any

import torch
from torch import nn

from faigfast.integration.batch import Batch, batches
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import counted
from faigfast.models.state import unwrap
from faigfast.result import Attribution

Run = Callable[..., Attribution]
GUARD = (
    "a script that uses several devices begins its work under `if __name__ == '__main__':`, since "
    "their processes read it"
)


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
        progress_bar(unit="image", disable=not progress, leave=None) as bar,
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
    lq, gt = ({k: v[images].detach().cpu().clone() for k, v in s.items()} for s in sides)
    names = None if part.names is None else part.names[images]
    inputs = {
        name: value.map(lambda v: v[images].detach().cpu().clone())
        for name, value in part.inputs.items()
    }
    return Batch(lq, gt, names, inputs)


@dataclass
class _Worker:
    """A device, the pool of its one process, and the images that it has attributed."""

    name: str
    pool: ProcessPoolExecutor
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
        """Make a pool of one process for each device; processes start with their first batch."""
        self._others = set(active_children())
        context = get_context("spawn")  # a forked process cannot use a GPU
        sharing = len(self.devices) if self.devices[0].type == "cpu" else 1
        threads = max(1, torch.get_num_threads() // sharing)
        for device in map(str, self.devices):
            arguments = (self.arguments, device, threads)
            pool = ProcessPoolExecutor(1, context, _open_device, arguments)
            self.workers.append(_Worker(device, pool))
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        """End the processes: those that may be busy at once, others when they are done."""
        if kind is not None:
            for process in set(active_children()) - self._others:
                process.kill()
        for worker in self.workers:
            worker.pool.shutdown(cancel_futures=True)

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
        idle, running = list(self.workers), dict[Future[Attribution], tuple[_Worker, int, int]]()
        done: dict[int, Attribution] = {}
        settled: dict[str, str] = {}
        given = following = 0
        while True:
            first_measures = self.settle and not settled
            while idle and not (first_measures and given):
                task = next(tasks, None)
                if task is None:
                    break
                start, part = task
                with _without_interrupts():
                    future = idle[0].pool.submit(_attribute, part, settled)
                running[future] = (idle.pop(0), given, start)
                given += 1
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, number, start = running.pop(future)
                result = done[number] = _result(future, worker.name, start)
                worker.images += result.images
                idle.append(worker)
                if self.settle:
                    settled.setdefault("precision", result.precision)
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


def _result(future: Future[Attribution], device: str, start: int) -> Attribution:
    """Give the result of a process, or raise its error with the device's name.

    Images in the message are counted from `start`, the first image of the part.
    """
    try:
        return future.result()
    except BrokenProcessPool:
        raise RuntimeError(f"{device}: its process ended; {GUARD}") from None
    except Exception as problem:
        expected = isinstance(problem, (ValueError, TypeError))
        text = str(problem) if expected else f"{type(problem).__name__}: {problem}"
        text = re.sub(r"(?<=image )\d+(?=:)", lambda n: str(start + int(n[0])), text, count=1)
        kind = ValueError if isinstance(problem, ValueError) else TypeError
        raise (kind if expected else RuntimeError)(f"{device}: {text}") from problem


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM here, and in processes and threads that start here.

    A terminal sends Ctrl-C to all processes; the parent alone reports it, and ends the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In a device's process: its device, and the networks and options, pickled until the first batch.
_here: dict[str, Any] = {}


def _open_device(arguments: bytes, name: str, threads: int) -> None:
    """Prepare the process of a device."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _here.update(arguments=arguments, device=torch.device(name))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _attribute(part: Batch, settled: dict[str, str]) -> Attribution:
    """Attribute a batch in the process of a device."""
    device = _here["device"]
    if "run" not in _here:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        pair, run, options = pickle.loads(_here.pop("arguments"))
        _here["run"] = partial(run, *(net.to(device) for net in pair))
        _here["options"] = options
    lq, gt = ({k: v.to(device) for k, v in side.items()} for side in (part.lq, part.gt))
    inputs = {k: v.map(lambda value: value.to(device)) for k, v in part.inputs.items()}
    batch = {
        "lq": lq,
        "gt": gt,
        "name": part.names,
        "inputs": Batch(lq, gt, None, inputs).given_inputs,
    }
    return _here["run"](batch, **{**_here["options"], **settled})
