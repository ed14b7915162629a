"""The script of `make gpu`, with small stages on a CPU."""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from cases.gpu_bounds import BOUNDS

from faigfast import bench
from faigfast.backend.gpu.auto_precision import FASTEST_FIRST
from faigfast.bench import gpu as measuring

ROOT = Path(__file__).parents[3]
PATH = ROOT / "scripts" / "gpu.py"


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script with a fake GPU and its results in a temporary folder."""
    monkeypatch.syspath_prepend(str(PATH.parent))
    module = import_module("gpu")
    monkeypatch.setenv("FAIGFAST_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(module, "no_gpu", lambda: "")
    monkeypatch.setattr(module, "built", module.build, raising=False)
    monkeypatch.setattr(module, "build", lambda: pytest.fail("nothing is to be built"))
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H200/SXM")
    gpu = {"gpu": "H200, driver 1.2"}
    monkeypatch.setattr(import_module("gpu_results"), "describe_gpu", lambda _: gpu)
    return module


@pytest.fixture
def stages(script):
    return import_module("gpu_stages")


@pytest.fixture
def run(script, monkeypatch):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
        return script.main()

    return call


def left(stage, kind="txt"):
    """Text of a stage's result file."""
    path = import_module("gpu_results").path_of(stage, kind)
    return json.loads(path.read_text()) if kind == "json" else path.read_text()


def python(text):
    return [sys.executable, "-c", text]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_it_refuses_in_one_sentence():
    run = subprocess.run([sys.executable, PATH], capture_output=True, text=True)
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("faigfast: make gpu needs an NVIDIA GPU: torch ")
    assert run.stderr.count("\n") == 1


def test_an_unknown_stage_is_refused(run, capsys):
    assert run("all") == 2
    assert "STAGE is 'all'; expected one of correctness, pairs" in capsys.readouterr().err


def test_every_test_of_a_gpu_is_in_a_stage(stages, monkeypatch):
    monkeypatch.setattr(stages, "sanitizer", lambda: "/bin/compute-sanitizer")
    words = {word for make in stages.STAGES.values() for step in make() for word in step.command}
    files = {path.name for path in ROOT.glob("tests/gpu/test_*.py")}
    assert {f"tests/gpu/{name}" for name in files} <= words
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def test_the_shares_of_a_stage_fit_it(stages, monkeypatch):
    monkeypatch.setattr(stages, "sanitizer", lambda: "/bin/compute-sanitizer")
    for make in stages.STAGES.values():
        steps = make()
        assert 0.9 * stages.SECONDS <= sum(step.seconds for step in steps) <= stages.SECONDS
        assert len({step.name for step in steps}) == len(steps)
    assert stages.SECONDS < 480


def test_every_stage_is_documented(script, stages):
    text = (ROOT / "docs" / "lab" / "gpu.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text()
    for name in stages.STAGES:
        assert f"\n{name} " in script.__doc__ and text.count(f"| `{name}` |") >= 2
        assert name in makefile


def test_what_fails_or_hangs_costs_only_itself(script, stages, run, monkeypatch, capsys):
    """One step of the first stage fails and one hangs; a step of the second cannot run."""
    Step = stages.Step
    monkeypatch.setattr(script, "SECONDS", 4)
    monkeypatch.setattr(script, "STAGES", {
        "first": lambda: [
            Step("good", python("print('3 passed, 1 skipped in 0.1s')"), 1),
            Step("wrong", python("raise SystemExit(3)"), 0.5),
            Step("slow", python("import time; print('begun'); time.sleep(60)"), 0.5),
            Step("last", python("pass"), 2),
            Step("after", python("pass"), 0, needs="wrong"),
        ],
        "second": lambda: [
            Step("asks", python("print('Error: Device not supported'); raise SystemExit(1)"), 1,
                 asks=True),
            Step("needs it", python("1 / 0"), 1, needs="asks"),
            Step("skipped", python("print('7 skipped in 0.1s')"), 1),
        ],
    })  # fmt: skip
    began = time.monotonic()
    assert run("--no-build") == 1 and time.monotonic() - began < 20
    assert re.fullmatch(
        r"H200, driver 1.2\npython .*, torch .*, faigfast .*\nmake gpu STAGE=first\n"
        r"good: passed \(3 passed, 1 skipped\)\nwrong: exit status 3\n"
        r"slow: stopped after \d+ s: it took too long\nlast: passed\n"
        r"after: not run: wrong did not pass\n",
        left("first"),
    ), left("first")
    assert left("second").endswith(
        "asks: cannot serve this device: Error: Device not supported\n"
        "needs it: not run: asks did not pass\nskipped: not run: 7 skipped\n"
    )
    log = left("first", "log")
    assert "3 passed" in log and "begun" in log and log.count("$ ") == 4
    saved = left("first", "json")
    assert saved["steps"]["wrong"]["command"][-1] == "raise SystemExit(3)"
    assert saved["machine"]["gpu"] == "H200, driver 1.2" and saved["versions"]["torch"]
    last = capsys.readouterr().out.partition("== stages\n")[2].splitlines()
    assert last[0].startswith("first             failed: wrong, slow; without: after; ")
    assert last[1].startswith("second            not run: asks, needs it, skipped; ")


def test_a_share_is_sure_and_what_is_left_goes_on(script, stages, run, monkeypatch):
    limits = []
    step = partial(stages.Step, command=["x"])
    steps = [step("a", seconds=100), step("b", seconds=300), step("c", seconds=70)]
    monkeypatch.setattr(script, "STAGES", {"one": lambda: steps})
    monkeypatch.setattr(script, "wait", lambda _, limit, log: limits.append(limit) or (0, ""))
    assert run("--no-build", "one") == 0
    assert limits == pytest.approx([100, 400, 470], abs=3)


def test_nothing_that_a_step_started_outlives_it(script, tmp_path):
    """A sanitizer starts child processes, which would keep the GPU busy."""
    inner = "import os, sys, time; print(os.getpid(), flush=True); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    code, output = script.wait(python(outer), 3, tmp_path / "log")
    assert code is None
    for _ in range(50):
        try:
            os.kill(int(output), 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{int(output)}/stat").read_text().split()[2] == "Z":
            return  # a zombie counts as dead
        time.sleep(0.1)
    pytest.fail("a process of the step goes on")


def test_an_earlier_run_leaves_nothing(script, stages, run, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "STAGES", {"one": lambda: [], "one_more": lambda: []})
    assert run("--no-build") == 0
    for kind in ("txt", "json", "log"):
        for stage in ("one", "one_more"):
            import_module("gpu_results").path_of(stage, kind).write_text("{}")
    half = tmp_path / "results" / ".NVIDIA-H200-SXM-one.json.abc.json"
    half.touch()
    assert run("--no-build", "one") == 0
    assert not half.exists() and left("one", "json")["stage"] == "one"
    assert not (tmp_path / "results" / "NVIDIA-H200-SXM-one.log").exists()
    assert left("one_more", "log") == "{}"


def test_a_folder_that_cannot_be_written_is_named(run, monkeypatch, tmp_path, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FAIGFAST_RESULTS", str(tmp_path / "file"))
    assert run("--no-build", "kernels") == 1
    assert re.fullmatch(r"faigfast: .*Not a directory: .*file/.*\n", capsys.readouterr().err)


def test_what_cannot_be_built_goes_on_with_less(script, monkeypatch, capsys):
    """It drops CUDA if nvcc fails, and the whole extension if no compiler works."""
    build = script.built
    tried, works = [], set()

    def pip(command, env):
        tried.append(env["FAIGFAST_BUILD"])
        return subprocess.CompletedProcess(command, int(tried[-1] not in works))

    monkeypatch.setattr(script.subprocess, "run", pip)
    monkeypatch.setattr(script, "has_nvcc", lambda: True)
    monkeypatch.delenv("FAIGFAST_BUILD", raising=False)
    assert build() == 1 and tried == ["cuda", "auto", "none"]
    tried.clear()
    works.add("auto")
    assert build() == 0 and tried == ["cuda", "auto"]
    assert "the build with FAIGFAST_BUILD=cuda failed" in capsys.readouterr().err


def test_it_goes_on_in_a_python_that_sees_what_was_built(script, run, monkeypatch, capsys):
    again = []
    monkeypatch.setattr(script, "restart", again.append)
    monkeypatch.setattr(script, "build", lambda: 0)
    assert run("pairs", "hopper") == 0
    assert again[0][1:] == [script.__file__, "--no-build", "pairs", "hopper"]
    monkeypatch.setattr(script, "build", lambda: 1)
    assert run() == 1 and "could not be built" in capsys.readouterr().err


def test_the_sanitizers_see_kernels_of_both_kinds(stages, monkeypatch):
    monkeypatch.setattr(stages, "sanitizer", lambda: "/bin/compute-sanitizer")
    probe, *steps = stages.sanitizers()
    assert probe.asks and "kernel_substring=faigfast" not in probe.command
    assert [step.name for step in steps] == [
        "memcheck, cuda", "memcheck, triton", "racecheck, cuda", "racecheck, triton"
    ]  # fmt: skip
    hopper = [step for step in stages.hopper() if "check" in step.name]
    assert [step.name for step in hopper] == ["memcheck, small", "racecheck, small"]
    for step in [*steps, *hopper]:
        assert step.needs == probe.name and not step.asks and "small" in step.command
        words = " ".join(step.command)
        assert "--report-api-errors no" in words and "--error-exitcode 9" in words
        assert words.count("--kernel-name kernel_substring=") == len(stages.KERNELS)
    for file in ("test_triton_device.py", "test_gpu_kernels.py", "test_gpu_hopper.py"):
        assert "def test_small" in (ROOT / "tests" / "gpu" / file).read_text()


def test_the_filter_knows_every_triton_kernel(stages):
    pytest.importorskip("triton")
    from faigfast.kernels import cases

    names = {case.launch.name for case in cases.others()}
    names |= {case.launch.name for case in cases.first_tiles("fp16", next(iter(cases.SHAPES)))}
    assert len(names) == 9
    assert all(any(part in name for part in stages.KERNELS) for name in names)


def test_compute_sanitizer_is_looked_for(stages, monkeypatch, tmp_path):
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert stages.sanitizer() == ""
    (step,) = stages.sanitizers()
    assert step.asks and not step.command and step.why == "it was not found"
    # First, nvcc on the path is a link into the toolkit.
    toolkit = tmp_path / "cuda-13.0" / "bin"
    toolkit.mkdir(parents=True)
    for name in ("nvcc", "compute-sanitizer"):
        (toolkit / name).touch(0o755)
    (tmp_path / "nvcc").symlink_to(toolkit / "nvcc")
    assert stages.sanitizer() == str(toolkit / "compute-sanitizer")
    (tmp_path / "nvcc").unlink()
    # Then it is a script that calls the toolkit's nvcc.
    (toolkit / "nvcc").write_text(f"#!/bin/sh\necho '#$ _HERE_={toolkit}' >&2\n")
    (tmp_path / "nvcc").write_text(f'#!/bin/sh\nexec {toolkit / "nvcc"} "$@"\n')
    (tmp_path / "nvcc").chmod(0o755)
    assert stages.sanitizer() == str(toolkit / "compute-sanitizer")
    (tmp_path / "nvcc").unlink()
    assert stages.sanitizer() == ""
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda-13.0"))
    assert stages.sanitizer() == str(toolkit / "compute-sanitizer")


def measure(run, stage, *steps):
    """Run the measuring steps of a stage in sequence in this process."""
    import_module("gpu_results").Results.begin(stage)
    for step in steps:
        assert run("--run", stage, step) == 0
    return left(stage)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(measuring, "REPEATS", 1)
    quick = partial(measuring.measure_gpu, "cpu", layers=[(4, 5, 1)], matmul=16, copy=100)
    return lambda **options: quick(**(options | {"pointwise": False}))


def test_the_stage_of_the_kernels(run, stages, small, monkeypatch):
    monkeypatch.setattr(measuring, "measure_gpu", small)
    text = measure(run, "kernels", *(step.name for step in stages.kernels()))
    assert text.startswith("H200, driver 1.2\n")
    lines = [line.split() for line in text.splitlines() if line.startswith("forward")]
    assert [line[5] for line in lines if "fp16" in line] == [
        "torch", "triton", "cuda"
    ]  # fmt: skip
    saved = left("kernels", "json")
    assert list(saved["found"]) == ["torch", "triton", "cuda"]
    kinds = {row["what"].rpartition(" ")[2] for row in saved["found"]["torch"]["rows"]}
    assert kinds == {"fp16", "bf16", "tf32", "fp32"}
    kinds = {row["what"].rpartition(" ")[2] for row in saved["found"]["triton"]["rows"]}
    assert kinds == {"fp16", "bf16", "tf32", "bf16x3", "fp32"}


def test_the_stage_of_the_hopper_convolution(run, stages, small, monkeypatch):
    monkeypatch.setattr(measuring, "measure_gpu", small)
    text = measure(run, "hopper", "speed")
    assert "forward, 4 channels, 1×5², bf16" in text and "input gradient" not in text
    speed = next(step for step in stages.hopper() if step.name == "speed")
    assert speed.needs == "tests"


def test_the_stages_of_whole_attributions(run, stages, monkeypatch):
    def small(names, *, steps, contenders, device, **options):
        assert device == "cuda" and "loop-fp16" in contenders
        everyone = bench.runner.everyone("cuda")
        assert set(contenders) <= set(everyone)
        return bench.runner.benchmark(
            ["tiny-8x1"], steps=2, repeats=1, contenders=["loop"], memory=False, progress=False
        )

    monkeypatch.setattr(bench, "benchmark", small)
    text = measure(run, "end_to_end", *(step.name for step in stages.end_to_end()))
    assert text.count("tiny-8x1") == 3 and text.count("seconds: median over the repeats") == 1
    assert len(left("end_to_end", "json")["found"]) == 3
    assert {name for names in stages.WHO.values() for name in names} | {"compile"} == set(
        bench.runner.everyone("cuda")
    )


def test_the_stage_of_the_experiment(run, stages, monkeypatch):
    module = sys.modules["faigfast.bench.experiment"]
    monkeypatch.setattr(module, "CONVERGED", ("gauss-legendre", 4))
    monkeypatch.setattr(module._TrainedPair, "error", lambda *_: 0.0)
    tiny = partial(
        module.experiment, "cpu", family="tiny", sizes={"a": (16, 20)}, crop=6, points=(2, 16),
        repeats=1,
    )  # fmt: skip
    monkeypatch.setattr(module, "experiment", lambda device, **options: tiny(**options))
    text = measure(run, "experiment", "torch fp32", "cuda fp16")
    assert text.count("\nauthors*") == 1 and "\nfaigfast torch fp32" in text
    assert "\nfaigfast cuda fp16" in text
    assert {" ".join(way) for way in stages.WAYS} == {step.name for step in stages.experiment()}


def test_every_precision_is_held_to_its_ranking():
    """Another test holds the choices of `auto` to an overlap of 0.99."""
    assert set(FASTEST_FIRST) | {"fp32"} == set(BOUNDS)
    assert {name for name, (_, _, least) in BOUNDS.items() if least < 0.99} == {"bf16"}


MEASURED = re.compile(r"\d[\d.,]*\s?(%|times|s|ms|TFLOP/s)|^0\.\d+|^1\.0+|passed|failed")
NOT_YET = ("compiled, not yet run", "not yet run", "not written: to follow once")


def test_every_row_says_that_no_device_ran_it_or_what_it_found():
    text = (ROOT / "docs" / "lab" / "gpu.md").read_text(encoding="utf-8")
    targets = text[text.index("## Targets") : text.index("## Which backend")]
    rows = [line for line in targets.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| ---", "| target", "| kernel"))]
    assert len(rows) == 17
    results = text[text.index("| results | |") :].partition("\n\n")[0].splitlines()[2:]
    states = [row.strip("| ").split(" | ")[-1] for row in rows + results]
    unclear = [s for s in states if not (s.startswith(NOT_YET) or MEASURED.search(s))]
    assert not unclear
