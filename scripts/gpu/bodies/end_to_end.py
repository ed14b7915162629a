"""The rows of `faigfast bench` on a GPU, for one workload."""

from collections.abc import Callable
from functools import partial
from typing import Any

from faigfast.bench.runner import benchmark

POINTS = 20
# The loop in both precisions is in every step, since ratios hold within one process.
LOOPS = ("loop", "loop-fp16")
WHO = {
    "triton": (*LOOPS, "faigfast-triton", "faigfast-triton-fp16"),
    "cuda": (*LOOPS, "faigfast-cuda", "faigfast-cuda-fp16"),
    "torch": (*LOOPS, "authors", "faigfast-torch", "faigfast-torch-fp16"),
    "compiled": (*LOOPS, "compile-fp16", "vmap"),  # last: compiling takes a minute
}


def steps(name: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """One step a group of contenders.

    Parameters
    ----------
    name : str
        Workload, as in `faigfast.bench.workload`.
    """
    return {group: partial(measure, name, who) for group, who in WHO.items()}


def measure(name: str, who: tuple[str, ...], device: str = "cuda") -> dict[str, Any]:
    """Compare and time some contenders."""
    result = benchmark(
        [name], steps=POINTS, repeats=3, contenders=who, first=False, memory=False, device=device,
        progress=False,
    )  # fmt: skip
    block, _, remarks = result.table().rpartition("\n\n")
    rows = [
        {
            "contender": row.contender, "seconds": row.seconds, "error": row.error,
            "scaled": row.scaled, "reason": row.reason,
        }
        for row in result.sections[0].rows
    ]  # fmt: skip
    return {"rows": rows, "text": block, "remarks": remarks}
