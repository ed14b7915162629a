"""experiment(): the paper's complete experiment on a device, by faigfast and the authors' way."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faigfast.attribution.one_call import attribute
from faigfast.bench.families import FAMILIES, SCALE, SEED, Pair
from faigfast.bench.rivals import Run, authors, own
from faigfast.bench.runner import BOUND, NARROW_BOUNDS, errors
from faigfast.bench.workloads import Problem, drawn
from faigfast.data.degradations import Degradation
from faigfast.io.atomic import write_json
from faigfast.io.environment import describe_gpu, describe_machine, describe_versions
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import aligned, counted

# Heights and widths of the 14 images, cut to even numbers; the images are drawn at random.
SET14 = {
    "baboon": (480, 500), "barbara": (576, 720), "bridge": (512, 512), "coastguard": (288, 352),
    "comic": (360, 250), "face": (276, 276), "flowers": (362, 500), "foreman": (288, 352),
    "lenna": (512, 512), "man": (512, 512), "monarch": (512, 768), "pepper": (512, 512),
    "ppt3": (656, 528), "zebra": (390, 586),
}  # fmt: skip
DEGRADATIONS = {"blur": Degradation(blur=2.0), "noise": Degradation(noise=0.1)}
WAYS = (("torch", "fp32"), ("triton", "fp16"), ("cuda", "fp16"), ("auto", "auto"))
AUTHORS = ("left", 100)
RULE, POINTS = "graded", (6, 8, 10, 12, 16, 24, 32)
CONVERGED = ("gauss-legendre", 96)
DIRECTIONS = 2  # the authors' scripts run blur against noise and noise against blur
PART = 2  # points for which the authors' way is timed, of one image under one degradation
CROP, CROPS = 48, 2  # side in low-resolution pixels, and number, of crops for the accuracy
HEADER = ("", "ran as", "points", "seconds", "min–max", "× authors", "error", "error of 100 left")


@dataclass
class WayResult:
    """One way to run the experiment, with its time and error.

    Attributes
    ----------
    who : str
        Backend and precision, or "authors".
    ran : str
        The backend and precision that ran.
    points : int
        Points of the line.
    seconds : list of float
        Time of the complete experiment, in every repeat.
    error : float or None
        Mean relative L1 error of the trained pair's scores at these points, against converged ones.
    off : float or None
        Worst relative L1 difference of the smallest image's scores from float64 at the same points.
    scaled : str
        The timed part that seconds were scaled from.
    reason : str
        Why there is no speed.
    ratio : float or None
        Seconds of the authors' way in the same process, over these seconds.
    """

    who: str
    ran: str = ""
    points: int = 0
    seconds: list[float] = field(default_factory=list)
    error: float | None = None
    off: float | None = None
    scaled: str = ""
    reason: str = ""
    ratio: float | None = None


@dataclass
class Experiment:
    """Result of `experiment`.

    Attributes
    ----------
    title : str
        Networks, images and degradations.
    rows : list of WayResult
        The authors' way first.
    goal : float
        Mean error of the authors' 100 points on the trained pair.
    """

    title: str
    rows: list[WayResult]
    goal: float
    machine: dict[str, Any]
    versions: dict[str, str] = field(default_factory=describe_versions)
    command: list[str] = field(default_factory=list)

    def table(self) -> str:
        """Align the rows as text, and say what the columns mean."""
        lines = [self._cells(row) for row in self.rows]
        remarks = [f"  {row.who}: {row.reason}" for row in self.rows if row.reason]
        remarks += [f"  {row.who}: scaled from {row.scaled}" for row in self.rows if row.scaled]
        return "\n".join(
            [
                self.title,
                aligned(HEADER, lines),
                *remarks,
                f"{self.machine.get('gpu', self.machine['cpu'])}, torch {self.versions['torch']}",
                "seconds: of the whole experiment, median, once graphs were captured and kernels "
                "compiled; error: mean relative L1",
                f"of the shipped pair's scores at these points, against {CONVERGED[0]} "
                f"{CONVERGED[1]} in float64, which must not be above that of",
                "100 left points. The authors run either direction apart, faigfast both at once; "
                "theirs is in float32 as torch",
                "sets it by default, which lets cuDNN round to tf32.",
            ]
        )

    def _cells(self, row: WayResult) -> tuple[str, ...]:
        error = "–" if row.error is None else f"{row.error:.1e}"
        shown = (row.who + ("*" if row.scaled else ""), row.ran or "–", str(row.points or "–"))
        if not row.seconds:
            return (*shown, "–", "no speed", "–", error, f"{self.goal:.1e}")
        seconds = statistics.median(row.seconds)
        return (
            *shown,
            f"{seconds:.3f}",
            f"{min(row.seconds):.3f}–{max(row.seconds):.3f}",
            "–" if row.ratio is None else f"{row.ratio:.1f}",
            error,
            f"{self.goal:.1e}",
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Experiment":
        """Rebuild the result from its saved JSON."""
        return cls(**{**saved, "rows": [WayResult(**row) for row in saved["rows"]]})


def joined(parts: Sequence[Experiment]) -> Experiment:
    """Join results of several processes on one device; the authors' row is the first process's."""
    return replace(parts[0], rows=parts[0].rows[:1] + [r for part in parts for r in part.rows[1:]])


def experiment(
    device: torch.device | str = "cuda",
    *,
    sizes: Mapping[str, tuple[int, int]] = SET14,
    family: str = "srresnet",
    ways: Sequence[tuple[str, str]] = WAYS,
    points: Sequence[int] = POINTS,
    crop: int = CROP,
    repeats: int = 3,
    progress: bool = True,
    on_row: Callable[[Experiment], object] | None = None,
) -> Experiment:
    """Time the attribution of all images under two degradations, in both directions.

    Parameters
    ----------
    device : torch.device or str
        The device to run on.
    sizes : mapping of str to (int, int)
        Height and width of every ground truth.
    family : str
        Of `faigfast.bench.families.FAMILIES`; its networks are timed.
    ways : sequence of (str, str)
        Backends and precisions.
    points : sequence of int
        Numbers of points of the graded rule to try, in order. The first that is as accurate as the
        authors' 100 on the shipped pair, in the timed precision, is taken.
    crop : int
        Side of the images for that comparison, in low-resolution pixels.
    repeats : int
        Timed runs of each way, after one to warm up.
    progress : bool
        Show a progress bar.
    on_row : callable, optional
        Called after every way with the result so far.
    """
    device = torch.device(device)
    nets = _on(FAMILIES[family].pair(), device)
    parts = [_batch(shape, names, device) for shape, names in _by_size(sizes).items()]
    pixels = sum(h * w for h, w in sizes.values()) / 1e6
    result = Experiment(
        f"{FAMILIES[family].title}; {counted(len(sizes), 'drawn image')}, {pixels:.2f} megapixels "
        f"of ground truth; {', '.join(DEGRADATIONS)}; both directions",
        [],
        math.nan,
        describe_machine() | describe_gpu(device),
    )
    with progress_bar(total=2 + 2 * len(ways), unit="step", disable=not progress) as bar:

        def step(what: str) -> None:
            bar.set_description(what)
            bar.update()

        @contextmanager
        def done_with(row: WayResult) -> Iterator[None]:
            result.rows.append(row)
            try:
                yield
            except Exception as failure:  # the other ways go on, and this row says why
                lines = str(failure).strip().splitlines() or [type(failure).__name__]
                row.reason = lines[0][:300]
            authors_seconds = result.rows[0].seconds
            if row.seconds and authors_seconds:
                row.ratio = statistics.median(authors_seconds) / statistics.median(row.seconds)
            if on_row is not None:
                on_row(result)

        step("accuracy of 100 left points")
        trained = _TrainedPair(device, crop)
        result.goal = trained.error("torch", "fp64", *AUTHORS)
        step("authors")
        row = WayResult("authors", "float32", AUTHORS[1], error=result.goal)
        with done_with(row):
            _authors(row, nets, parts, sizes, device)
        for backend, precision in ways:
            row = WayResult(f"faigfast {backend} {precision}")
            with done_with(row):
                step(f"{row.who}, points")
                _fewest(row, trained, backend, precision, points, result.goal)
                step(f"{row.who}, time")
                if not row.reason:
                    _time(row, nets, parts, backend, precision, repeats, device)
    return result


def _on(pair: Pair, device: torch.device) -> Pair:
    baseline, target = (net.to(device) for net in pair)
    return baseline, target


def _by_size(sizes: Mapping[str, tuple[int, int]]) -> dict[tuple[int, int], list[str]]:
    """Names of the images of every size, smallest first; images of one size run together."""
    names_by_size: dict[tuple[int, int], list[str]] = {}
    for name, shape in sorted(sizes.items(), key=lambda item: item[1][0] * item[1][1]):
        names_by_size.setdefault(shape, []).append(name)
    return names_by_size


def _batch(shape: tuple[int, int], names: Sequence[str], device: torch.device) -> dict[str, Any]:
    gt = drawn(len(names), *shape, torch.Generator().manual_seed(SEED))
    lq = {name: degrade(gt).to(device) for name, degrade in DEGRADATIONS.items()}
    return {"lq": lq, "gt": gt.to(device)}


class _TrainedPair:
    """The shipped pair on drawn images, with its converged scores in float64."""

    def __init__(self, device: torch.device, crop: int) -> None:
        self.nets = _on(FAMILIES["pair"].pair(), device)
        self.batch = _batch((SCALE * crop, SCALE * crop), "ab"[:CROPS], device)
        self.exact = self.scores("torch", "fp64", *CONVERGED)[0]

    def scores(self, backend: str, precision: str, rule: str, steps: int) -> tuple[Tensor, str]:
        """Scores [D·N, F], with the backend and precision that computed them."""
        result = attribute(
            *self.nets, self.batch, rule=rule, steps=steps, backend=backend, precision=precision
        )
        scores = torch.cat([result.scores(name).double() for name in result.degradations])
        return scores, f"{result.backend} {result.precision}"

    def error(self, backend: str, precision: str, rule: str, steps: int) -> float:
        """Mean relative L1 error."""
        scores = self.scores(backend, precision, rule, steps)[0]
        difference = (scores - self.exact).abs().sum(1) / self.exact.sum(1)
        return float(difference.mean())


def _fewest(
    row: WayResult,
    trained: _TrainedPair,
    backend: str,
    precision: str,
    points: Sequence[int],
    goal: float,
) -> None:
    """Find the fewest points that are as accurate as the authors' 100."""
    for row.points in points:
        row.error = trained.error(backend, precision, RULE, row.points)
        if row.error <= goal:
            return
    row.reason = (
        f"with {counted(row.points, 'point')} the error is {row.error:.1e}, above {goal:.1e}"
    )


def _time(
    row: WayResult,
    nets: Pair,
    parts: Sequence[dict[str, Any]],
    backend: str,
    precision: str,
    repeats: int,
    device: torch.device,
) -> None:
    """Compare the smallest image with float64, then time all."""
    run = partial(
        attribute, *nets, rule=RULE, steps=row.points, backend=backend, precision=precision
    )
    small = {
        "lq": {name: x[:1] for name, x in parts[0]["lq"].items()},
        "gt": parts[0]["gt"][:1],
    }
    result = run(small)
    row.ran = f"{result.backend} {result.precision}"
    exact = attribute(*nets, small, rule=RULE, steps=row.points, backend="torch", precision="fp64")
    row.off = max(
        errors((result.scores(k), result.losses[n]), (exact.scores(k), exact.losses[n]))[0]
        for n, k in enumerate(exact.degradations)
    )
    bound = BOUND if result.precision == "fp32" else NARROW_BOUNDS[0]
    if not row.off <= bound:
        row.reason = f"relative error {row.off:.1e} of the scores, over the bound of {bound:g}"
        return
    run(iter(parts))  # every size once
    row.seconds = [_seconds(lambda: run(iter(parts)), device) for _ in range(repeats)]


def _authors(
    row: WayResult,
    nets: Pair,
    parts: Sequence[dict[str, Any]],
    sizes: Mapping[str, tuple[int, int]],
    device: torch.device,
) -> None:
    """Time the authors' way on a part, and scale it by pixels, points, degradations, directions."""
    part = parts[len(parts) // 2]
    x, gt = part["lq"]["noise"][:1], part["gt"][:1]
    problem = Problem(*nets, x, gt, PART, AUTHORS[0])
    corner, its_gt = x[..., :16, :16], gt[..., : 16 * SCALE, : 16 * SCALE]
    small = Problem(*nets, corner, its_gt, PART, AUTHORS[0])
    row.off = errors(authors(small)(), own("reference", small, "fp64")())[0]
    run: Run = authors(problem)
    run()
    seconds = [_seconds(run, device) for _ in range(3)]
    height, width = gt.shape[2:]
    pixels = sum(h * w for h, w in sizes.values())
    # Three forwards a point, since a backward costs two, and the losses at the ends.
    work = (3 * AUTHORS[1] + 2) / (3 * PART + 2)
    factor = pixels / (height * width) * work * len(DEGRADATIONS) * DIRECTIONS
    row.seconds = [factor * one for one in seconds]
    row.scaled = (
        f"{PART} of {AUTHORS[1]} points of one image of {height}×{width} under one degradation in "
        f"one direction, {statistics.median(seconds):.3f} s"
    )


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start
