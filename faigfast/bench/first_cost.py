"""Extra cost of the first call on a pair of networks over a later call, part by part."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from faigfast.bench.fresh import in_fresh_process
from faigfast.bench.rivals import own
from faigfast.bench.workloads import workload
from faigfast.engine import graph as graphs
from faigfast.engine import integrate
from faigfast.io.text_table import aligned

# Work of the engine for a new pair of networks → the functions that do it.
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "networks": ((graphs, "record_calls"), (graphs, "trace"), (integrate, "compare_endpoints")),
    "plan": ((graphs, "_plan"),),
    "comparing": ((integrate, "differs"),),
}
LATER = 3  # calls after the first two; their median is the later call
HEADER = ("ms", "first call", "later call", *PARTS, "rest")
REMARK = (
    "first call: time of the first call in a new process, after the imports\n"
    "later call: median time of the third to fifth call in the same process\n"
    "The other columns divide the difference between first and later call into parts:\n"
    "networks: run the two networks unchanged and record their operations\n"
    "plan: make a plan from the recorded operations\n"
    "comparing: compare the plan's results with the networks' results\n"
    "rest: all other work, such as new memory pages and the conversion of weights to the kernels' "
    "layout\nEvery figure is a median over the processes."
)


@dataclass
class Call:
    """Seconds of one call and of its parts.

    Attributes
    ----------
    seconds : float
        Time of the complete call.
    parts : dict of str to float
        Seconds in each of `PARTS`.
    """

    seconds: float
    parts: dict[str, float]


@dataclass
class FirstCall:
    """First calls of one backend, each in a process of its own.

    Attributes
    ----------
    backend : str
        Of `faigfast.attribute`.
    points : int
        P, of one image.
    first : list of Call
        First call of every process.
    later : list of Call
        A later call in the same processes.
    """

    backend: str
    points: int
    first: list[Call] = field(default_factory=list)
    later: list[Call] = field(default_factory=list)

    def extra(self) -> list[dict[str, float]]:
        """Seconds of each first call beyond the later call: every part, and the rest."""
        extras = []
        for first, later in zip(self.first, self.later, strict=True):
            parts = {name: first.parts[name] - later.parts[name] for name in PARTS}
            rest = first.seconds - later.seconds - sum(parts.values())
            extras.append({**parts, "rest": rest})
        return extras

    def cells(self) -> tuple[str, ...]:
        """Give the row of the table: medians in milliseconds."""
        totals = [[call.seconds for call in calls] for calls in (self.first, self.later)]
        columns = [*totals, *zip(*(extra.values() for extra in self.extra()), strict=True)]
        return (self.backend, *(f"{1e3 * statistics.median(column):.0f}" for column in columns))


def first_table(calls: Sequence[FirstCall]) -> str:
    """Align the rows as text, and say what the columns mean."""
    title = f"first calls of one image and {calls[0].points} points"
    return "\n".join([title, aligned(HEADER, [call.cells() for call in calls]), "", REMARK])


def measure_first(
    family: str,
    points: int,
    backends: Sequence[str],
    repeats: int,
    advance: Callable[[], object] = lambda: None,
) -> list[FirstCall]:
    """Time first calls of one image in turn, each in a process of its own.

    Parameters
    ----------
    family : str
        A workload's name without its number of images, such as "srresnet-48".
    points : int
        P.
    backends : sequence of str
        Of `faigfast.attribute`.
    repeats : int
        Processes of each backend.
    advance : callable
        Called after every process.
    """
    first_calls = [FirstCall(backend, points) for backend in backends]
    for _ in range(repeats):
        for calls in first_calls:
            first, later = in_fresh_process(calls_of, f"{family}x1", calls.backend, points)
            calls.first.append(Call(*first))
            calls.later.append(Call(*later))
            advance()
    return first_calls


def calls_of(name: str, backend: str, points: int) -> list[tuple[float, dict[str, float]]]:
    """Time the first call of this process and a later call: seconds, in all and of each part."""
    run = own(backend, workload(name).problem(points))
    calls = []
    for _ in range(2 + LATER):
        with timed_parts() as parts:
            start = time.perf_counter()
            run()
            calls.append((time.perf_counter() - start, parts))
    return [calls[0], sorted(calls[2:], key=lambda call: call[0])[LATER // 2]]


@contextmanager
def timed_parts() -> Iterator[dict[str, float]]:
    """Sum the seconds in the functions of each part; a nested call counts for the outer part."""
    seconds_by_part = dict.fromkeys(PARTS, 0.0)
    running_parts: list[str] = []

    def wrapped(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if running_parts:
                return function(*args, **kwargs)
            running_parts.append(part)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds_by_part[part] += time.perf_counter() - start
                running_parts.pop()

        return call

    with ExitStack() as stack:
        for part, functions in PARTS.items():
            for module, name in functions:
                replacement = wrapped(part, getattr(module, name))
                stack.enter_context(patch.object(module, name, replacement))
        yield seconds_by_part
