"""The stages of `make gpu`: which commands each runs, and how long they may take."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # before faigfast is built it cannot be imported
    from gpu_results import Results

SECONDS = 470  # of a stage; the shares of its steps add up to no more

# Triton's kernels bear the names of their functions, the CUDA kernels the package's in theirs.
KERNELS = (
    "faigfast", "path_weights", "conv_forward", "conv_input_gradient", "conv_weight_gradient",
    "channels_forward", "channels_backward", "squared_error", "score_reduction",
)  # fmt: skip
TRIVIAL = "import torch; assert torch.ones(3, device='cuda').sum().item() == 3"

POINTS = 20  # of the line, end to end
# What is compared with stands in each process, which has its own backend.
YARDSTICKS = ("loop", "loop-fp16")
WHO = {
    # Compiling takes a minute; what is compared with is the faster of the two.
    "rivals and torch": (
        "authors", *YARDSTICKS, "vmap", "compile-fp16", "faigfast-torch", "faigfast-torch-fp16",
    ),
    "triton": (*YARDSTICKS, "faigfast-triton", "faigfast-triton-fp16"),
    "cuda": (*YARDSTICKS, "faigfast-cuda", "faigfast-cuda-fp16"),
}  # fmt: skip
# Seconds of each of them.
END_TO_END = {"srresnet-256x1": (130, 230, 110)}
SMALL = {"srresnet-48x16": (80, 130, 60), "pair-64x4": (70, 80, 50)}
WAYS = {
    ("torch", "fp32"): 90,
    ("triton", "fp16"): 160,
    ("cuda", "fp16"): 110,
    ("auto", "auto"): 110,
}


@dataclass(frozen=True)
class Step:
    """One process of a stage.

    Parameters
    ----------
    name : str
    command : list of str
        Empty where it cannot run.
    seconds : float
        Its share of the stage's time; what steps before it left comes on top.
    variables : dict of str
        Of the environment.
    needs : str
        The step that must have passed; without it this one is left out.
    asks : bool
        Whether it only asks what can be done here: then its failing is none of the stage's.
    why : str
        Why it cannot run.
    """

    name: str
    command: list[str]
    seconds: float
    variables: dict[str, str] = field(default_factory=dict)
    needs: str = ""
    asks: bool = False
    why: str = ""


def correctness() -> list[Step]:
    """Every kernel against float64."""
    # Compiling is most of it.
    parallel = ["-n", "4"] if find_spec("xdist") else []
    return [
        Step("cuda", tests("test_gpu_kernels.py"), 110),
        Step("triton", tests("test_triton_device.py", *parallel), 360),
    ]


def pairs() -> list[Step]:
    """Every backend and precision on trained pairs, and a photograph of usual size."""
    shares = {"torch": 40, "triton": 190, "cuda": 80}
    ranked = [
        Step(name, tests("test_gpu_pairs.py", "-rsP", "-k", f"test_rankings and {name}"), seconds)
        for name, seconds in shares.items()
    ]
    return [
        *ranked,
        Step("auto", tests("test_gpu_pairs.py", "-rsP", "-k", "not test_rankings"), 110),
        Step("photograph", tests("test_gpu_photograph.py", "-rsP"), 50, {"FAIGFAST_TUNE": "0"}),
    ]


def sanitizers() -> list[Step]:
    """Run the small tests under memcheck and racecheck."""
    small = {
        "cuda": ("test_gpu_kernels.py", 90, 100),
        "triton": ("test_triton_device.py", 110, 130),
    }
    return sanitized({name: (tests(file, "-k", "small"), *s) for name, (file, *s) in small.items()})


def kernels() -> list[Step]:
    """Measure every pass by every backend."""
    shares = {"torch": 90, "triton": 240, "cuda": 140}
    return [Step(who, measure("kernels", who), seconds) for who, seconds in shares.items()]


def end_to_end() -> list[Step]:
    """Time one large image by everyone."""
    return list(timed("end_to_end", END_TO_END))


def end_to_end_small() -> list[Step]:
    """Time several small images by everyone."""
    return list(timed("end_to_end_small", SMALL))


def timed(stage: str, workloads: dict[str, tuple[int, ...]]) -> Iterator[Step]:
    """Give the steps of some workloads."""
    for name, shares in workloads.items():
        for who, seconds in zip(WHO, shares, strict=True):
            step = f"{name}, {who}"
            yield Step(step, measure(stage, step), seconds)


def experiment() -> list[Step]:
    """Time the whole experiment of the paper."""
    return [
        Step(" ".join(way), measure("experiment", " ".join(way)), seconds)
        for way, seconds in WAYS.items()
    ]


def hopper() -> list[Step]:
    """Try the Hopper convolution, and measure it where it is right."""
    test = tests("test_gpu_hopper.py", "-x")
    return [
        Step("tests", test, 100),
        Step("speed", measure("hopper", "speed"), 100, needs="tests"),
        *sanitized({"small": ([*test, "-k", "small"], 100, 120)}),
    ]


STAGES: dict[str, Callable[[], list[Step]]] = {
    part.__name__: part
    for part in (
        correctness, pairs, sanitizers, kernels, end_to_end, end_to_end_small, experiment, hopper
    )
}  # fmt: skip


def tests(file: str, *options: str) -> list[str]:
    """Give the command that runs a file of tests, and says what was skipped and what took long."""
    return [sys.executable, "-m", "pytest", "-rs", "--durations=5", f"tests/gpu/{file}", *options]


def measure(stage: str, step: str) -> list[str]:
    """Give the command of a step that measures."""
    return [sys.executable, str(Path(__file__).with_name("gpu.py")), "--run", stage, step]


def sanitized(runs: dict[str, tuple[list[str], float, float]]) -> list[Step]:
    """Give the steps that run commands under memcheck, then racecheck, in their seconds."""
    tool = sanitizer()
    if not tool:
        return [Step("compute-sanitizer", [], 0, asks=True, why="it was not found")]
    # On some machines it is there, and cannot serve the device.
    probe = [tool, "--tool", "memcheck", sys.executable, "-c", TRIVIAL]
    steps = [Step("compute-sanitizer", probe, 40, asks=True)]
    only = [word for name in KERNELS for word in ("--kernel-name", f"kernel_substring={name}")]
    for number, check in enumerate(("memcheck", "racecheck")):
        # Errors of calls are of torch, which asks for what may not be there.
        options = ["--tool", check, "--report-api-errors", "no", "--error-exitcode", "9", *only]
        for name, (command, *seconds) in runs.items():
            steps.append(
                Step(
                    f"{check}, {name}",
                    [tool, *options, *command],
                    seconds[number],
                    # Tensors of their own memory, so that what is beyond one is beyond its block.
                    {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "FAIGFAST_TUNE": "0"},
                    needs="compute-sanitizer",
                )
            )
    return steps


def sanitizer() -> str:
    """Find compute-sanitizer on the path, in CUDA_HOME, or beside nvcc; empty where it is not."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [os.path.join(home, "bin") for home in homes if home] + compiler_places()
    tools = (shutil.which("compute-sanitizer", path=place) for place in places)
    return shutil.which("compute-sanitizer") or next(filter(None, tools), "")


def compiler_places() -> list[str]:
    """Folders of the nvcc on the path, be that a link or a script that calls it."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder, "empty.cu")
        empty.touch()
        try:
            said = subprocess.run(
                [compiler, "--dryrun", str(empty)], capture_output=True, text=True, timeout=30
            ).stderr
        except (OSError, subprocess.TimeoutExpired):
            said = ""
    own = re.findall(r"^#\$ _HERE_=(.+)$", said, re.MULTILINE)
    return [*own, str(Path(compiler).resolve().parent)]


def run(stage: str, step: str) -> int:
    """Measure in this process; what there is is saved after every row."""
    from gpu_results import Results

    results = Results.read(stage)

    def keep(figures: Any, table: str, name: str = "") -> None:
        results.found[step] = figures
        results.tables[name] = table
        results.save()

    {
        "kernels": _kernels, "hopper": _hopper, "experiment": _experiment,
        "end_to_end": _end_to_end, "end_to_end_small": _end_to_end,
    }[stage](step, results, keep)  # fmt: skip
    return 0


def _kernels(who: str, results: "Results", keep: Callable[..., None]) -> None:
    from faigfast.bench.gpu import GpuKernels, joint_table, measure_gpu

    before = [GpuKernels.of(part) for part in results.found.values()]

    def on_row(own: GpuKernels) -> None:
        print(*own.cells(own.rows[-1]), own.rows[-1].reason, flush=True)
        keep(asdict(own), joint_table([*before, own]))

    measure_gpu(who=[who], progress=False, on_row=on_row)


def _hopper(step: str, results: "Results", keep: Callable[..., None]) -> None:
    from faigfast.bench.gpu import measure_gpu

    measure_gpu(
        who=("torch", "hopper"), kinds=("fp16", "bf16"), passes=("forward",), pointwise=False,
        progress=False, on_row=lambda own: keep(asdict(own), own.table()),
    )  # fmt: skip


def _experiment(step: str, results: "Results", keep: Callable[..., None]) -> None:
    from faigfast.bench.experiment import Experiment, experiment, joined

    before = [Experiment.of(part) for part in results.found.values()]
    experiment(
        "cuda", ways=[tuple(step.split())], progress=False,
        on_row=lambda own: keep(asdict(own), joined([*before, own]).table()),
    )  # fmt: skip


def _end_to_end(step: str, results: "Results", keep: Callable[..., None]) -> None:
    from faigfast.bench import benchmark

    name, _, who = step.partition(", ")
    report = benchmark(
        [name], steps=POINTS, repeats=3, contenders=WHO[who], device="cuda", progress=False
    )
    # What the columns mean stands once, below all.
    block, _, remarks = report.table().rpartition("\n\n")
    results.tables.pop("remarks", None)
    results.tables |= {step: block}
    keep(report.content(), remarks, "remarks")
    print(block, flush=True)
