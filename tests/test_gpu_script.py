"""What `make gpu` does around the stages; the stages themselves small, and on a CPU."""

import subprocess
import sys
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from faigfast import bench
from faigfast.bench import gpu as kernels

PATH = Path(__file__).parents[1] / "scripts" / "gpu.py"


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as it is where there is a GPU, whose results go elsewhere."""
    spec = spec_from_file_location("gpu_script", PATH)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "no_gpu", lambda: "")
    monkeypatch.setattr(module, "build", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200/SXM")
    module.RESULTS.mkdir()
    return module


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_refuses_in_one_sentence():
    run = subprocess.run([sys.executable, PATH], capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("faigfast: make gpu needs an NVIDIA GPU: torch ")
    assert run.stderr.count("\n") == 1


def test_an_unknown_stage_is_refused(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "all"])
    assert script.main() == 2
    assert "STAGE is 'all'; expected one of correctness, kernels" in capsys.readouterr().err


def test_a_stage_that_fails_costs_only_itself(script, monkeypatch, capsys):
    """Four stages: the second fails, the third hangs; the others leave their tables."""
    programs = {
        "correctness": "pass",
        "kernels": "raise SystemExit(3)",
        "hopper": "import time; time.sleep(60)",
        "end_to_end": "pass",
    }
    wait = script.wait

    def run(command, seconds, **variables):
        stage = command[-1]
        script.path_of(stage, "txt").write_text(f"table of {stage}\n")
        return wait([sys.executable, "-c", programs[stage]], 3)

    monkeypatch.setattr(script, "wait", run)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert script.main() == 1
    out = capsys.readouterr().out
    order = [out.rindex(f"table of {stage}") for stage in script.STAGES]
    assert order == sorted(order)
    last = out[out.index("== stages") :].splitlines()[1:]
    assert [line.split()[:2] for line in last] == [
        ["correctness", "passed"], ["kernels", "failed"], ["hopper", "stopped"],
        ["end_to_end", "passed"],
    ]  # fmt: skip


def test_one_stage_alone(script, monkeypatch, capsys):
    started = []
    monkeypatch.setattr(script, "start", lambda stage: started.append(stage) or "passed")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "kernels", "--no-build"])
    assert script.main() == 0 and started == ["kernels"]


def test_what_cannot_be_built_is_said(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "build", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    assert script.main() == 1 and "could not be built" in capsys.readouterr().err


def test_the_stage_of_the_kernels(script, monkeypatch):
    small = partial(
        kernels.measure_gpu, "cpu", layers=[(4, 5, 1)], matmul=16, copy=100, progress=False,
        pointwise=False,
    )  # fmt: skip
    monkeypatch.setattr(kernels, "REPEATS", 1)
    monkeypatch.setattr(kernels, "measure_gpu", small)
    assert script.run_stage("kernels") == 0
    assert "weight gradient, 4 channels" in script.path_of("kernels", "txt").read_text()
    assert "make" in script.path_of("kernels", "json").read_text()


def test_the_stage_of_whole_attributions(script, monkeypatch):
    def small(names, *, steps, contenders, device, **options):
        assert names[0] in script.WORKLOADS and device == "cuda" and "loop-fp16" in contenders
        return bench.runner.benchmark(
            ["tiny-8x1"], steps=2, repeats=1, contenders=["loop"], memory=False, progress=False
        )

    tiny = partial(
        bench.experiment, family="tiny", sizes={"a": (16, 20)},
        ways=[("torch", "fp32")], crop=6, points=(2, 16), repeats=1,
    )  # fmt: skip
    monkeypatch.setattr(bench, "experiment", lambda device, **options: tiny("cpu", **options))
    monkeypatch.setattr(bench, "benchmark", small)
    assert script.run_stage("end_to_end") == 0
    table = script.path_of("end_to_end", "txt").read_text()
    assert table.startswith("SRResNet 4×1 ×2, random; 1 drawn image,") and "tiny-8x1" in table
    names = sorted(path.name for path in script.RESULTS.iterdir())
    assert names == sorted(
        [f"NVIDIA-H200-SXM-end_to_end-{name}.json" for name in ("experiment", *script.WORKLOADS)]
        + ["NVIDIA-H200-SXM-end_to_end.txt"]
    )


def test_the_stages_of_tests_say_how_they_ended(script, monkeypatch, tmp_path):
    calls = []
    codes = iter([0, 9, None])
    monkeypatch.setattr(script, "wait", lambda command, *_: calls.append(command) or next(codes))
    monkeypatch.setattr(script.shutil, "which", lambda name, **_: f"/bin/{name}")
    monkeypatch.setattr("faigfast.machine.describe_gpu", lambda _: {"gpu": "H200"})
    assert script.run_stage("correctness") == 1
    text = script.path_of("correctness", "txt").read_text()
    assert (
        text
        == "H200\ntests: passed\nmemcheck: exit status 9\nracecheck: stopped: it took too long\n"
    )
    assert [command[0] for command in calls[1:]] == ["/bin/compute-sanitizer"] * 2
    tests = {word for command in calls for word in command if word.startswith("tests/")}
    assert all((PATH.parents[1] / name).exists() for name in tests)


def test_the_hopper_stage_measures_only_what_is_right(script, monkeypatch):
    monkeypatch.setattr(script, "wait", lambda *_: 1)
    monkeypatch.setattr(kernels, "measure_gpu", None)
    assert script.run_stage("hopper") == 1
    assert script.path_of("hopper", "txt").read_text() == "tests: exit status 1\n"


def test_every_target_says_that_no_device_ran_it():
    """Until one has; then its row has the measured share."""
    text = (PATH.parents[1] / "docs" / "gpu.md").read_text(encoding="utf-8")
    targets = text[text.index("## Targets") : text.index("## Which backend")]
    rows = [line for line in targets.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| ---", "| target", "| kernel"))]
    states = [row.strip("| ").split(" | ")[-1] for row in rows]
    assert len(states) == 17 and set(states) == {
        "compiled, not yet run", "not yet run",
        "not written: to follow once the forward has run right",
    }  # fmt: skip
    assert states.count("not yet run") == 1  # of what is Python alone
    results = [line for line in text.splitlines() if line.startswith(tuple(
        f"| `{stage}` | compiled" for stage in ("correctness", "kernels", "hopper", "end_to_end")
    ))]  # fmt: skip
    assert len(results) == 4
