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
            "seconds: median of the repeats, contenders in turn; GFLOP/s: images·points·3·forward "
            "work of the convolutions in them;",
            f"× {YARDSTICK}: how many times less than the tuned loop, median over repeats; "
            "first: seconds of the first run in a process",
            "of its own, where libraries were imported and networks and images made before, median "
            "of as many processes in",
            f"turn; × {YARDSTICK}'s: how many times less than the tuned loop's first run; error: "
            "relative L1 of the scores against",
            f"float64, worst image (over {self.bound:g}: no speed); MiB: peak memory of the whole "
            "process of a first run.",
        ]
        if self.narrow_bounds:
            remarks.append(f"In 16 bits the bound is {self.narrow_bounds[0]:g}.")
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
