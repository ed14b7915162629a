"""The first run of one contender, in a process of its own: its seconds and peak memory."""

import time
from typing import NamedTuple

from faigfast.bench.fresh import in_fresh_process
from faigfast.bench.memory import own_peak
from faigfast.bench.rivals import contenders
from faigfast.bench.workloads import workload


class FirstRun(NamedTuple):
    """What the first run took.

    Parameters
    ----------
    seconds : float
        Of the run alone: libraries were imported, and networks and images made, before. What a
        contender imports, compiles or captures when it runs is counted.
    peak : int
        Most bytes that the whole process held: Python, torch, networks and images as well.
        Processes that it starts, such as a compiler, are not counted.
    """

    seconds: float
    peak: int


def first_run(name: str, contender: str, steps: int, images: int) -> FirstRun:
    """Compute a workload once in a new process.

    Parameters
    ----------
    name : str
        Of the workload.
    contender : str
        One of `contenders()`.
    steps, images : int
        Points, and how many of the workload's images.

    Raises
    ------
    RuntimeError
        If that process fails, or memory cannot be read on this system.
    """
    return FirstRun(*in_fresh_process(_run_once, name, contender, steps, images))


def _run_once(name: str, contender: str, steps: int, images: int) -> tuple[float, int]:
    run = contenders()[contender](workload(name).problem(steps, images))
    start = time.perf_counter()
    run()
    return time.perf_counter() - start, own_peak()
