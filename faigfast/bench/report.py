"""Results of `benchmark`, as a table and as a JSON file."""

import os
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.text_table import aligned

YARDSTICK = "loop"
HEADER = (
    "", "seconds", "min–max", "GFLOP/s", "× loop", "first", "× loop's", "error", "MiB"
)  # fmt: skip


@dataclass
class ContenderResult:
    """One contender on one workload.

    Attributes
    ----------
    contender : str
        Its name.
    seconds : list of float
        Time of every repeat, in order; empty where there is no speed.
    scaled : str
        The timed part, where only a part was timed; `seconds` are scaled to all by the work.
    error : float or None
        The worst image's relative L1 error of the scores against float64.
    first : list of float
        Seconds of the first run in a process of its own, for every repeat, in order.
    memory : int or None
        Peak memory of such a process, in bytes.
    reason : str
        Why there is no speed.
    note : str
        Why there is no first run, or no further first run.
    """

    contender: str
    seconds: list[float] = field(default_factory=list)
    scaled: str = ""
    error: float | None = None
    first: list[float] = field(default_factory=list)
    memory: int | None = None
    reason: str = ""
    note: str = ""


@dataclass
class WorkloadResult:
    """All contenders on one workload.

    Attributes
    ----------
    workload : str
        Its name.
    title : str
        Description of networks and images.
    points : int
        Points of the line, P.
    flops : int
        Images × points × 3 × forward work of the convolutions.
    checked : str
        Images whose scores were compared with float64.
    rows : list of ContenderResult
        In the order of the contenders.
    """

    workload: str
    title: str
    points: int
    flops: int
    checked: str
    rows: list[ContenderResult] = field(default_factory=list)

    def row(self, contender: str) -> ContenderResult:
        """Return the row of a contender."""
        return next(row for row in self.rows if row.contender == contender)

    def ratios(self, row: ContenderResult) -> list[float]:
        """Divide the tuned loop's seconds by the row's, repeat by repeat."""
        loop = next((r.seconds for r in self.rows if r.contender == YARDSTICK), [])
        return [a / b for a, b in zip(loop, row.seconds, strict=False)]

    def first_ratios(self, row: ContenderResult) -> list[float]:
        """Divide the seconds of the tuned loop's first run by the row's, repeat by repeat."""
        loop = next((r.first for r in self.rows if r.contender == YARDSTICK), [])
        return [a / b for a, b in zip(loop, row.first, strict=False)]


@dataclass
class BenchmarkResult:
    """Result of `benchmark`.

    Attributes
    ----------
    sections : list of WorkloadResult
        One a workload.
    bound : float
        Largest error of the scores for a row with a speed.
    loss_bound : float
        Largest error of the losses.
    narrow_bounds : (float, float) or None
        Both bounds for contenders in 16 bits, if there are any.
    machine, versions : dict
        Processor, GPU and package versions.
    command : list of str
        The command line.
    """

    sections: list[WorkloadResult]
    bound: float
    loss_bound: float
    machine: dict[str, Any] = field(default_factory=describe_machine)
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=lambda: [Path(sys.argv[0]).name, *sys.argv[1:]])
    narrow_bounds: tuple[float, float] | None = None

    def table(self) -> str:
        """Align the rows as text, one block a workload, and say what the columns mean."""
        blocks = [_block(section) for section in self.sections]
        remarks = [
            *([self.machine["gpu"]] if "gpu" in self.machine else []),
            f"{self.machine['cpu']}, {self.machine['threads']} of {self.machine['cores']} cores, "
            f"{self.machine['instructions']}, torch {self.versions['torch']}",
            "seconds: median over the repeats; each repeat runs every contender once, in rotating "
            "order",
            "GFLOP/s: work divided by seconds; the work is images·points·3·forward work of the "
            "convolutions",
            f"× {YARDSTICK}: the tuned loop's time divided by the contender's time, median over "
            "the repeats",
            "first: seconds of the first run in a new process, median over as many processes as "
            "repeats; the process imports",
            "libraries and makes networks and images before the timed run",
            f"× {YARDSTICK}'s: the tuned loop's first-run time divided by the contender's "
            "first-run time, median over the processes",
            "error: relative L1 error of the scores against float64, worst image; a contender "
            f"with an error above {self.bound:g} gets no speed",
            "MiB: peak memory of the process of a first run",
        ]
        if self.narrow_bounds:
            remarks.append(
                "error of fp16 and bf16 contenders: a contender with an error above "
                f"{self.narrow_bounds[0]:g} gets no speed"
            )
        return "\n\n".join([*blocks, "\n".join(remarks)])

    def content(self) -> dict[str, Any]:
        """Give everything in JSON's types, with every repeat's seconds and the ratios."""
        content = asdict(self)
        for section, written in zip(self.sections, content["sections"], strict=True):
            for row, written_row in zip(section.rows, written["rows"], strict=True):
                written_row["ratios"] = section.ratios(row)
                written_row["first_ratios"] = section.first_ratios(row)
        return content

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON.

        Raises
        ------
        ValueError
            If the file cannot be written.
        """
        write_json(path, self.content())


def _block(section: WorkloadResult) -> str:
    table_rows = []
    remarks = []
    for row in section.rows:
        remarks += [f"  {row.contender}: {text}" for text in (row.reason, row.note) if text]
        if row.scaled:
            remarks.append(f"  {row.contender}: scaled from {row.scaled}")
        median = _median(row.seconds)
        table_rows.append(
            (
                row.contender + ("*" if row.scaled else ""),
                _number(median, "{:.3f}"),
                f"{min(row.seconds):.3f}–{max(row.seconds):.3f}" if row.seconds else "no speed",
                _number(median and section.flops / median / 1e9, "{:.1f}"),
                _number(_median(section.ratios(row)), "{:.2f}"),
                _number(_median(row.first), "{:.3f}"),
                _number(_median(section.first_ratios(row)), "{:.2f}"),
                _number(row.error, "{:.1e}"),
                _number(row.memory and row.memory / 2**20, "{:.0f}"),
            )
        )
    title = (
        f"{section.title}, {section.points} points, {section.flops / 1e9:.1f} GFLOP "
        f"(error: {section.checked})"
    )
    return "\n".join([title, indent(aligned(HEADER, table_rows), "  "), *remarks])


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
