#!/usr/bin/env python3
"""Try and measure everything that runs on an NVIDIA GPU: `make gpu`, or `make gpu STAGE=kernels`.

Needs a GPU, torch with CUDA, pytest and, for the CUDA kernels, nvcc; no network. Builds in place
into the Python that runs this, then runs stages of less than eight minutes each, of one process or
several, so that one that fails or hangs costs only itself:

correctness        every kernel against float64
pairs              every backend and precision on trained pairs; a large photograph
sanitizers         small tests under memcheck and racecheck, where compute-sanitizer serves
kernels            every pass by every backend, beside the measured ceilings
end_to_end         one large image in the rows of `faigfast bench`
end_to_end_small   several small images in the same rows
experiment         the experiment of the paper as a whole
hopper             tests and speed of the Hopper convolution, which is not taken by default

Tables, figures and all output go to benchmarks/results, or to the folder FAIGFAST_RESULTS; the
tables are printed once more at the end.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpu_stages import SECONDS, STAGES, run

ROOT = Path(__file__).resolve().parents[1]
MODES = ("auto", "none")  # of the build, where what was asked for fails
SAID = 1 << 16  # characters of a command's output that are looked through for how it ended


def main() -> int:
    """Run what the command line asks for; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="all where none is named")
    parser.add_argument("--no-build", action="store_true", help="take what is built already")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)  # a stage's step, here
    given = parser.parse_args()
    unknown = [stage for stage in given.stages if stage not in STAGES]
    if unknown:
        return say(f"STAGE is {unknown[0]!r}; expected one of {', '.join(STAGES)}", 2)
    why = no_gpu()
    if why:
        return say(f"make gpu needs an NVIDIA GPU: {why}", 2)
    os.chdir(ROOT)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not given.no_build and not given.run:
        return build_and_go_on(given.stages)
    try:
        from faigfast import attribute  # noqa: F401
    except ImportError as problem:
        return say(f"{sys.executable} cannot import faigfast ({problem}); build it first", 1)
    if given.run:
        return run(*given.run)
    try:
        return run_stages(given.stages or list(STAGES))
    except (ValueError, OSError) as problem:  # of a folder that cannot be written
        return say(str(problem), 1)


def say(text: str, status: int) -> int:
    """Print an error; give the exit status."""
    print(f"faigfast: {text}", file=sys.stderr, flush=True)
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


def build_and_go_on(stages: Sequence[str]) -> int:
    """Build, then start anew: this Python does not see what was installed meanwhile."""
    if build():
        return say("faigfast could not be built; --no-build takes what there is", 1)
    restart([sys.executable, __file__, "--no-build", *stages])
    return 0


def restart(command: list[str]) -> None:
    """Become another command."""
    os.execv(command[0], command)


def build() -> int:
    """Install in place, without a network; give pip's exit status.

    Where the CUDA kernels cannot be built, the rest is: Triton's kernels need no compiler of ours.
    """
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--no-build-isolation", "--no-deps", "-e", str(ROOT)]
    first = os.environ.get("FAIGFAST_BUILD") or ("cuda" if has_nvcc() else "auto")
    if first != "cuda":
        say("nvcc was not found or not asked for, so there are no CUDA kernels; rows say so", 0)
    code = 1
    for mode in dict.fromkeys((first, *MODES)):
        print(f"faigfast: building with FAIGFAST_BUILD={mode}", flush=True)
        code = subprocess.run(command, env=os.environ | {"FAIGFAST_BUILD": mode}).returncode
        if code == 0:
            break
        say(f"the build with FAIGFAST_BUILD={mode} failed, as said above; trying with less", 0)
    return code


def has_nvcc() -> bool:
    """Whether there is a compiler for the kernels."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or ""
    return bool(shutil.which("nvcc", path=os.path.join(home, "bin")) or shutil.which("nvcc"))


def run_stages(stages: Sequence[str]) -> int:
    """Run stages one after the other, print their tables, and give the exit status."""
    from gpu_results import path_of

    states = {stage: run_stage(stage) for stage in stages}
    for stage in states:
        print(f"\n== {stage}\n{path_of(stage, 'txt').read_text(encoding='utf-8').rstrip()}")
    print("\n== stages")
    for stage, state in states.items():
        print(f"{stage:<18}{state}", flush=True)
    return int(any(state.startswith("failed") for state in states.values()))


def run_stage(stage: str) -> str:
    """Run the steps of a stage; say how it ended."""
    from gpu_results import Results, path_of

    print(f"\n== {stage}", flush=True)
    results = Results.begin(stage)
    began = time.monotonic()
    steps = STAGES[stage]()
    for number, step in enumerate(steps):
        later = sum(other.seconds for other in steps[number + 1 :])
        limit = SECONDS - (time.monotonic() - began) - later
        print(f"-- {step.name}", flush=True)
        state, seconds = run_step(step, limit, results.steps, path_of(stage, "log"))
        results = Results.read(stage)  # with what the step measured
        results.steps[step.name] = {
            "state": state, "seconds": seconds, "command": step.command,
            "counts": not step.asks,
        }  # fmt: skip
        results.save()
        print(f"-- {step.name}: {state}, {seconds:.0f} s", flush=True)
    return f"{told(results.steps)}; {time.monotonic() - began:.0f} s"


def told(steps: dict[str, dict[str, Any]]) -> str:
    """Say how a stage ended by how its steps did."""
    passed, failed, left_out = [], [], []
    for name, step in steps.items():
        not_run = not step["counts"] or step["state"].startswith("not run")
        ran = step["state"].startswith("passed")
        (passed if ran else left_out if not_run else failed).append(name)
    if not passed and not failed:
        return f"not run: {', '.join(left_out)}"
    state = f"failed: {', '.join(failed)}" if failed else "passed"
    return state + (f"; without: {', '.join(left_out)}" if left_out else "")


def run_step(step: Any, limit: float, before: dict[str, Any], log: Path) -> tuple[str, float]:
    """Run a step in at most so many seconds; say how it ended, and after how long."""
    if not step.command:
        return f"not run: {step.why}", 0.0
    if step.needs and not before[step.needs]["state"].startswith("passed"):
        return f"not run: {step.needs} did not pass", 0.0
    began = time.monotonic()
    code, output = wait(step.command, limit, log, **step.variables)
    seconds = time.monotonic() - began
    counted = re.findall(r"(\d+ (?:passed|failed|skipped|error)[^=\n]*) in [\d.]+s", output)
    tests = f" ({counted[-1]})" if counted else ""
    if code is None:
        return f"stopped after {seconds:.0f} s: it took too long", seconds
    if code == 0 and counted and "passed" not in counted[-1]:
        return f"not run: {counted[-1]}", seconds
    if code == 0:
        return f"passed{tests}", seconds
    refusal = re.search(r".*(?:not supported|[Ee]rror:|Error ).*", output) if step.asks else None
    if refusal:
        return f"cannot serve this device: {refusal[0].strip('= ')}", seconds
    return f"exit status {code}{tests}", seconds


def wait(command: list[str], seconds: float, log: Path, **variables: str) -> tuple[int | None, str]:
    """Run a command, its output shown and kept; nothing that it started outlives it.

    Returns
    -------
    code : int or None
        Its exit status, None where it took too long.
    output : str
        The end of what it said.
    """
    said: list[str] = []
    # Steps start no sessions, so that all of one can be ended at once.
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, encoding="utf-8", errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | variables,
    )  # fmt: skip
    assert process.stdout is not None

    def pass_on(lines: Iterator[str]) -> None:
        with log.open("a", encoding="utf-8") as file:
            print(f"$ {' '.join(command)}", file=file, flush=True)
            for line in lines:
                print(line, end="", flush=True)
                print(line, end="", file=file, flush=True)
                said.append(line)

    reader = threading.Thread(target=pass_on, args=[process.stdout], daemon=True)
    reader.start()
    with ended(process):
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
    reader.join(10)
    return code, "".join(said)[-SAID:]


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator[None]:
    """End a process and all it started, however the block is left."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(say("interrupted", 130))
