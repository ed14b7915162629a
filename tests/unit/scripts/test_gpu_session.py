"""`scripts.gpu` rehearsed on a faked device: the items' bodies are replaced, all else is real."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))

from scripts.gpu.items import FIRST, ITEMS  # noqa: E402

FAKE = ROOT / "tests" / "cases" / "fake_gpu.py"
NAMES = [item.name for item in FIRST]
FEW = ["build", "ceilings", "conv64", "table-triton", "table-cuda", "memcheck"]
LAST = "experiment"


class Rehearsal:
    """Runs the script again and again in one results folder."""

    def __init__(self, folder):
        self.folder, self.items = folder, [*FEW, LAST]
        self.results = folder / "results"
        for name in ("csrc/cuda/a.cu", "kernels/a.py", "faigfast/ops/a.py", "tests/gpu/test_a.py"):
            path = folder / "tree" / name
            path.parent.mkdir(parents=True)
            path.write_text(name)
        self.steps, self.seconds, self.describe = {}, {}, None
        self.seen = 0

    def run(self, *words, status=0):
        """Run the script; give what it printed."""
        told = {"steps": self.steps, "seconds": self.seconds, "items": self.items}
        if self.describe:
            told["describe"] = self.describe
        (self.folder / "fake.json").write_text(json.dumps(told))
        done = subprocess.run(
            [sys.executable, "-S", FAKE, self.folder, *words], capture_output=True, text=True,
            env=os.environ | {"FAIGFAST_RESULTS": str(self.results), "FAIGFAST_COMMIT": "abc1234"},
            timeout=300,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ran(self):
        """Steps that ran since the last question, as "item step"."""
        path = self.folder / "ran"
        lines = path.read_text().splitlines() if path.exists() else []
        new, self.seen = lines[self.seen :], len(lines)
        return [line.rpartition(" ")[0] for line in new]

    def last_process(self):
        return int((self.folder / "ran").read_text().split()[-1])

    def lines(self):
        text = (self.results / "gpu.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def state(self, item, step):
        own = [line for line in self.lines() if (line["item"], line["step"]) == (item, step)]
        return own[-1] if own else {"state": ""}


@pytest.fixture
def rehearsal(tmp_path):
    return Rehearsal(tmp_path)


def steps_of(*names):
    return [f"{name} {step}" for name in names for step in ("one", "two")]


def gone(process):
    """Whether a process is dead, or a zombie, within some seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_the_first_call_runs_every_item_once_in_order(rehearsal):
    rehearsal.items = [*ITEMS]
    printed = rehearsal.run()
    ran = rehearsal.ran()
    # What is beside the build may be faster than it.
    assert sorted(ran[:8]) == sorted(steps_of(*NAMES[:4]))
    assert ran[8:] == steps_of(*NAMES[4:])
    line = rehearsal.state("conv64", "two")
    assert line["state"] == "passed" and line["figures"]["error"] == 0 and line["time"]
    assert line["device"] == "Fake 9000" and line["versions"] == {"torch": "0.0"}
    assert len(line["sources"]) == 16 and line["commit"] == "abc1234"
    names = sorted(path.name for path in rehearsal.results.iterdir())
    assert names == ["gpu.jsonl", "gpu.log", "gpu.md"]  # at most four are allowed
    table = (rehearsal.results / "gpu.md").read_text()
    assert table in printed and "| conv64 | 2 passed |" in table

    rehearsal.run()  # nothing again, but what has to be on this machine
    assert rehearsal.ran() == steps_of("build")


def test_a_kill_at_any_item_loses_that_step_alone(rehearsal):
    rehearsal.items = [*ITEMS]
    killed = []
    for name in NAMES:
        if name != "build" and rehearsal.state(name, "")["state"] == "complete":
            continue  # it ran beside the build, and was faster than the kill
        rehearsal.steps = {f"{name} two": "kill the script"}
        rehearsal.run(status=-9)
        killed.append(f"{name} two")
        assert gone(rehearsal.last_process()), f"the process of {name} goes on"
        assert rehearsal.state(name, "two")["state"] == "begun"
    assert len(killed) >= len(NAMES) - 3
    rehearsal.steps = {}
    rehearsal.run()
    ran = rehearsal.ran()
    beside = ("build", *(item.name for item in FIRST if item.beside))
    for step in steps_of(*NAMES):
        if not step.startswith(beside):  # they may have died with the script too
            assert ran.count(step) == 1 + (step in killed), step
        assert step in ran
    assert rehearsal.run().count("recorded for these sources") == len(NAMES) - 1


def test_a_line_that_a_kill_tore_is_left_out(rehearsal):
    rehearsal.run("conv64")
    with (rehearsal.results / "gpu.jsonl").open("a") as file:
        file.write('{"item": "conv64", "step": "two", "sta')
    rehearsal.ran()
    rehearsal.run("conv64", "ceilings")
    assert rehearsal.ran()[2:] == steps_of("ceilings")
    assert rehearsal.state("ceilings", "two")["state"] == "passed"


def test_an_item_that_hangs_is_killed_with_its_children(rehearsal):
    rehearsal.steps = {"conv64 one": "hang with a child"}
    rehearsal.seconds = {"conv64": 1.5}
    printed = rehearsal.run(status=1)
    assert "one: hung: killed after its 1.5 s" in printed
    assert gone(int((rehearsal.folder / "child").read_text()))
    ran = rehearsal.ran()
    assert ran[ran.index("conv64 one") + 1] == "table-triton one"
    rehearsal.run(status=1)  # the first step would hang again
    assert rehearsal.ran() == [*steps_of("build"), "conv64 two"]
    rehearsal.steps = {}
    rehearsal.run("conv64")  # asked for by name
    assert rehearsal.ran() == [*steps_of("build"), "conv64 one"]


def test_the_deadline_cuts_an_item_and_leaves_the_others_for_later(rehearsal):
    rehearsal.steps = {"table-cuda one": "hang"}
    rehearsal.seconds = dict.fromkeys(ITEMS, 500)
    began = time.monotonic()
    printed = rehearsal.run("--seconds", "12")
    assert time.monotonic() - began < 60
    assert "The deadline left items out" in printed
    if "table-cuda one" in rehearsal.ran():  # else the machine is slower than the deadline
        line = rehearsal.state("table-cuda", "one")
        assert (line["state"], line["reason"]) == ("cut", "the deadline was reached")
    rehearsal.steps = {}
    rehearsal.run()
    ran = rehearsal.ran()
    assert ran[-4:] == steps_of("table-cuda", "memcheck")
    rehearsal.run()
    assert rehearsal.ran() == steps_of("build")


def test_a_crash_costs_one_step(rehearsal):
    rehearsal.steps = {"table-cuda one": "crash", "memcheck two": "raise"}
    printed = rehearsal.run(status=1)
    assert "one: crashed: signal 11" in printed
    assert "two: failed: ValueError: no such value\n" in printed
    assert rehearsal.state("table-cuda", "two")["state"] == "passed"
    table = (rehearsal.results / "gpu.md").read_text()
    assert "| table-cuda | 1 crashed, 1 passed |" in table
    assert "| memcheck, two | failed | ValueError: no such value |" in table


def test_the_second_call_begins_with_the_failures(rehearsal):
    rehearsal.steps = {
        "conv64 one": "fail", "memcheck two": "fail", "ceilings one": "not run",
    }  # fmt: skip
    rehearsal.run(status=1)
    rehearsal.ran()
    rehearsal.steps = {}
    (rehearsal.folder / "tree" / "kernels" / "a.py").write_text("mended")
    rehearsal.run("second")
    assert rehearsal.ran() == [
        *steps_of("build"), "conv64 one",
        *steps_of("memcheck"),  # whole: the changed file is among its sources
        *steps_of("table-triton", "table-cuda", LAST), "ceilings one",
    ]  # fmt: skip


def test_changed_sources_are_measured_again_alone(rehearsal):
    rehearsal.run()
    rehearsal.ran()
    (rehearsal.folder / "tree" / "kernels" / "b.py").write_text("new")
    rehearsal.run()
    assert rehearsal.ran() == steps_of("build", "table-triton", "table-cuda", "memcheck")
    rehearsal.describe = {"device": "Fake 9001", "versions": {}}
    rehearsal.run()
    assert len(rehearsal.ran()) == 2 * len(FEW)
    assert "Fake 9001" in (rehearsal.results / "gpu.md").read_text()


def test_what_could_not_run_is_tried_again(rehearsal):
    rehearsal.steps = dict.fromkeys(steps_of("memcheck"), "not run")
    rehearsal.run()
    assert rehearsal.state("memcheck", "one")["reason"] == "nothing is there"
    rehearsal.ran()
    rehearsal.run()
    assert rehearsal.ran() == steps_of("build", "memcheck")


def test_the_log_keeps_its_end(rehearsal):
    rehearsal.steps = dict.fromkeys(steps_of(*FEW), "fill the log")
    rehearsal.run()
    log = rehearsal.results / "gpu.log"
    assert 1 << 20 < log.stat().st_size < 6 << 20
    assert "== build" not in log.read_text() and "== memcheck" in log.read_text()
    # Lines without figures are no reason to stop.
    assert "_layers cannot" not in (rehearsal.results / "gpu.md").read_text()
    assert "layers cannot be shown: KeyError" in (rehearsal.results / "gpu.md").read_text()


def test_without_a_gpu_it_refuses_in_one_sentence(rehearsal):
    rehearsal.describe = {"why": "torch 2.0 is built without CUDA"}
    printed = rehearsal.run(status=2)
    assert printed == "faigfast: make gpu needs an NVIDIA GPU: torch 2.0 is built without CUDA\n"
    rehearsal.describe = None
    assert "the item is 'all'; expected one of first, second, report, build" in rehearsal.run(
        "all", status=2
    )
    assert rehearsal.ran() == []
    assert rehearsal.run("report") == "Nothing is recorded yet.\n"


def test_a_folder_that_cannot_be_written_is_named(rehearsal):
    rehearsal.results = rehearsal.folder / "fake.json" / "results"
    printed = rehearsal.run(status=2)
    assert "Not a directory" in printed and "fake.json/results" in printed
    assert printed.count("\n") == 1
