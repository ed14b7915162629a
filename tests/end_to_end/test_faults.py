"""The short form of the fault campaign: the classes that do not depend on the machine's speed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_fault_has_a_fine_answer():
    command = [sys.executable, "scripts/faults", "--short", "--only", "kills", "files"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| 0 |") == 2
