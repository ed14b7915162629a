"""race(): time to reach the accuracy of the authors' 100 points, on trained pairs."""

import copy
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from textwrap import indent
from typing import Any

import torch
from torch import Tensor

from faigfast.analysis.evaluation import Crops, crops
from faigfast.attribution.one_call import attribute
from faigfast.backend.catalogue import backends
from faigfast.bench.accuracy_pairs import PUBLISHED
from faigfast.bench.families import Pair
from faigfast.bench.rivals import Run, Scored, loop, own
from faigfast.bench.workloads import FOLDER, SIZES, Images, Problem
from faigfast.data import KEPT_OUT, Degradation, photographs
from faigfast.integration.padding import reflected
from faigfast.integration.refinement import LEVELS, default_steps
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import aligned

Entrant = tuple[str, str, int | None]  # contender, rule and points; None: the rule's default

YARDSTICK: Entrant = ("loop", "left", 100)
CONVERGED = ("averaged", 64)  # a 16th of the error of 15 points or less, as 1/n²
DEFAULT = ("averaged", None)
# In place of a number: the fewest points whose mean error is not above the first contender's.
FEWEST = 0
TRIED = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32, 48)
SCALE = 2  # of the pairs
SIZE = 128  # of a crop's ground truth, in pixels
EVERY = 14  # one in so many crops of all photographs is taken
DEGRADATIONS = {
    "blur": Degradation(blur=2.0, scale=SCALE), "noise": Degradation(noise=0.1, scale=SCALE),
}  # fmt: skip
HEADER = (
    "", "rule", "points", "seconds", "min–max", "× loop, left 100", "first", "× loop's",
    "mean error", "÷ left 100", "worst",
)  # fmt: skip


def entrants() -> list[Entrant]:
    """Contender, rule and points: the tuned loop (the authors' own is slower), and faigfast."""
    midpoint = "midpoint", default_steps("midpoint", (SIZE // SCALE) ** 2)
    chosen: list[Entrant] = [YARDSTICK, ("loop", *midpoint)]
    chosen.append(("faigfast-torch", *DEFAULT))
    if backends()["cpu"].available:
        rules = (DEFAULT, ("averaged", FEWEST), midpoint)
        chosen += [("faigfast-cpu", *rule) for rule in rules]
    return chosen


@dataclass
class RaceEntry:
    """One contender on one pair.

    Attributes
    ----------
    contender, rule : str
        Contender and rule.
    steps : int or None
        Points that were asked for; None: the default.
    points : float
        Points of the line for each image, a mean over the images.
    errors : list of float
        Relative L1 error of each image's scores against the converged integral in float64.
    seconds : list of float
        Time of every repeat, in order.
    first : float
        Time of the first call on new networks, in a process that has run others.
    fewest : bool
        Whether the points are the fewest that suffice; 48 may not.
    """

    contender: str
    rule: str
    steps: int | None
    points: float = 0.0
    first: float = 0.0
    fewest: bool = False
    errors: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Count the points that were asked for, until a run says how many it took."""
        self.fewest = self.fewest or self.steps == FEWEST
        self.points = self.points or float(self.steps or 0)

    def __str__(self) -> str:
        return f"{self.contender} {self.rule_in_words}"

    @property
    def rule_in_words(self) -> str:
        """The rule, and what chose its points."""
        if self.steps is None:
            return f"{self.rule}, default"
        return f"{self.rule}, fewest" if self.fewest else f"{self.rule} {self.steps}"

    @property
    def mean_error(self) -> float:
        """Mean over the images."""
        return statistics.mean(self.errors)


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
        blocks = [
            f"{name}\n{indent(_block(rows), '  ')}\n{_verdict(rows)}"
            for name, rows in self.pairs.items()
        ]
        remarks = (
            f"{self.machine['cpu']}, {self.machine['threads']} of {self.machine['cores']} cores, "
            f"{self.machine['instructions']}, torch {self.versions['torch']}, float32\n"
            f"images: {', '.join(self.images)}\n"
            f"Each crop has {SIZE}×{SIZE} pixels of ground truth and is degraded once by blur and "
            f"once by noise; {FOLDER}: {len(SIZES)} images of\nas many sizes, in turn blurred and "
            "noisy\npoints: mean over the images; the default takes "
            f"{LEVELS[1]}, {LEVELS[0]} without kinks, and more where\nit estimates an error above "
            "the authors'; fewest: tried one by one until the mean error was not\nabove theirs\n"
            "seconds: median over the repeats; each repeat runs every contender once, in rotating "
            "order\n× loop, left 100: time of the tuned loop with the authors' 100 points divided "
            "by the contender's time,\nmedian over the repeats\n"
            "mean error, worst: relative L1 error of an image's scores against "
            f"{CONVERGED[0]} {CONVERGED[1]} in float64,\nmean and maximum over the images\n"
            "÷ left 100: mean error divided by the mean error of the loop with the authors' points"
        )
        return "\n\n".join([*blocks, remarks])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))


def race(
    pairs: dict[str, Callable[[], Pair]],
    contenders: Sequence[Entrant] | None = None,
    *,
    repeats: int = 5,
    progress: bool = True,
    keep: Callable[[Race], object] | None = None,
) -> Race:
    """Time the tuned loop with the authors' rule, and faigfast with others, beside their errors.

    Parameters
    ----------
    pairs : dict
        Function that loads a pair, by the pair's name. Under `FOLDER` the images are 14 of 14
        sizes. A published pair gets its padding.
    contenders : sequence of (str, str, int or None), optional
        "loop" or "faigfast-…", rule and points; the others are compared with the first. None as
        points, of faigfast alone, takes the default, and `FEWEST` the fewest that suffice.
        None: `entrants()`.
    repeats : int
        Timed runs of each, in turn, after one run to compare and warm up.
    progress : bool
        Show a progress bar.
    keep : callable, optional
        Called with the result so far after every pair: all pairs may take hours.

    Raises
    ------
    ValueError
        If `repeats` is not positive, the photographs are missing, or `FEWEST` is asked of the loop
        or of the first contender.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; expected a positive integer")
    contenders = entrants() if contenders is None else contenders
    if contenders[0][2] == FEWEST or ("loop", FEWEST) in {(c[0], c[2]) for c in contenders}:
        raise ValueError("FEWEST is of faigfast, after the contender whose error is the bound")
    data = crops(photographs(KEPT_OUT), DEGRADATIONS, SIZE).part(slice(EVERY // 2, None, EVERY))
    result = Race({}, list(data.names))
    with progress_bar(unit="run", disable=not progress) as bar:
        # Usual points of the midpoint rule are those of images of one size.
        usual = {
            name: [c for c in contenders if name != FOLDER or c[1] != "midpoint"] for name in pairs
        }
        bar.total = sum(1 + len(chosen) * (1 + repeats) for chosen in usual.values())
        for name, load in pairs.items():
            pair, pad = load(), PUBLISHED[name].pad if name in PUBLISHED else 0
            x, gt = _folder() if name == FOLDER else _of_one_size(data, pad)

            def problem(
                rule: str, points: int, pair: Pair = pair, x: Images = x, gt: Images = gt
            ) -> Problem:
                return Problem(*copy.deepcopy(pair), x, gt, points, rule)

            bar.set_description(f"{name}, float64")
            exact = own("torch", problem(*CONVERGED), "fp64")()[0]
            bar.update()
            entries = [RaceEntry(*contender) for contender in usual[name]]
            runs: list[Run] = []
            for entry in entries:
                bar.set_description(f"{name}, comparing {entry}")
                if entry.fewest:
                    bound = entries[0].mean_error
                    for entry.steps in TRIED:
                        entry.errors = _errors(_own(entry, problem(entry.rule, 0))()[0], exact)
                        if entry.mean_error <= bound:
                            break
                contest = problem(entry.rule, entry.steps or 0)
                start = time.perf_counter()
                runs.append(loop(contest) if entry.contender == "loop" else _own(entry, contest))
                scores = runs[-1]()[0]
                entry.first = time.perf_counter() - start
                entry.errors = _errors(scores, exact)
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
            result.pairs[name] = entries
            if keep is not None:
                keep(result)
    return result


def _of_one_size(data: Crops, pad: int) -> tuple[Tensor, Tensor]:
    """Join all degradations of crops, padded as a front end pads them."""
    x = reflected(torch.cat(list(data.lq.values())), pad)
    return x, data.gt.repeat(len(data.lq), 1, 1, 1)


def _folder() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Cut one image of every size of a folder out of the photographs, in turn blurred and noisy."""
    degradations = list(DEGRADATIONS.values())
    images = list(photographs(KEPT_OUT).values())
    xs, gts = [], []
    for n, (height, width) in enumerate(SIZES):
        gt = images[n % len(images)][None, :, : SCALE * height, : SCALE * width].contiguous()
        xs.append(degradations[n % len(degradations)](gt, seed=n))
        gts.append(gt)
    return tuple(xs), tuple(gts)


def _errors(scores: Tensor, exact: Tensor) -> list[float]:
    """Relative L1 error of each image's scores."""
    return ((scores.double() - exact).abs().sum(1) / exact.sum(1)).tolist()


def _own(entry: RaceEntry, problem: Problem) -> Run:
    """Call `faigfast.attribute`, and keep the points that it took."""

    def run() -> Scored:
        result = attribute(
            problem.baseline,
            problem.target,
            problem.batch,
            rule=entry.rule,
            steps=entry.steps,
            backend=entry.contender.removeprefix("faigfast-"),
        )
        entry.points = float(result.points.double().mean())
        return result.scores(), result.losses[0]

    return run


def _verdict(rows: Sequence[RaceEntry]) -> str:
    """Say whose mean error is not above the first one's, and whose is."""
    first, *others = rows
    above = [row for row in others if row.mean_error > first.mean_error]
    if not above:
        return f"  mean error: every rule is at most that of {first}"
    shown = ", ".join(f"{row} ({row.mean_error / first.mean_error:.2f} times)" for row in above)
    return f"  mean error: above that of {first} with {shown}; at most that with all others"


def _block(rows: Sequence[RaceEntry]) -> str:
    table_rows = []
    for row in rows:
        ratios = [a / b for a, b in zip(rows[0].seconds, row.seconds, strict=True)]
        table_rows.append(
            (
                row.contender,
                row.rule_in_words,
                f"{row.points:.4g}",
                f"{statistics.median(row.seconds):.2f}",
                f"{min(row.seconds):.2f}–{max(row.seconds):.2f}",
                f"{statistics.median(ratios):.1f}",
                f"{row.first:.2f}",
                f"{rows[0].first / row.first:.1f}" if row.first else "",
                f"{row.mean_error:.1e}",
                f"{row.mean_error / rows[0].mean_error:.2f}",
                f"{max(row.errors):.1e}",
            )
        )
    return aligned(HEADER, table_rows)
