"""Seconds and peak memory of a contender's first run, in a process of its own."""

import time
from typing import NamedTuple

from faigfast.bench.fresh import in_fresh_process
from faigfast.bench.memory import own_peak
from faigfast.bench.rivals import contenders
from faigfast.bench.workloads import workload


class FirstRun(NamedTuple):
    """Time and memory of a first run.

    Parameters
    ----------
    seconds : float
        Time of the run alone: libraries are imported, and networks and images made, before it.
        The contender's own imports, compilation and captures count.
    peak : int
        Most bytes that the process held, with Python, torch, networks and images.
        Processes that it starts, such as a compiler, do not count.
    """

    seconds: float
    peak: int


def first_run(name: str, contender: str, steps: int, images: int) -> FirstRun:
    """Compute a workload once in a new process.

    Parameters
    ----------
    name : str
        Name of the workload.
    contender : str
        One of `contenders()`.
    steps, images : int
        Points, and number of the workload's images.

    Raises
    ------
    RuntimeError
        If the process fails, or memory cannot be read on this system.
    """
    return FirstRun(*in_fresh_process(_run_once, name, contender, steps, images))


def _run_once(name: str, contender: str, steps: int, images: int) -> tuple[float, int]:
    run = contenders()[contender](workload(name).problem(steps, images))
    start = time.perf_counter()
    run()
    return time.perf_counter() - start, own_peak()
