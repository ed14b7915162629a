"""Worker processes: killed ones are replaced, a killed driver's sweep goes on."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import faigfast
from faigfast.sweeps import local
from faigfast.sweeps.ledger import read_records
from faigfast.sweeps.run import sweep

DRIVER = """
import json, sys
import faigfast
faigfast.sweep(json.loads(sys.argv[1]), sys.argv[2], workers=1)
"""


def same(one, other):
    for name in one.degradations:
        units = zip(one.scores(None, name), other.scores(None, name), strict=True)
        assert all(torch.equal(a.scores, b.scores) for a, b in units)
    assert one.status.done == one.status.total == other.status.total


def test_a_killed_worker_is_replaced(plan, tmp_path, monkeypatch):
    original = local.Processes.send
    killed = []

    def send(self, worker, task, pair):
        original(self, worker, task, pair)
        if not killed:
            killed.append(self._processes[worker].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(local.Processes, "send", send)
    result = sweep(plan, tmp_path / "out", workers=1)
    same(result, sweep(plan, tmp_path / "wanted", workers=0))
    assert result.status.driver["replaced"] == 1 and result.failures == []


@pytest.mark.slow
def test_a_killed_driver_goes_on(plan, tmp_path):
    out = tmp_path / "out"
    plan["settings"] = [{"steps": steps} for steps in range(60, 70)]
    process = subprocess.Popen([sys.executable, "-c", DRIVER, json.dumps(plan), str(out)])
    try:
        deadline = time.monotonic() + 120
        while len(read_records(out)) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert 3 <= faigfast.open_sweep(out).status.done < 90
    same_settings = sweep(plan, out, workers=0)
    wanted = sweep(plan, tmp_path / "wanted", workers=0)
    assert same_settings.status.done == 90
    for setting in wanted.settings:
        assert torch.equal(
            same_settings.mean(None, "blur=1", setting), wanted.mean(None, "blur=1", setting)
        )


def test_memory_and_workers_are_checked(plan, tmp_path):
    plan["settings"] = [{"memory": 10**15}]
    with pytest.raises(ValueError, match=r"asks for memory=1000000000000000, and each of 2"):
        sweep(plan, tmp_path / "out", workers=2)
    with pytest.raises(ValueError, match=r"engine is 'locla' \(did you mean 'local'\?\)"):
        sweep(plan, tmp_path / "out", "locla")
    for options in ({"workers": -1}, {"retries": -1}, {"unit_timeout": 0}, {"address": "auto"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            sweep(plan, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
