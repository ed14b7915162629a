"""Workers on this machine: processes of their own, or the driver's own process."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from faigfast.engine.machine_memory import machine_memory
from faigfast.sweeps.method_settings import MethodSettings
from faigfast.sweeps.pair_list import Pair
from faigfast.sweeps.worker import Task, UnitComputer, UnitFailure

FEW = 2  # workers that may take the usual budget of memory each
READY, DONE, FAILED, DIED = "ready", "done", "failed", "died"


@dataclass(frozen=True)
class Event:
    """Something that a worker did.

    Parameters
    ----------
    worker : int
        Its number.
    kind : str
        "ready", "done", "failed" or "died".
    unit : str
        The unit; "" where there is none.
    content : Outcome, or kind and text of a failure, or a reason, optional
        By kind.
    """

    worker: int
    kind: str
    unit: str = ""
    content: Any = None


def worker_memory(workers: int) -> int | None:
    """Budget in bytes for the activations of each of many workers; None: the usual one."""
    if workers <= FEW:
        return None
    return machine_memory()[0] // (2 * workers)


class InProcess:
    """One worker in the driver's process: without its own memory, and never killed."""

    depth = 1

    def __init__(self, folder: Path) -> None:
        self._computer = UnitComputer(folder)
        self._tasks: list[Task] = []
        self.workers = 1

    def send(self, worker: int, task: Task, pair: Pair) -> None:
        """Keep a task for `events`."""
        if not self._computer.knows(task.pair):
            self._computer.add_pair(task.pair, pair.source, pair.prints)
        self._tasks.append(task)

    def events(self, timeout: float) -> list[Event]:
        """Compute the task."""
        if not self._tasks:
            return []
        task = self._tasks.pop()
        try:
            return [Event(0, DONE, task.unit, self._computer.compute(task))]
        except UnitFailure as failure:
            return [Event(0, FAILED, task.unit, (failure.kind, failure.text))]

    def started(self) -> list[int]:
        """List the workers that are ready when they are made."""
        return [0]

    def replace(self, worker: int) -> None:
        """Do nothing: there is no process to replace."""

    def close(self) -> None:
        """Do nothing."""


class Processes:
    """Worker processes, each with its own threads and socket.

    Parameters
    ----------
    folder : path
        Of the sweep.
    workers : int
        Number of processes.
    threads : int
        Of each.
    """

    depth = 1

    def __init__(self, folder: Path, workers: int, threads: int) -> None:
        self.folder, self.workers, self._threads = folder, workers, threads
        self._processes: dict[int, subprocess.Popen] = {}
        self._connections: dict[int, Connection] = {}
        self._known: dict[int, set[int]] = {}  # pairs that a worker was told of
        try:
            for worker in range(workers):
                self._start(worker)
        except BaseException:
            self.close()
            raise

    def _start(self, worker: int) -> None:
        own, other = socket.socketpair()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "MKL_NUM_THREADS": str(self._threads),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        with other:
            self._processes[worker] = subprocess.Popen(
                [sys.executable, "-m", "faigfast.sweeps.worker_process", str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C of a terminal reaches the driver alone
            )
        connection = Connection(own.detach())
        self._connections[worker], self._known[worker] = connection, set()
        connection.send(
            {
                "path": sys.path,
                "folder": self.folder,
                "threads": self._threads,
                "memory": worker_memory(self.workers),
            }
        )

    def started(self) -> list[int]:
        """List the workers that are ready when they are made: none."""
        return []

    def send(self, worker: int, task: Task, pair: Pair) -> None:
        """Give a task to a worker, with the pair where it does not know it; a dead one stays so."""
        new = None if task.pair in self._known[worker] else (task.pair, pair.source, pair.prints)
        self._known[worker].add(task.pair)
        with suppress(OSError):  # of a dead worker, which `events` tells of
            self._connections[worker].send((task, new))

    def events(self, timeout: float) -> list[Event]:
        """Wait for answers; give them and the deaths of workers."""
        by_connection = {connection: n for n, connection in self._connections.items()}
        ready = wait(list(by_connection), timeout)
        return [self._event(by_connection[one]) for one in ready]  # type: ignore[index]

    def _event(self, worker: int) -> Event:
        try:
            kind, unit, content = self._connections[worker].recv()
            return Event(worker, kind, unit, content)
        except (EOFError, OSError):
            code = self._processes[worker].wait()
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            return Event(worker, DIED, content=f"the worker ended with {reason}")

    def replace(self, worker: int) -> None:
        """Kill a worker, if it lives, and start another one in its place."""
        self._end(worker)
        self._start(worker)

    def _end(self, worker: int) -> None:
        process = self._processes.pop(worker)
        process.kill()
        process.wait()
        self._connections.pop(worker).close()

    def close(self) -> None:
        """End all workers, whatever they do."""
        for worker in list(self._processes):
            self._end(worker)


def worker_count(workers: int | None, threads: int) -> int:
    """Give the number of workers: by default as many as the processors allow.

    Raises
    ------
    ValueError
        If it is no integer from 0 up.
    """
    if workers is None:
        return max(1, len(os.sched_getaffinity(0)) // max(1, threads))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise ValueError(f"workers is {workers!r}; expected an integer from 0 up")
    return workers


def check_memory(one: MethodSettings, workers: int) -> None:
    """Refuse a setting that asks for more memory than a worker of this machine has.

    Raises
    ------
    ValueError
        Naming the setting.
    """
    most = machine_memory()[0] // max(1, workers)
    if one.memory is not None and one.memory > most:
        raise ValueError(
            f"setting {one.name!r} asks for memory={one.memory}, and each of {max(1, workers)} "
            f"workers has {most} bytes; expected less, or fewer workers"
        )
