"""Threads: several chunks at the same time, each with a share of the processor's threads.

One chunk alone leaves cores idle: in Python between two operations, in small operations, and where
threads of an operation wait for its slowest part.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from functools import partial
from typing import TypeVar

import torch

from faigfast.backend.cpu.state import flushed

Item = TypeVar("Item")
Found = TypeVar("Found")

MOST = 4  # at the same time: they share Python


def blocks(count: int, workers: int) -> list[tuple[int, int]]:
    """Cut a number of items into blocks of as many rounds as are full, for fewer and fewer workers.

    Returns
    -------
    list of (int, int)
        Items, and the workers that take them in turn.

    Examples
    --------
    >>> blocks(5, 2), blocks(3, 4), blocks(6, 4)
    ([(4, 2), (1, 1)], [(3, 3)], [(4, 4), (2, 2)])
    """
    found = []
    while count:
        workers = min(workers, count)
        found.append((count // workers * workers, workers))
        count %= workers
    return found


def spread(
    run: Callable[[int, Item], Found], items: Sequence[Item], workers: int
) -> Iterator[Found]:
    """Run items at the same time, always the same ones one after the other.

    Parameters
    ----------
    run : callable
        Of a worker's number and an item; a worker takes one after the other, in order. Worker 0
        is the calling thread, which has memory at hand that was used before.
    items : sequence
        What is run.
    workers : int
        The most at the same time, among whom torch's threads are shared; 1: here.

    Yields
    ------
    What `run` gives, in order.
    """
    if min(workers, len(items)) < 2:
        yield from (run(0, item) for item in items)
        return
    threads, left = torch.get_num_threads(), list(items)
    for count, at_once in blocks(len(items), workers):
        share = max(1, threads // at_once)
        block, left = left[:count], left[count:]
        results: list[Future[Found]] = []
        try:
            for n, item in enumerate(block):
                task = partial(_with_threads, share, partial(run, n % at_once, item))
                line = _line(n % at_once) if n % at_once else None
                results.append(line.submit(copy_context().run, task) if line else Future())
            torch.set_num_threads(share)
            given = 0
            for n in range(0, count, at_once):
                results[n].set_result(run(0, block[n]))
                while given < count and results[given].done():
                    yield results[given].result()
                    given += 1
            yield from (result.result() for result in results[given:])
        finally:
            others = [result for n, result in enumerate(results) if n % at_once]
            for result in others:  # after an error or Ctrl-C
                result.cancel()
            wait(others)
            torch.set_num_threads(threads)  # which threads that begin now take over


# They are kept, since what a thread had in memory serves it again; waiting costs nothing.
_lines: list[ThreadPoolExecutor] = []


def _line(number: int) -> ThreadPoolExecutor:
    while len(_lines) <= number:
        _lines.append(ThreadPoolExecutor(1, f"faigfast-{len(_lines)}"))
    return _lines[number]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lines.clear)  # a child has none of the threads


def _with_threads(count: int, run: Callable[[], Found]) -> Found:
    torch.set_num_threads(count)
    with flushed():
        return run()
