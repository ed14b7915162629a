#!/usr/bin/env python3
"""Try and measure everything that runs on an NVIDIA GPU: `make gpu`, or `make gpu STAGE=kernels`.

Needs a GPU, torch with CUDA, pytest and, for the CUDA kernels, nvcc; no network. Builds in place
into the Python that runs this, then runs stages of less than eight minutes each, every one in a
process of its own, so that one that fails or hangs costs only itself:

correctness   tests on the device; memcheck and racecheck on small ones where compute-sanitizer is
kernels       every pass by every backend, beside the measured ceilings
hopper        tests and speed of the Hopper convolution, which is not taken by default
end_to_end    the experiment of the paper as a whole, then attributions in the rows of
              `faigfast bench`

Tables and figures go to benchmarks/results; the tables are printed once more at the end.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
STAGES = ("correctness", "kernels", "hopper", "end_to_end")
SECONDS = 470  # of a stage
PART = 130  # of one of its runs under a sanitizer

# What the stage end_to_end times: the networks, images and points of the line.
WORKLOADS = ("srresnet-256x1", "srresnet-48x16", "pair-64x4")
POINTS = 20


def main() -> int:
    """Run what the command line asks for; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument("--no-build", action="store_true", help="take what is built already")
    parser.add_argument("--run", choices=STAGES, help=argparse.SUPPRESS)  # one, in this process
    given = parser.parse_args()
    unknown = [stage for stage in given.stages if stage not in STAGES]
    if unknown:
        return say(f"STAGE is {unknown[0]!r}; expected one of {', '.join(STAGES)}", 2)
    why = no_gpu()
    if why:
        return say(f"make gpu needs an NVIDIA GPU: {why}", 2)
    os.chdir(ROOT)
    if given.run:
        return run_stage(given.run)
    if not given.no_build and build():
        return say("faigfast could not be built; --no-build takes what there is", 1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    states = {stage: start(stage) for stage in given.stages or STAGES}
    for stage in states:
        table = path_of(stage, "txt")
        if table.exists():
            print(f"\n== {stage}\n{table.read_text().rstrip()}")
    print("\n== stages")
    for stage, state in states.items():
        print(f"{stage:<12}{state}")
    return int(any(state != "passed" for state in states.values()))


def say(text: str, status: int) -> int:
    """Print an error; give the exit status."""
    print(f"faigfast: {text}", file=sys.stderr)
    return status


def no_gpu() -> str:
    """Why torch cannot use a GPU here; empty where it can."""
    try:
        import torch
    except ImportError:
        return f"{sys.executable} has no torch; set PYTHON to one that has"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} of {sys.executable} is built without CUDA"
    if not torch.cuda.is_available():
        return f"torch is built for CUDA {torch.version.cuda}, but finds no device or driver"
    return ""


def build() -> int:
    """Install in place, without a network; give pip's exit status."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-build-isolation", "--no-deps", "-e", str(ROOT)]
    mode = os.environ.get("FAIGFAST_BUILD") or ("cuda" if has_nvcc() else "auto")
    if mode != "cuda":
        say("nvcc was not found, so there are no CUDA kernels; their rows say so", 0)
    print(f"faigfast: building with FAIGFAST_BUILD={mode}", flush=True)
    return subprocess.run(command, env=os.environ | {"FAIGFAST_BUILD": mode}).returncode


def has_nvcc() -> bool:
    """Whether there is a compiler for the kernels."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or ""
    return bool(shutil.which("nvcc", path=os.path.join(home, "bin")) or shutil.which("nvcc"))


def path_of(stage: str, kind: str) -> Path:
    """Where a stage leaves its table or figures."""
    import torch

    name = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-")
    return RESULTS / f"{name}-{stage}.{kind}"


def start(stage: str) -> str:
    """Run a stage in a process of its own; say in one word or more how it ended."""
    path_of(stage, "txt").unlink(missing_ok=True)
    print(f"\n== {stage}", flush=True)
    command = [sys.executable, __file__, "--run", stage]
    began = time.monotonic()
    code = wait(command, SECONDS)
    seconds = f"{time.monotonic() - began:.0f} s"
    if code is None:
        return f"stopped after {seconds}"
    if code == 0:
        print(f"{stage}: {seconds}")
    return "passed" if code == 0 else f"failed with exit status {code} after {seconds}"


def wait(command: list[str], seconds: float, **variables: str) -> int | None:
    """Run a command; its exit status, or None where it and all it started had to be stopped."""
    process = subprocess.Popen(command, start_new_session=True, env=os.environ | variables)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def run_stage(stage: str) -> int:
    """Run a stage here."""
    return {
        "correctness": correctness,
        "kernels": kernels,
        "hopper": hopper,
        "end_to_end": end_to_end,
    }[stage]()


def command_line(stage: str) -> list[str]:
    """Give what was asked for, to stand beside the figures."""
    return ["make", "gpu", f"STAGE={stage}"]


def keep(stage: str, text: str) -> None:
    """Leave a stage's table."""
    path_of(stage, "txt").write_text(text + "\n")


def correctness() -> int:
    """Run the tests on the device, the small ones under compute-sanitizer too."""
    from faigfast.machine import describe_gpu

    lines = [describe_gpu("cuda")["gpu"]]
    runs = {"tests": [sys.executable, "-m", "pytest", "-q", "-rs", "--durations=5",
                      "tests/test_gpu_kernels.py", "tests/test_gpu_pairs.py"]}  # fmt: skip
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck") if sanitizer else ():
        # Only kernels of our own: their names hold the package's.
        runs[tool] = [
            str(sanitizer), "--tool", tool, "--kernel-name", "kernel_substring=faigfast",
            "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q", "-x", "-k", "small",
            "tests/test_gpu_kernels.py",
        ]  # fmt: skip
    if not sanitizer:
        lines.append("memcheck, racecheck: compute-sanitizer was not found")
    failed = False
    for name, command in runs.items():
        code = wait(command, PART if name != "tests" else SECONDS - 2 * PART - 20)
        state = {0: "passed", None: "stopped: it took too long"}.get(code, f"exit status {code}")
        lines.append(f"{name}: {state}")
        failed |= code != 0
        keep("correctness", "\n".join(lines))
    return int(failed)


def kernels() -> int:
    """Measure every pass by every backend."""
    from faigfast.bench.gpu import measure_gpu

    found = measure_gpu()
    found.command = command_line("kernels")
    found.save(path_of("kernels", "json"))
    keep("kernels", found.table())
    return 0


def hopper() -> int:
    """Try the Hopper convolution, and measure it where it is right."""
    from faigfast.bench.gpu import measure_gpu

    test = [sys.executable, "-m", "pytest", "-q", "-x", "-rs", "tests/test_gpu_hopper.py"]
    code = wait(test, PART)
    state = {0: "passed", None: "stopped: it took too long"}.get(code, f"exit status {code}")
    keep("hopper", f"tests: {state}")
    sanitizer = shutil.which("compute-sanitizer")
    if code == 0 and sanitizer:
        checked = wait(
            [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", *test, "-k", "small"], PART
        )
        state += f"; memcheck: {'passed' if checked == 0 else checked}"
    if code:
        return code
    if code is None:
        return 1
    found = measure_gpu(
        who=("torch", "hopper"), kinds=("fp16", "bf16"), passes=("forward",), pointwise=False
    )
    found.command = command_line("hopper")
    found.save(path_of("hopper", "json"))
    keep("hopper", f"tests: {state}\n{found.table()}")
    return 0


def end_to_end() -> int:
    """Time the whole experiment, then attributions one after the other; the first ones stay."""
    from faigfast import bench
    from faigfast.bench.rivals import contenders

    reports = []

    def found(name: str, report: "bench.Experiment | bench.Report") -> None:
        report.command = command_line("end_to_end")
        report.save(path_of(f"end_to_end-{name}", "json"))
        reports.append(report.table())
        keep("end_to_end", "\n\n".join(reports))
        print(reports[-1], flush=True)

    found("experiment", bench.experiment("cuda", progress=False))
    # Compiling takes a minute; what is compared with is the faster of the two.
    names = [name for name in contenders("cuda") if name != "compile"]
    for name in WORKLOADS:
        report = bench.benchmark(
            [name], steps=POINTS, repeats=3, contenders=names, device="cuda", progress=False
        )
        found(name, report)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(say("interrupted", 130))
