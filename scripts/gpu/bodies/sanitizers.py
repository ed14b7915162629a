"""Memcheck and racecheck on small cases, where compute-sanitizer serves the device."""

import os
import re
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

from ..children import output_of
from ..items import BUILT, ROOT
from ..outcomes import NotRunError, StepFailedError
from ..staging import PROGRAM, is_current
from .build import nvcc
from .device_tests import command

FOUND = 9  # exit status where the tool sees an error
# Every tensor has a block of memory of its own, so that its end is the block's end.
VARIABLES = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
SECONDS = 40


def steps(check: str) -> dict[str, Callable[[], dict[str, Any]]]:
    """Check the standalone program, then small tests of CUDA and Triton kernels.

    Parameters
    ----------
    check : str
        `memcheck` or `racecheck`.
    """
    tool = sanitizer()
    if not tool:
        raise NotRunError("compute-sanitizer was not on the path, in CUDA_HOME or beside nvcc")
    # Errors of calls are of torch, which asks for what may not be there.
    whole = [tool, "--tool", check, "--report-api-errors", "no", "--error-exitcode", str(FOUND)]
    only = [word for name in kernels() for word in ("--kernel-name", f"kernel_substring={name}")]
    return {
        "conv64": partial(program, whole),
        "cuda": partial(run, [*whole, *only, *command("test_gpu_kernels", "-k", "small")]),
        "triton": partial(run, [*whole, *only, *command("test_triton_device", "-k", "small")]),
    }


def kernels() -> list[str]:
    """Parts of the names of our kernels: Triton's functions, and the namespace of the others."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kernels").glob("*.py"))
    return ["faigfast", *dict.fromkeys(re.findall(r"\bLaunch\(\s*(\w+),", text))]


def program(whole: list[str]) -> dict[str, Any]:
    """Check the standalone program on one small shape."""
    if not is_current(PROGRAM):
        raise NotRunError("the program was not built from these sources; see the item build")
    return run([*whole, str(BUILT / PROGRAM), "small"])


def run(words: list[str]) -> dict[str, Any]:
    """Run a command under the tool.

    Raises
    ------
    StepFailedError
        If the tool sees an error, or the command fails.
    NotRunError
        If the tool cannot serve the device.
    """
    code, output = output_of(words, SECONDS, env=os.environ | VARIABLES)
    told = re.findall(r"=+ ((?:ERROR|RACECHECK) SUMMARY: .*)", output)
    figures = {"summary": told[-1] if told else ""}
    if code == 0:
        return figures
    refused = re.search(r".*(?:not supported|LibraryNotLoaded|Unable to).*", output)
    if refused and code != FOUND:
        raise NotRunError(refused[0].strip("= "))
    ended = "killed when its time was over" if code is None else f"exit status {code}"
    raise StepFailedError(figures["summary"] or ended, figures)


def sanitizer() -> str:
    """Find compute-sanitizer on the path, in CUDA_HOME, or beside nvcc; empty where it is not."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    places = [os.path.join(home, "bin") for home in homes if home]
    compiler = nvcc()
    if compiler:
        places.append(os.path.dirname(os.path.realpath(compiler)))
        # An nvcc on the path may be a script that calls the toolkit's.
        _, output = output_of([compiler, "--dryrun", "-x", "cu", os.devnull], 10)
        places += re.findall(r"^#\$ _HERE_=(.+)$", output, re.MULTILINE)
    tools = (shutil.which("compute-sanitizer", path=place) for place in places)
    return shutil.which("compute-sanitizer") or next(filter(None, tools), "")
