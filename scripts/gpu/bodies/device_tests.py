"""The tests that need a GPU, a file in each process."""

import re
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from ..children import output_of
from ..items import ROOT
from ..outcomes import NotRunError, StepFailedError

# Those of what is new come first.
ORDER = ("test_gpu_hopper", "test_gpu_kernels", "test_triton_device", "test_gpu_pairs")
SECONDS = 100
RUN = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"


def steps() -> dict[str, Callable[[], dict[str, Any]]]:
    """One step a file."""
    names = sorted(path.stem for path in (ROOT / "tests" / "gpu").glob("test_*.py"))
    names.sort(key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return {name: partial(run, name) for name in names}


def command(name: str, *options: str) -> list[str]:
    """Give the command that runs a file of tests with the package of `PYTHONPATH`."""
    path = str(ROOT / "tests" / "gpu" / f"{name}.py")
    words = ["-p", "no:cacheprovider", "--durations=5", "-rs", path, *options]
    return [sys.executable, "-c", RUN, *words]


def run(name: str) -> dict[str, Any]:
    """Run a file of tests; compiling is most of Triton's time, so several processes share it."""
    parallel = ["-n", "4"] if name == "test_triton_device" and find_spec("xdist") else []
    return judged(*output_of(command(name, *parallel), SECONDS))


def judged(code: int | None, output: str) -> dict[str, Any]:
    """Count the tests of pytest's output.

    Raises
    ------
    StepFailedError
        If any failed, or the time was over.
    NotRunError
        If all were skipped.
    """
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    counted = re.findall(r"(?:\d+ \w+, )*\d+ \w+(?= in [\d.]+s)", output)
    last = counted[-1] if counted else ""
    figures = {"counted": last, "failed": failed[:40]}
    if code is None:
        raise StepFailedError("killed when its time was over", figures)
    if code != 0:
        raise StepFailedError(last or f"exit status {code}", figures)
    if last and "passed" not in last:
        why = re.search(r"^SKIPPED \[\d+\] \S+ (.*)$", output, re.MULTILINE)
        raise NotRunError(f"{last}{f': {why[1]}' if why else ''}")
    return figures
