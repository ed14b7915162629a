"""`faigfast sweep`: plans in YAML, dry runs, and the status of a sweep."""

import pytest
import torch
from cases import command_line
from cases.command_line import one_line

import faigfast
from faigfast.cli.main import main
from faigfast.sweeps import local

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

PLAN = """
pairs:
  mine: [a.pth, b.safetensors]
images: gt
degradations:
  noise: [0.05, 0.1]
  blur: 1
settings:
  - {steps: 2}
  - {rule: left, steps: 3}
"""


@pytest.fixture
def plan(here):
    here.parent.mkdir(exist_ok=True)
    file = here.parent / "plan.yaml"
    file.write_text(PLAN)
    return str(file)


def test_a_sweep_and_its_status(plan, here, capsys):
    assert main(["sweep", plan, str(here), "--workers", "0", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out == f"6 of 6 units finished in {here}\n" and err == ""
    assert main(["sweep", "status", str(here)]) == 0
    assert capsys.readouterr().out.startswith("6 of 6 units finished, ")
    result = faigfast.open_sweep(here)
    assert result.settings == ("steps=2", "rule=left steps=3") and result.pairs == ("mine",)
    assert torch.isfinite(result.contrast("blur=1", setting="steps=2")).all()


def test_a_dry_run_writes_nothing(plan, here, capsys):
    assert main(["sweep", plan, str(here), "--dry-run", "--workers", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 pair × 3 degradations × 2 settings × 3 images"
    assert lines[1] == "6 units, 0 finished, 6 to compute"
    assert lines[2].endswith(" MB to write") and " with 2 workers, by a measurement" in lines[3]
    assert not here.exists()
    main(["sweep", plan, str(here), "--workers", "0", "--quiet"])
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    assert main(["sweep", plan, str(here), "--dry_run"]) == 0
    assert "6 units, 6 finished, 0 to compute" in capsys.readouterr().out
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pears: 1\n", "holds 'pears' (did you mean 'pairs'?); expected YAML"),
        ("pairs: {}\nimages: gt\n", "pairs of the plan are empty"),
        (PLAN + "shard: none\n", "shard is 'none'; expected an integer from 1 up"),
    ],
)
def test_errors_are_one_line(plan, here, capsys, text, message):
    (here.parent / "plan.yaml").write_text(text)
    assert main(["sweep", plan, str(here), "--workers", "0"]) == 1
    assert message in one_line(capsys)
    assert not here.exists()


def test_a_second_run_says_that_all_units_were_there(plan, here, capsys):
    argv = ["sweep", plan, str(here), "--workers", "0"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out == f"6 of 6 units finished in {here}\n" and "sweep: 6/6" in err
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert out == f"6 of 6 units finished in {here}; all were there before\n" and err == ""


def test_a_wrong_word_for_status(here, capsys):
    assert main(["sweep", "staus", str(here)]) == 1
    assert "there is no plan 'staus' (did you mean 'status'?)" in one_line(capsys)


def test_there_is_no_sweep(here, capsys):
    assert main(["sweep", "status", str(here)]) == 1
    assert f"there is no sweep in {here}" in one_line(capsys)


def test_a_failed_image_is_named(plan, here, files, capsys, monkeypatch):
    def fails(self, timeout):
        task = self._tasks.pop()
        return [local.Event(0, local.FAILED, task.unit, ("image", "it is gray"))]

    monkeypatch.setattr(local.InProcess, "events", fails)
    assert main(["sweep", plan, str(here), "--workers", "0", "--max-failures", "3"]) == 0
    out, err = capsys.readouterr()
    assert "image 'image1' failed: it is gray" in err
    assert "0 of 18 units finished, 3 images failed (failures.jsonl)" in out


def test_an_interrupt_says_that_the_same_command_goes_on(plan, here, capsys, monkeypatch):
    original, left = local.InProcess.events, [2]

    def events(self, timeout):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(self, timeout)

    monkeypatch.setattr(local.InProcess, "events", events)
    assert main(["sweep", plan, str(here), "--workers", "0", "--quiet"]) == 130
    err = capsys.readouterr().err
    assert f"faigfast: interrupted: kept: 2 units in {here}; the same command goes on" in err
    monkeypatch.setattr("faigfast.cli.main.import_module", _interrupt)
    assert main(["sweep", plan, str(here)]) == 130
    assert f"kept: finished units in {here}; the same" in capsys.readouterr().err


def _interrupt(name):
    raise KeyboardInterrupt
