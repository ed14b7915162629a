"""race(): time to reach the accuracy of the authors' 100 points, on trained pairs."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from textwrap import indent
from typing import Any

import torch

from faigfast.analysis.evaluation import crops
from faigfast.backend.catalogue import backends
from faigfast.bench.families import Pair
from faigfast.bench.rivals import Run, loop, own
from faigfast.bench.workloads import Problem
from faigfast.data import KEPT_OUT, Degradation, photographs
from faigfast.integration.refinement import default_steps
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import aligned

YARDSTICK = ("loop", "left", 100)
CONVERGED = ("gauss-legendre", 96)
SCALE = 2  # of the shipped pairs
SIZE = 128  # of a crop's ground truth, in pixels
EVERY = 14  # one in so many crops of all photographs is taken
HEADER = ("", "rule", "points", "seconds", "min–max", "× loop, left 100", "mean error", "worst")


def entrants() -> list[tuple[str, str, int]]:
    """Contender, rule and points: the tuned loop (the authors' own is slower), and faigfast."""
    midpoint, graded = defaults()
    chosen = [YARDSTICK, ("loop", *midpoint)]
    for name in ("torch", "cpu"):
        if backends()[name].available:
            chosen += [(f"faigfast-{name}", *rule) for rule in (midpoint, graded, ("graded", 8))]
    return chosen


def defaults() -> list[tuple[str, int]]:
    """Rules with their usual points for the images of the race."""
    return [(rule, default_steps(rule, (SIZE // SCALE) ** 2)) for rule in ("midpoint", "graded")]


@dataclass
class RaceEntry:
    """One contender on one pair.

    Attributes
    ----------
    contender, rule : str
        Contender and rule.
    points : int
        Points of the line for each image.
    errors : list of float
        Relative L1 error of each image's scores against the converged integral in float64.
    seconds : list of float
        Time of every repeat, in order.
    """

    contender: str
    rule: str
    points: int
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Race:
    """Result of `race`: times and errors.

    Attributes
    ----------
    pairs : dict of str to list of RaceEntry
        Entries by the pair's name.
    images : list of str
        Names of the crops, each blurred and noisy.
    machine, versions : dict
        Processor and package versions.
    command : list of str
        The command line.
    """

    pairs: dict[str, list[RaceEntry]]
    images: list[str]
    machine: dict[str, Any] = field(default_factory=describe_machine)
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Align the figures as text, one block a pair, and say what the columns mean."""
        blocks = [f"{name}\n{indent(_block(rows), '  ')}" for name, rows in self.pairs.items()]
        remarks = (
            f"{self.machine['cpu']}, {self.machine['threads']} of {self.machine['cores']} cores, "
            f"{self.machine['instructions']}, torch {self.versions['torch']}, float32\n"
            f"images: {', '.join(self.images)}\n"
            f"Each crop has {SIZE}×{SIZE} pixels of ground truth and is degraded once by blur and "
            "once by noise.\npoints: the defaults for images of this size are "
            f"{' and '.join(f'{rule} {n}' for rule, n in defaults())}\n"
            "seconds: median over the repeats; each repeat runs every contender once, in rotating "
            "order\n× loop, left 100: time of the tuned loop with the authors' 100 points divided "
            "by the contender's time,\nmedian over the repeats\n"
            "mean error, worst: relative L1 error of an image's scores against "
            f"{CONVERGED[0]} {CONVERGED[1]} in float64,\nmean and maximum over the images"
        )
        return "\n\n".join([*blocks, remarks])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))


def race(
    pairs: dict[str, Callable[[], Pair]],
    contenders: Sequence[tuple[str, str, int]] | None = None,
    *,
    repeats: int = 5,
    progress: bool = True,
) -> Race:
    """Time the tuned loop with the authors' rule, and faigfast with others, beside their errors.

    Parameters
    ----------
    pairs : dict
        Function that loads a pair, by the pair's name.
    contenders : sequence of (str, str, int), optional
        "loop" or "faigfast-…", rule and points; the others are compared with the first.
        None: `entrants()`.
    repeats : int
        Timed runs of each, in turn, after one run to compare and warm up.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        If `repeats` is not positive, or the photographs are missing.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected a positive integer")
    contenders = entrants() if contenders is None else contenders
    degradations = {
        "blur": Degradation(blur=2.0, scale=SCALE),
        "noise": Degradation(noise=0.1, scale=SCALE),
    }
    data = crops(photographs(KEPT_OUT), degradations, SIZE).part(slice(EVERY // 2, None, EVERY))
    x = torch.cat(list(data.lq.values()))
    gt = data.gt.repeat(len(data.lq), 1, 1, 1)
    entries_by_pair: dict[str, list[RaceEntry]] = {}
    with progress_bar(unit="run", disable=not progress) as bar:
        bar.total = len(pairs) * (1 + len(contenders) * (1 + repeats))
        for name, load in pairs.items():
            baseline, target = load()

            def problem(rule: str, points: int, pair: Pair = (baseline, target)) -> Problem:
                return Problem(*pair, x, gt, points, rule)

            bar.set_description(f"{name}, float64")
            exact = own("torch", problem(*CONVERGED), "fp64")()[0]
            bar.update()
            entries = [RaceEntry(*contender) for contender in contenders]
            runs: list[Run] = []
            for entry in entries:
                bar.set_description(
                    f"{name}, comparing {entry.contender} {entry.rule} {entry.points}"
                )
                prepare = loop if entry.contender == "loop" else _own(entry.contender)
                runs.append(prepare(problem(entry.rule, entry.points)))
                difference = (runs[-1]()[0].double() - exact).abs().sum(1)
                entry.errors = (difference / exact.sum(1)).tolist()
                bar.update()
            for repeat in range(repeats):
                shift = repeat % len(runs)
                order = [*range(shift, len(runs)), *range(shift)]
                for i in order:
                    bar.set_description(f"{name}, timing {entries[i].contender}")
                    start = time.perf_counter()
                    runs[i]()
                    entries[i].seconds.append(time.perf_counter() - start)
                    bar.update()
            entries_by_pair[name] = entries
    return Race(entries_by_pair, list(data.names))


def _own(contender: str) -> Callable[[Problem], Run]:
    return lambda problem: own(contender.removeprefix("faigfast-"), problem)


def _block(rows: Sequence[RaceEntry]) -> str:
    table_rows = []
    for row in rows:
        ratios = [a / b for a, b in zip(rows[0].seconds, row.seconds, strict=True)]
        table_rows.append(
            (
                row.contender,
                row.rule,
                str(row.points),
                f"{statistics.median(row.seconds):.2f}",
                f"{min(row.seconds):.2f}–{max(row.seconds):.2f}",
                f"{statistics.median(ratios):.1f}",
                f"{statistics.mean(row.errors):.1e}",
                f"{max(row.errors):.1e}",
            )
        )
    return aligned(HEADER, table_rows)
