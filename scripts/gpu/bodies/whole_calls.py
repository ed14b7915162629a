"""`attribute` by one backend: time, overlap with float32, and what the GPU does meanwhile."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faigfast import attribute
from faigfast.backend.precision import proper_float32
from faigfast.bench.workloads import Problem, workload
from faigfast.result import Attribution

from ..layers import require

WORKLOADS = {"48²×16": "srresnet-48x16", "256²×1": "srresnet-256x1"}
POINTS = 20
REPEATS = 5
TOP = 0.01
KERNELS = 12  # of the profile, the longest


def steps(backend: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """One step a workload, in fp16; torch in float32 too.

    Parameters
    ----------
    backend : str
        Backend of `attribute`.
    """
    require(backend)
    precisions = ("fp16", "fp32") if backend == "torch" else ("fp16",)
    return {
        f"{name}, {precision}": partial(measure, backend, precision, known)
        for precision in precisions
        for name, known in WORKLOADS.items()
    }


def measure(
    backend: str, precision: str, name: str, device: str = "cuda", points: int = POINTS
) -> dict[str, Any]:
    """Compare one call with float32 by torch, time it, and look at it through the profiler.

    Float64 would take longer than all else here; the tests of trained pairs compare with it.
    """
    problem = workload(name).problem(points).to(device)
    call = partial(attributed, problem, backend, precision)
    with proper_float32():
        exact = attributed(problem, "torch", "fp32")
        began = time.perf_counter()
        result = call()
        first = time.perf_counter() - began
        call()
        times = [clocks(call) for _ in range(REPEATS)]
        gpu, launches, longest = profile(call)
    seconds = statistics.median(wall for wall, _ in times)
    return {
        "seconds": seconds,
        "least": min(wall for wall, _ in times),
        "most": max(wall for wall, _ in times),
        "first": first,
        "cpu seconds": statistics.median(cpu for _, cpu in times),
        "gpu seconds": gpu,
        "launches": launches,
        "longest": longest,
        "flops": problem.flops,
        "overlap": least_overlap(result.scores(), exact.scores()),
        "error": worst_error(result.scores(), exact.scores()),
        "backend": result.backend,
        "notes": result.notes[:8],
    }


def attributed(problem: Problem, backend: str, precision: str) -> Attribution:
    """Run `attribute` on a problem."""
    return attribute(
        problem.baseline, problem.target, problem.batch, rule=problem.rule, steps=problem.steps,
        backend=backend, precision=precision,
    )  # fmt: skip


def clocks(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall and of the processor for one call, until the device is idle."""
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def wait() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def profile(call: Callable[[], object]) -> tuple[float, int, list[tuple[str, float, int]]]:
    """Seconds in which the GPU works, its launches, and its longest kernels in one call."""
    if not torch.cuda.is_available():
        return 0.0, 0, []
    wanted = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=wanted) as seen:
        call()
        wait()
    rows = [
        (row.key[:120], row.self_device_time_total / 1e6, row.count)
        for row in seen.key_averages()
        if row.self_device_time_total > 0
    ]
    rows.sort(key=lambda row: -row[1])
    return sum(row[1] for row in rows), sum(row[2] for row in rows), rows[:KERNELS]


def least_overlap(own: Tensor, exact: Tensor) -> float:
    """Least common share of the top 1 % of filters, over the images."""
    shares = []
    for a, b in zip(own, exact, strict=True):
        best = max(1, int(len(b) * TOP))
        top, expected = (set(part.topk(best).indices.tolist()) for part in (a, b))
        shares.append(len(top & expected) / best)
    return min(shares)


def worst_error(own: Tensor, exact: Tensor) -> float:
    """Relative L1 error of the worst image's scores."""
    exact = exact.double()
    return float(((own.double().to(exact.device) - exact).abs().sum(1) / exact.sum(1)).max())
