"""Workers as actors of Ray, on this machine or on a cluster."""

import logging
import os
import pickle
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faigfast.sweeps.local import DIED, DONE, FAILED, READY, Event
from faigfast.sweeps.method_settings import MethodSettings, Resources
from faigfast.sweeps.pair_list import Pair
from faigfast.sweeps.selection import PLAN
from faigfast.sweeps.worker import Task, UnitComputer, UnitFailure

OLDEST = (2, 40)
INSTALL = "pip install 'faigfast[sweep]'"
PATIENCE = 10.0  # seconds until a cluster must have answered
STORED = 3  # pairs whose networks the object store keeps
PORTS = {"ray://": 10001, "": 6379}  # where an address names none


@dataclass(frozen=True)
class StoredPair:
    """A pair in the object store, which a worker loads once."""

    name: str
    reference: list[Any]  # in a list, since Ray would fetch a bare reference at every call

    def load(self) -> tuple[nn.Module, nn.Module]:
        """Fetch the networks."""
        return pickle.loads(_ray().get(self.reference[0]))


class Computer:
    """What an actor runs: one unit after another."""

    def __init__(self, folder: Path, threads: int, memory: int | None, path: list[str]) -> None:
        sys.path[:] = list(dict.fromkeys([*path, *sys.path]))
        torch.set_num_threads(threads)
        self._folder = folder
        self._computer = UnitComputer(folder, memory)

    def ready(self) -> str:
        """Say what stands in the way; "" if nothing does."""
        if (self._folder / PLAN).is_file():
            return ""
        return (
            f"a worker on {socket.gethostname()} does not see the output {self._folder}; expected "
            "a folder that all nodes share"
        )

    def process(self) -> int:
        """Give the number of this process."""
        return os.getpid()

    def compute(self, task: Task, pair: StoredPair, prints: tuple[str, str]) -> tuple[str, Any]:
        """Compute a unit; give "done" and its outcome, or "failed" and the reason."""
        self._computer.add_pair(task.pair, pair, prints)
        try:
            return DONE, self._computer.compute(task)
        except UnitFailure as failure:
            return FAILED, (failure.kind, failure.text)


class Actors:
    """Workers on a cluster.

    Parameters
    ----------
    folder : path
        Of the sweep; every node sees it.
    resources : Resources
        Of one worker.
    workers : int, optional
        Their number; None: as many as the cluster has resources for.
    address : str, optional
        Of a running cluster; None: the one that this process uses, or a new one on this machine.
    worker_memory : int, optional
        Bytes that Ray reserves for one worker.

    Raises
    ------
    ValueError
        If the cluster does not answer, or has not the resources of one worker.
    """

    depth = 2  # the next unit waits at the worker, so that the way there costs no time

    def __init__(
        self,
        folder: Path,
        resources: Resources,
        workers: int | None,
        address: str | None,
        worker_memory: int | None,
    ) -> None:
        self._ray = _ray()
        self._own = not self._ray.is_initialized()
        if self._own:
            connect(address)
        try:
            self.workers = _count(self._ray, resources, workers, worker_memory)
            options: dict[str, Any] = {
                "num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_restarts": 0,
            }  # fmt: skip
            if worker_memory is not None:
                options["memory"] = worker_memory
            self._class = self._ray.remote(Computer).options(**options)
            self._arguments = folder.resolve(), resources.threads, worker_memory, list(sys.path)
            self._actors: dict[int, Any] = {}
            self._answers: dict[Any, tuple[int, str]] = {}  # worker and unit by reference
            self._pairs: OrderedDict[int, StoredPair] = OrderedDict()
            for worker in range(self.workers):
                self._start(worker)
        except BaseException:
            self.close()
            raise

    def _start(self, worker: int) -> None:
        self._actors[worker] = self._class.remote(*self._arguments)
        self._answers[self._actors[worker].ready.remote()] = worker, ""

    def started(self) -> list[int]:
        """List the workers that are ready when they are made: none."""
        return []

    def send(self, worker: int, task: Task, pair: Pair) -> None:
        """Give a task to a worker; its networks are in the object store."""
        stored = self._stored(task.pair, pair)
        answer = self._actors[worker].compute.remote(task, stored, pair.prints)
        self._answers[answer] = worker, task.unit

    def _stored(self, number: int, pair: Pair) -> StoredPair:
        if number not in self._pairs:
            content = pair.source.content or pickle.dumps(pair.source.load())
            self._pairs[number] = StoredPair(pair.name, [self._ray.put(content)])
            while len(self._pairs) > STORED:
                self._pairs.popitem(last=False)
        self._pairs.move_to_end(number)
        return self._pairs[number]

    def events(self, timeout: float) -> list[Event]:
        """Wait for answers; give them and the deaths of workers.

        Raises
        ------
        ValueError
            If a worker does not see the output.
        """
        waiting = list(self._answers)
        ready, _ = self._ray.wait(waiting, num_returns=1, timeout=timeout)
        if ready:  # and all others that are there
            ready, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        events = []
        for answer in ready:
            worker, unit = self._answers.pop(answer, (-1, ""))
            if worker >= 0:  # not of a worker whose death was just noticed
                events.append(self._event(answer, worker, unit))
        return events

    def _event(self, answer: Any, worker: int, unit: str) -> Event:
        errors = self._ray.exceptions
        try:
            content = self._ray.get(answer)
        except (errors.RayActorError, errors.RayTaskError, errors.ObjectLostError) as problem:
            self._forget(worker)
            reason = str(problem).strip().splitlines()[-1]
            return Event(worker, DIED, content=f"the worker ended: {reason}")
        if unit:
            return Event(worker, content[0], unit, content[1])
        if content:
            raise ValueError(content)
        return Event(worker, READY)

    def _forget(self, worker: int) -> None:
        self._answers = {ref: own for ref, own in self._answers.items() if own[0] != worker}

    def replace(self, worker: int) -> None:
        """Kill a worker, if it lives, and start another one, on any node."""
        self._forget(worker)
        with suppress(Exception):  # of a node that has gone
            self._ray.kill(self._actors[worker])
        self._start(worker)

    def close(self) -> None:
        """End all workers, and the cluster or the connection that was made for them."""
        for actor in getattr(self, "_actors", {}).values():
            with suppress(Exception):
                self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()


def check_ray(settings: Sequence[MethodSettings], worker_memory: int | None) -> None:
    """Refuse a sweep that Ray could not run.

    Raises
    ------
    ImportError
        If Ray is absent or too old.
    ValueError
        If a setting asks for more memory than a worker has.
    """
    _ray()
    for one in settings:
        if worker_memory is not None and (one.memory or 0) > worker_memory:
            raise ValueError(
                f"setting {one.name!r} asks for memory={one.memory}, and a worker has "
                f"worker_memory={worker_memory} bytes; expected at most that"
            )


def connect(address: str | None) -> None:
    """Connect to a cluster, or start one on this machine.

    Raises
    ------
    ValueError
        If there is none at the address, or it does not answer within 10 s.
    """
    ray = _ray()
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        ray.init("local", include_dashboard=False, **options)
        return
    _reach(address)
    problems: list[BaseException] = []

    def init() -> None:
        try:
            ray.init(address, **options)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=init, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if problems or thread.is_alive():
        reason = f"it did not answer within {PATIENCE:g} s"
        if problems:
            reason = " ".join(str(problems[0]).split())
        raise ValueError(f"address is {address!r}: {reason}; expected a running cluster of Ray")


def _reach(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    scheme = "ray://" if address.startswith("ray://") else ""
    host, _, port = address.removeprefix(scheme).partition(":")
    try:
        number = int(port) if port else PORTS[scheme]
        socket.create_connection((host, number), PATIENCE).close()
    except (OSError, ValueError, OverflowError) as problem:
        raise ValueError(
            f"address is {address!r}: {problem}; expected a running cluster of Ray, such as "
            "'auto', 'host:6379' or 'ray://host:10001'"
        ) from None


def _count(ray: Any, resources: Resources, workers: int | None, memory: int | None) -> int:
    """Give the number of workers, as many as the cluster has resources for."""
    there = ray.cluster_resources()
    needs = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": memory or 0}
    most = min((int(there.get(k, 0) / amount) for k, amount in needs.items() if amount), default=1)
    if most < 1:
        name = next(k for k, amount in needs.items() if amount > there.get(k, 0))
        raise ValueError(
            f"a worker asks for {name} {needs[name]:g} and the cluster has {there.get(name, 0):g}; "
            "expected less, or a larger cluster"
        )
    return most if workers is None else workers


def _ray() -> Any:
    """Import Ray.

    Raises
    ------
    ImportError
        If it is absent or too old.
    """
    wanted = f"Ray {OLDEST[0]}.{OLDEST[1]} or newer"
    try:
        ray = import_module("ray")
    except ImportError:
        raise ImportError(f"the engine 'ray' needs {wanted}: {INSTALL}") from None
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < OLDEST:
        raise ImportError(
            f"Ray is {ray.__version__}; the engine 'ray' needs {wanted}: {INSTALL} --upgrade"
        )
    return ray
