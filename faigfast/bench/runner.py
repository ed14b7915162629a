"""benchmark(): all contenders on one problem, first compared, then timed in turn."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from tqdm import tqdm

from faigfast.backend.precision import proper_float32
from faigfast.bench.first_run import first_run
from faigfast.bench.report import BenchmarkResult, ContenderResult, WorkloadResult
from faigfast.bench.rivals import Contender, Run, Scored, own
from faigfast.bench.rivals import contenders as everyone
from faigfast.bench.workloads import WORKLOADS, Problem, Workload, workload
from faigfast.io.environment import describe_gpu
from faigfast.io.progress import progress_bar

DEFAULT = ("srresnet-48x1", "pair-64x4")

# Largest error of an image for a float32 backend on trained networks: rounding flips single ReLU
# units, up to 2e-4 of the scores in plain PyTorch; a wrong result differs far more.
BOUND = 2e-3
LOSS_BOUND = 1e-4  # losses have no such jumps
# The same bounds for contenders in 16 bits.
NARROW_BOUNDS = (5e-2, 1e-2)
NARROW_SUFFIXES = ("-fp16", "-bf16")

# Above this work only the first images are compared, and the authors' way is timed on a part.
LARGE = 2e12  # FLOP
FEW, FEW_OF_FOLDER = 1, 3  # compared images above it
PART = 2  # points, of one image
SCALED = "authors"


def benchmark(
    workloads: Sequence[str] = DEFAULT,
    *,
    steps: int = 8,
    repeats: int = 5,
    contenders: Sequence[str] | None = None,
    first: bool = True,
    memory: bool = True,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> BenchmarkResult:
    """Time all contenders that compute FAIG, after comparing their results.

    In one process, each repeat runs every contender once, in a rotating order. All use
    torch's number of threads, the same networks in float32, the same images and nodes. First runs
    follow, in a rotating order too.

    Parameters
    ----------
    workloads : sequence of str
        Names as in `faigfast.bench.workload`; "all" means all of `WORKLOADS`.
    steps : int
        Points of the midpoint rule.
    repeats : int
        Timed runs of each contender, after one run to compare and warm up.
    contenders : sequence of str, optional
        Names: "authors", "loop", "vmap", "compile", "faigfast-reference", …; None: all.
    first : bool
        Time first runs too, `repeats` of each contender, every one in a process of its own; on a
        CPU alone.
    memory : bool
        Measure the peak memory of a process that runs a contender once; on a CPU alone.
    device : torch.device or str
        Device of networks and images. On a GPU no contender's float32 convolutions are rounded to
        tf32.
    progress : bool
        Show a progress bar.

    Returns
    -------
    BenchmarkResult
        A contender that cannot run, or computes something else, has a row with the reason and no
        speed.

    Raises
    ------
    TypeError
        If `steps` or `repeats` is not an integer.
    ValueError
        If a name is unknown, or `steps` or `repeats` is not positive.

    Examples
    --------
    >>> report = benchmark(["tiny-8x1"], repeats=1, contenders=["loop"], first=False,
    ...                    memory=False, progress=False)
    >>> report.sections[0].row("loop").error < 1e-4
    True
    """
    for argument, value in (("steps", steps), ("repeats", repeats)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{argument} is {value!r}; expected a positive integer")
        if value < 1:
            raise ValueError(f"{argument} is {value}; expected a positive integer")
    known = everyone(device)
    on_cpu = torch.device(device).type == "cpu"
    processes = max(repeats * first, int(memory)) if on_cpu else 0
    contender_names = _names("contenders", known if contenders is None else contenders)
    for name in contender_names:
        if name not in known:
            raise ValueError(f"contender is {name!r}; expected one of {', '.join(known)}")
    names = _names("workloads", workloads)
    chosen = [workload(name) for name in (WORKLOADS if "all" in names else names)]
    with progress_bar(unit="run", disable=not progress) as bar:
        bar.total = len(chosen) * (1 + len(contender_names) * (1 + repeats + processes))
        chosen_contenders = {name: known[name] for name in contender_names}
        run = _BenchmarkRun(
            chosen_contenders, steps, repeats, first, memory, processes, torch.device(device), bar
        )
        with nullcontext() if on_cpu else proper_float32():
            result = BenchmarkResult([run.section(one) for one in chosen], BOUND, LOSS_BOUND)
    if not on_cpu:
        result.machine |= describe_gpu(device)
        result.narrow_bounds = NARROW_BOUNDS
    return result


def exact(problem: Problem) -> Scored:
    """Compute scores [N, F] and losses [N, 2] by the literal loop in float64."""
    return own("reference", problem, "fp64")()


def errors(computed: Scored, expected: Scored) -> tuple[float, float]:
    """Compare scores and losses with float64's, over the images of `expected`.

    Returns
    -------
    scores : float
        The worst image's relative L1 error.
    losses : float
        The worst relative error of a loss.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    differences = []
    for a, b in zip(computed, expected, strict=True):
        a = a[: len(b)].cpu().double()
        if a.shape != b.shape:
            raise ValueError(f"it computes {list(a.shape)}; expected {list(b.shape)}")
        differences.append((a - b).abs())
    scores = differences[0].sum(1) / expected[0].abs().sum(1)
    # torch's max, unlike Python's, keeps NaN.
    return scores.max().item(), (differences[1] / expected[1].abs()).max().item()


def _names(argument: str, names: Iterable[str]) -> list[str]:
    """List names in order, each once."""
    if isinstance(names, str):
        raise TypeError(f"{argument} is {names!r}; expected a sequence of names")
    different = list(dict.fromkeys(names))
    if not different:
        raise ValueError(f"{argument} is empty; expected at least one name")
    return different


@dataclass(frozen=True)
class _Entry:
    """A contender to time: its row, its problem, and its run."""

    row: ContenderResult
    problem: Problem
    run: Run


@dataclass(frozen=True)
class _BenchmarkRun:
    """One call of `benchmark`, after its arguments were checked."""

    contenders: dict[str, Contender]
    steps: int
    repeats: int
    first: bool
    memory: bool
    processes: int
    device: torch.device
    bar: tqdm

    def section(self, chosen: Workload) -> WorkloadResult:
        """Compare, time and measure all contenders on one workload."""
        problem = chosen.problem(self.steps).to(self.device)
        large = problem.flops > LARGE
        images = len(chosen.sizes)
        few = min(FEW_OF_FOLDER if chosen.is_folder else FEW, images)
        compared = few if large else images
        checked = "every image"
        if compared < images:
            checked = "first image" if compared == 1 else f"first {compared} images"
        section = WorkloadResult(chosen.name, str(chosen), self.steps, problem.flops, checked)
        with self.doing(f"{chosen.name}, float64"):
            part = chosen.problem(self.steps, compared).to(self.device) if large else problem
            expected = exact(part)
        entries = []
        for name, prepare in self.contenders.items():
            row = ContenderResult(name)
            section.rows.append(row)
            # Part of a folder lacks some of its image sizes.
            scaled = large and name == SCALED and not chosen.is_folder
            with self.doing(f"{chosen.name}, comparing {name}"):
                run = _compare(row, prepare, part if scaled else problem, expected)
            if run is None:
                self.bar.total -= self.repeats + self.processes
            elif scaled:
                timed = chosen.problem(min(self.steps, PART), 1).to(self.device)
                row.scaled = f"{timed.steps} of {self.steps} points, 1 of {images} images"
                entries.append(_Entry(row, timed, prepare(timed)))
            else:
                entries.append(_Entry(row, problem, run))
        for repeat in range(self.repeats):
            for entry in _rotated(entries, repeat):
                with self.doing(f"{chosen.name}, timing {entry.row.contender}"):
                    seconds = self.seconds(entry.run) * _work(problem) / _work(entry.problem)
                    entry.row.seconds.append(seconds)
        for repeat in range(self.processes):
            for entry in _rotated(entries, repeat):
                with self.doing(f"{chosen.name}, first run of {entry.row.contender}"):
                    self.run_first(entry, chosen.name)
        return section

    def run_first(self, entry: _Entry, name: str) -> None:
        """Run a contender once in a process of its own; the row says if it fails."""
        row, problem = entry.row, entry.problem
        timed = self.first and not row.scaled  # one-time costs do not grow with the work
        measured = self.memory and row.memory is None
        if row.note or not (timed or measured):
            return
        try:
            measured_run = first_run(name, row.contender, problem.steps, len(problem.x))
        except RuntimeError as failure:
            row.note = f"no first run: {_error_line(failure)}"
            return
        if measured:
            row.memory = measured_run.peak
        if timed:
            row.first.append(measured_run.seconds)

    def seconds(self, run: Run) -> float:
        """Time one run, waiting for the device before it and in it."""

        def waited() -> None:
            run()
            self.wait()

        self.wait()
        return _seconds(waited)

    def wait(self) -> None:
        """Wait for a GPU to finish; a CPU has nothing to wait for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show one step in the progress bar."""
        self.bar.set_description(what)
        yield
        self.bar.update()


def _compare(
    row: ContenderResult, prepare: Contender, problem: Problem, expected: Scored
) -> Run | None:
    """Run once, to compare and warm up; None, with the reason in the row, if it fails."""
    try:
        run = prepare(problem)
        scores, losses = errors(run(), expected)
    except Exception as failure:  # the other contenders go on, and this row says why
        row.reason = f"cannot run here: {_error_line(failure)}"
        return None
    row.error = scores if math.isfinite(scores) else None
    bounds = NARROW_BOUNDS if row.contender.endswith(NARROW_SUFFIXES) else (BOUND, LOSS_BOUND)
    for what, error, bound in zip(("scores", "losses"), (scores, losses), bounds, strict=True):
        if not error <= bound:
            row.reason = f"relative error {error:.1e} of the {what}, over the bound of {bound:g}"
            return None
    return run


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _work(problem: Problem) -> int:
    """Count pixels of forwards: three a point (a backward costs two), and two end losses."""
    return sum(x[0, 0].numel() for x, _ in problem.images()) * (3 * problem.steps + 2)


def _rotated(entries: list[_Entry], repeat: int) -> list[_Entry]:
    """Begin with another entry in every repeat."""
    shift = repeat % len(entries) if entries else 0
    return entries[shift:] + entries[:shift]


def _error_line(failure: Exception) -> str:
    """Shorten an error to one line; compilers fill many."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    end = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), None)
    return " ".join(lines[:end])[:300] or type(failure).__name__
