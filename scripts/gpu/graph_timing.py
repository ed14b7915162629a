"""Times of replayed CUDA graphs: no Python, no launch and no cached input is measured."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

WARM_UPS = 3
REPLAYS = 20
CACHES = 4  # times the L2 that all inputs of a graph fill, so that none is still cached
MOST_SETS = 32


def replay_seconds(calls: Sequence[Callable[[], object]], replays: int = REPLAYS) -> list[float]:
    """Seconds of one call, from every replay of a graph of all calls.

    The calls run on a side stream first, where kernels are compiled and chosen. Then one graph
    captures all of them. Events surround each replay.

    Parameters
    ----------
    calls : sequence of callable
        One function with several sets of inputs, which together fill the L2 several times.
    replays : int
        Number of timed replays.

    Raises
    ------
    RuntimeError
        If the calls cannot be captured, for example because they wait for the device.
    """
    side: Any = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for call in calls]  # else the next call's results take the same memory
    for _ in range(WARM_UPS):
        graph.replay()
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(replays)]
    for start, end in events:
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    del kept
    return [start.elapsed_time(end) / 1e3 / len(calls) for start, end in events]


def sets_for(call_bytes: int) -> int:
    """Count the sets of inputs and results that together fill the L2 several times."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return min(max(2, -(-CACHES * cache // call_bytes)), MOST_SETS)


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "seconds": statistics.median(seconds),
        "least": min(seconds),
        "most": max(seconds),
    }
