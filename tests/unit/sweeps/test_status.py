"""Status of a sweep: while it runs, after a kill, and in words."""

import json
import subprocess
import sys
import time

import pytest

from faigfast.sweeps import local
from faigfast.sweeps.run import sweep
from faigfast.sweeps.status import PROGRESS, status


def test_while_it_runs(plan, tmp_path, monkeypatch):
    monkeypatch.setattr("faigfast.sweeps.status.BEAT", 0)
    original, seen = local.InProcess.events, []

    def events(self, timeout):
        seen.append(status(tmp_path / "out"))
        return original(self, timeout)

    monkeypatch.setattr(local.InProcess, "events", events)
    sweep(plan, tmp_path / "out", workers=0)
    assert [state.done for state in seen] == list(range(9))
    assert all(state.running and state.total == 9 for state in seen)
    assert "works on it with 1 worker: " in str(seen[-1]) and "left" in str(seen[-1])
    last = status(tmp_path / "out")
    assert not last.running and str(last).startswith("9 of 9 units finished, ")


@pytest.mark.parametrize("change", ["dead", "silent", "elsewhere"])
def test_a_driver_that_has_gone(plan, tmp_path, change):
    sweep(plan, tmp_path / "out", workers=0)
    (tmp_path / "out" / "finished.bin").unlink()
    file = tmp_path / "out" / PROGRESS
    state = json.loads(file.read_text()) | {"ended": False, "written": time.time()}
    file.write_text(json.dumps(state))
    assert status(tmp_path / "out").running
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                             capture_output=True, check=True)  # fmt: skip
    state |= {
        "dead": {"process": int(process.stdout)},
        "silent": {"written": time.time() - 60},
        "elsewhere": {"host": "another", "written": time.time() + 60},
    }[change]
    file.write_text(json.dumps(state))
    gone = status(tmp_path / "out")
    assert not gone.running
    assert "nobody works on it; `faigfast sweep` with the same plan goes on" in str(gone)
