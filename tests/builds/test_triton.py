"""The Triton kernels in Triton's interpreter, which must be chosen before Triton is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.interpreter,
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None,
        reason="Triton is not installed: its kernels were not run in the interpreter",
    ),
]
NETWORK_TESTS = "attribution or overflow"  # whole networks take as long as all kernels together
SELECTIONS = {"kernels": f"not ({NETWORK_TESTS})", "networks": NETWORK_TESTS}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """Both halves of the tests at once, one core each."""
    names = "triton_interpreted.py", "triton_large_offsets.py"
    files = [Path(__file__).with_name(name) for name in names]
    started = {}
    for name, some in SELECTIONS.items():
        folder = tmp_path_factory.mktemp(name)
        environment = {
            **os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(folder),
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        options = ["-k", some, "-p", "no:cacheprovider", "--show-capture=no"]
        with (folder / "output").open("w") as output:
            started[name] = folder / "output", subprocess.Popen(
                [sys.executable, "-m", "pytest", *map(str, files), *options],
                env=environment, cwd=files[0].parents[2], stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
    yield started
    for _, process in started.values():
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", SELECTIONS)
def test_kernels_in_the_interpreter(name, running):
    file, process = running[name]
    code, output = process.wait(), file.read_text()
    assert code == 0, output[-8000:]
    assert " passed" in output and "skipped" not in output
