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
Result = TypeVar("Result")

MOST_WORKERS = 4  # at the same time: all share Python's interpreter lock


def worker_blocks(count: int, workers: int) -> list[tuple[int, int]]:
    """Cut a number of items into blocks of full rounds, for fewer and fewer workers.

    Returns
    -------
    list of (int, int)
        Number of items, and of the workers that take them in turn.

    Examples
    --------
    >>> worker_blocks(5, 2), worker_blocks(3, 4), worker_blocks(6, 4)
    ([(4, 2), (1, 1)], [(3, 3)], [(4, 4), (2, 2)])
    """
    blocks = []
    while count:
        workers = min(workers, count)
        blocks.append((count // workers * workers, workers))
        count %= workers
    return blocks


def run_concurrently(
    run: Callable[[int, Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Run items in several threads; which worker runs which item is fixed.

    Parameters
    ----------
    run : callable
        Takes a worker's number and an item; a worker runs its items in order. Worker 0
        is the calling thread, whose heap has memory that was used before.
    items : sequence
        Arguments of `run`.
    workers : int
        Most threads at the same time, which share torch's threads; 1: the calling thread alone.

    Yields
    ------
    Results of `run`, in order.
    """
    if min(workers, len(items)) < 2:
        yield from (run(0, item) for item in items)
        return
    threads, remaining = torch.get_num_threads(), list(items)
    for count, at_once in worker_blocks(len(items), workers):
        share = max(1, threads // at_once)
        block, remaining = remaining[:count], remaining[count:]
        results: list[Future[Result]] = []
        try:
            for n, item in enumerate(block):
                task = partial(_with_threads, share, partial(run, n % at_once, item))
                executor = _executor(n % at_once) if n % at_once else None
                results.append(executor.submit(copy_context().run, task) if executor else Future())
            torch.set_num_threads(share)
            yielded = 0
            for n in range(0, count, at_once):
                results[n].set_result(run(0, block[n]))
                while yielded < count and results[yielded].done():
                    yield results[yielded].result()
                    yielded += 1
            yield from (result.result() for result in results[yielded:])
        finally:
            others = [result for n, result in enumerate(results) if n % at_once]
            for result in others:  # after an error or Ctrl-C
                result.cancel()
            wait(others)
            torch.set_num_threads(threads)  # threads that start from now on inherit it


# Kept, since a thread reuses the memory of its heap; an idle thread costs nothing.
_executors: list[ThreadPoolExecutor] = []


def _executor(number: int) -> ThreadPoolExecutor:
    while len(_executors) <= number:
        _executors.append(ThreadPoolExecutor(1, f"faigfast-{len(_executors)}"))
    return _executors[number]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_executors.clear)  # a forked child has none of these threads


def _with_threads(count: int, run: Callable[[], Result]) -> Result:
    torch.set_num_threads(count)
    with flushed():
        return run()
