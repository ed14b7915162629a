"""The Triton kernels in Triton's interpreter, which must be chosen before Triton is imported."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="Triton is not installed: its kernels were not run in the interpreter",
)
WHOLE = "attribution or overflow"  # networks, which take as long as all kernels


@pytest.mark.parametrize("some", [f"not ({WHOLE})", WHOLE], ids=["kernels", "networks"])
def test_kernels_in_the_interpreter(some, tmp_path):
    file = Path(__file__).with_name("triton_interpreted.py")
    environment = {
        **os.environ, "TRITON_INTERPRET": "1", "TRITON_CACHE_DIR": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    options = ["-k", some, "-p", "no:cacheprovider", "--show-capture=no"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", str(file), *options],
        env=environment, cwd=file.parents[1], capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout
