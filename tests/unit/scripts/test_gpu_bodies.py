"""Bodies of the items of `scripts.gpu`, as far as a CPU can run them."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases.fake_gpu import script

ROOT = Path(__file__).parents[3]
sys.path.append(str(ROOT))

from scripts.gpu import graph_timing, layers, staging  # noqa: E402
from scripts.gpu.bodies import (  # noqa: E402
    device_tests,
    end_to_end,
    layer_table,
    one_shape,
    paper_experiment,
    sanitizers,
    whole_calls,
)
from scripts.gpu.items import ITEMS  # noqa: E402
from scripts.gpu.outcomes import NotRunError, StepFailedError  # noqa: E402

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@pytest.fixture
def on_cpu(monkeypatch):
    """Layers on the CPU in float32, small, and each call timed as a millisecond."""
    small = partial(layers.PathLayer, channels=8, device="cpu", dtype=torch.float32)
    for module in (layer_table, one_shape):
        monkeypatch.setattr(module, "PathLayer", small)
        monkeypatch.setattr(module, "poison", lambda: None)
    monkeypatch.setattr(layer_table, "sets_for", lambda _: 2)
    monkeypatch.setattr(
        layer_table, "replay_seconds", lambda calls: [1e-3 for call in calls if call()]
    )


SHAPE = (3, 2, 7, 5)


def test_a_layer_is_compared_and_then_timed(on_cpu):
    steps = layer_table.steps("torch")
    assert list(steps)[:4] == [
        "forward, 8×256²", "input gradient, 8×256²", "weight gradient, 8×256²", "forward, 64×48²",
    ]  # fmt: skip
    assert {p * n for p, n, _, _ in layers.SHAPES.values()} == {8, 64}
    for part in layers.PASSES:
        figures = layer_table.measure("torch", part, SHAPE)
        assert figures["error"] < 1e-5 and figures["seconds"] == 1e-3 and figures["sets"] == 2
        assert figures["flops"] == 2 * 9 * 8 * 8 * 3 * 2 * 7 * 5


def test_a_wrong_layer_has_no_speed(on_cpu, monkeypatch):
    monkeypatch.setattr(layer_table, "replay_seconds", lambda calls: pytest.fail("it is timed"))
    monkeypatch.setattr(layers, "relative_error", lambda *_: float("nan"))
    with pytest.raises(StepFailedError, match=r"over the bound of 0\.005") as failure:
        layer_table.measure("torch", "forward", SHAPE)
    assert failure.value.figures["error"] != failure.value.figures["error"]


@pytest.mark.parametrize("part", layers.PASSES[1:])
def test_cudnn_runs_all_samples_with_the_weights_of_one_point(part, on_cpu):
    layer = layer_table.PathLayer(SHAPE, 0)
    layer.dw.zero_()
    ours, cudnn = (layer.run(part, who) for who in ("torch", "cudnn"))
    gradient = torch.where(layer.y > 0, layer.gy, 0)
    layer.gy, layer.y = gradient, torch.ones_like(layer.y)  # the baseline leaves the mask out
    (cudnn,) = layer.run(part, "cudnn")
    expected = ours[0].flatten(0, 1) if part == layers.PASSES[1] else ours[0].sum(0)
    torch.testing.assert_close(cudnn, expected.view_as(cudnn), rtol=1e-4, atol=1e-4)


def test_a_kernel_that_does_not_serve_is_no_result(on_cpu):
    layer = layer_table.PathLayer(SHAPE, 0)
    for who in ("triton", "cuda", "hopper"):
        for part in layers.PASSES:
            with pytest.raises(NotRunError, match=r"computes some|serves it"):
                layer.served(part, who)


@no_gpu
@pytest.mark.parametrize("body", [layer_table, one_shape])
@pytest.mark.parametrize("who", ["triton", "cuda", "hopper"])
def test_a_missing_backend_gives_its_reason(body, who):
    with pytest.raises(NotRunError, match=r"built without CUDA|is missing|not installed"):
        body.steps(who)


def test_hopper_is_asked_for_alone(monkeypatch):
    monkeypatch.setenv("FAIGFAST_HOPPER", "0")
    with layers.serving("hopper"):
        assert os.environ["FAIGFAST_HOPPER"] == "1"
    with layers.serving("cuda"):
        assert "FAIGFAST_HOPPER" not in os.environ
    assert os.environ["FAIGFAST_HOPPER"] == "0"


@pytest.mark.parametrize("name", one_shape.others("cpu"))
def test_every_operation_of_one_shape_is_valid(name, on_cpu):
    operation, make = one_shape.others("cpu")[name]
    figures = one_shape.check("torch", operation, make)
    assert 0 <= figures["error"] < layers.BOUND


@pytest.mark.parametrize("part", layers.PASSES)
def test_every_pass_of_one_shape_is_valid(part, on_cpu):
    assert one_shape.check_pass("torch", part)["error"] < 1e-5


def test_a_kernel_without_a_backend_is_left_to_torch(on_cpu):
    operation, make = one_shape.others("cpu")["prelu"]
    with pytest.raises(NotRunError, match="leaves it to torch"):
        one_shape.check("cuda", operation, make)


def test_replays_alone_are_timed(monkeypatch):
    """The calls run on a side stream and in the capture; between two events there is a replay."""
    seen = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            seen.append("event")

        def elapsed_time(self, end):
            return 6.0

    @contextmanager
    def inside(what):
        seen.append(f"begin {what}")
        yield
        seen.append(f"end {what}")

    fake = SimpleNamespace(
        Stream=lambda: SimpleNamespace(wait_stream=lambda _: seen.append("side waits")),
        current_stream=lambda: SimpleNamespace(wait_stream=lambda _: seen.append("main waits")),
        stream=lambda _: inside("side"),
        synchronize=lambda: seen.append("synchronize"),
        CUDAGraph=lambda: SimpleNamespace(replay=lambda: seen.append("replay")),
        graph=lambda _: inside("graph"),
        Event=Event,
        get_device_properties=lambda _: SimpleNamespace(L2_cache_size=100),
    )
    monkeypatch.setattr(graph_timing.torch, "cuda", fake)
    calls = [partial(seen.append, "call")] * 3
    assert graph_timing.replay_seconds(calls, replays=2) == [2e-3, 2e-3]
    side = ["side waits", "begin side", *["call"] * 9, "end side", "main waits", "synchronize"]
    graph = ["begin graph", *["call"] * 3, "end graph"]
    timed = ["event", "replay", "event"] * 2
    assert seen == [*side, *graph, *["replay"] * 3, *timed, "synchronize"]
    # Four times the cache of 100 bytes, at least two sets and at most 32.
    assert [graph_timing.sets_for(size) for size in (1000, 50, 1)] == [2, 8, 32]


def test_a_whole_call_is_timed_and_compared():
    figures = whole_calls.measure("torch", "fp32", "tiny-8x2", device="cpu", points=2)
    assert figures["overlap"] == 1 and figures["error"] < 1e-4 and figures["backend"] == "torch"
    assert 0 < figures["least"] <= figures["seconds"] <= figures["most"]
    assert figures["cpu seconds"] > 0 and figures["flops"] > 0 and figures["first"] > 0


def test_the_overlap_is_that_of_the_worst_image():
    exact = torch.arange(400.0).expand(2, 400)
    own = exact.clone()
    own[1, 399] = 0
    assert whole_calls.least_overlap(own, exact) == 0.75
    assert whole_calls.worst_error(own, exact) == pytest.approx(399 / exact[1].sum().item())


def test_the_rows_of_the_benchmark_are_kept():
    figures = end_to_end.measure("tiny-8x1", ("loop", "faigfast-torch"), device="cpu")
    assert [row["contender"] for row in figures["rows"]] == ["loop", "faigfast-torch"]
    assert "SRResNet 4×1" in figures["text"] and "seconds: median" in figures["remarks"]
    from faigfast.bench.rivals import contenders

    named = {name for names in end_to_end.WHO.values() for name in names}
    assert named <= set(contenders("cuda"))


def test_the_experiment_is_timed_way_by_way(monkeypatch):
    module = sys.modules["faigfast.bench.experiment"]
    monkeypatch.setattr(module, "CONVERGED", ("gauss-legendre", 4))
    monkeypatch.setattr(module._TrainedPair, "error", lambda *_: 0.0)
    assert list(paper_experiment.steps()) == [
        "torch fp32", "triton fp16", "cuda fp16", "auto auto",
    ]  # fmt: skip
    figures = paper_experiment.measure(
        ("torch", "fp32"), "cpu", family="tiny", sizes={"a": (16, 20)}, crop=6, points=(2,),
        repeats=1,
    )  # fmt: skip
    assert [row["who"] for row in figures["rows"]] == ["authors", "faigfast torch fp32"]
    assert figures["rows"][1]["seconds"] and "faigfast torch fp32" in figures["text"]


PYTEST = """FAILED tests/gpu/test_a.py::test_b[1] - assert 0
= 1 failed, 3 passed, 2 skipped in 1.23s =
"""
SKIPPED = """SKIPPED [2] tests/gpu/test_a.py:7: torch finds no GPU
2 skipped in 0.10s
"""


def test_tests_are_counted_and_named():
    with pytest.raises(StepFailedError, match="1 failed, 3 passed, 2 skipped") as failure:
        device_tests.judged(1, PYTEST)
    assert failure.value.figures["failed"] == ["tests/gpu/test_a.py::test_b[1]"]
    with pytest.raises(StepFailedError, match="its time was over"):
        device_tests.judged(None, "")
    with pytest.raises(NotRunError, match="2 skipped: torch finds no GPU"):
        device_tests.judged(0, SKIPPED)
    assert (
        device_tests.judged(0, "3 passed, 1 skipped in 2.50s")["counted"] == "3 passed, 1 skipped"
    )


def test_every_test_of_a_gpu_is_a_step():
    files = {path.stem for path in (ROOT / "tests" / "gpu").glob("test_*.py")}
    assert set(device_tests.steps()) == files and set(device_tests.ORDER) <= files
    for name in ("test_gpu_kernels", "test_triton_device"):  # what the sanitizers select
        assert "def test_small" in (ROOT / "tests" / "gpu" / f"{name}.py").read_text()


@no_gpu
def test_tests_run_with_the_staged_package(tmp_path, monkeypatch):
    staging.stage(tmp_path)
    for name, value in staging.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotRunError, match="skipped: "):
        device_tests.run("test_gpu_hopper")


@no_gpu
@pytest.mark.parametrize(
    "item, reason",
    [("memcheck", "compute-sanitizer was not"), ("one-shape-hopper", "extension is missing")],
)
def test_the_process_of_an_item_says_that_nothing_can_run(item, reason, tmp_path):
    """As the session starts it: `run` is then `__main__`."""
    given = {"results": str(tmp_path / "gpu.jsonl"), "stamp": {"device": "none"}, "skip": []}
    command = [*ITEMS[item].start_command(), json.dumps(given)]
    environment = staging.environment(tmp_path) | {"PATH": str(tmp_path)}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    (line,) = map(json.loads, (tmp_path / "gpu.jsonl").read_text().splitlines())
    assert (line["item"], line["step"], line["state"]) == (item, "", "not run")
    assert re.search(reason, line["reason"])


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A compute-sanitizer that says what `said` holds, and ends with what `status` holds."""
    text = (
        "import sys, pathlib\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "(folder / 'words').write_text(' '.join(sys.argv[1:]))\n"
        "print((folder / 'said').read_text())\n"
        "sys.exit(int((folder / 'status').read_text()))\n"
    )
    script(tmp_path / "compute-sanitizer", text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def says(said, status):
        (tmp_path / "said").write_text(said)
        (tmp_path / "status").write_text(str(status))
        return tmp_path / "words"

    return says


def test_the_sanitizers_errors_are_failures(tool):
    steps = sanitizers.steps("racecheck")
    assert list(steps) == ["conv64", "cuda", "triton"]
    words = tool("========= RACECHECK SUMMARY: 0 hazards displayed", 0)
    assert steps["cuda"]()["summary"] == "RACECHECK SUMMARY: 0 hazards displayed"
    asked = words.read_text()
    assert "--tool racecheck" in asked and "-k small" in asked and "test_gpu_kernels" in asked
    assert asked.count("kernel_substring=") == len(sanitizers.kernels())
    tool("========= ERROR SUMMARY: 3 errors", sanitizers.FOUND)
    with pytest.raises(StepFailedError, match="ERROR SUMMARY: 3 errors"):
        steps["triton"]()
    tool("========= Error: Device not supported", 1)
    with pytest.raises(NotRunError, match="Device not supported"):
        steps["cuda"]()
    tool("a test failed", 1)
    with pytest.raises(StepFailedError, match="exit status 1"):
        steps["cuda"]()


def test_compute_sanitizer_is_looked_for_beside_nvcc(tmp_path, monkeypatch):
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotRunError, match="compute-sanitizer was not"):
        sanitizers.steps("memcheck")
    toolkit = tmp_path / "toolkit" / "bin"
    toolkit.mkdir(parents=True)
    (toolkit / "compute-sanitizer").touch(0o755)
    text = f"import sys; print('#$ _HERE_={toolkit}', file=sys.stderr)"
    script(tmp_path / "nvcc", text)  # calls the toolkit's
    assert sanitizers.sanitizer() == str(toolkit / "compute-sanitizer")


def test_the_filter_knows_every_triton_kernel():
    names = sanitizers.kernels()
    assert {"faigfast", "conv_forward", "conv_weight_gradient", "score_reduction"} <= set(names)
    text = "".join(path.read_text() for path in (ROOT / "kernels").glob("*.py"))
    assert len(names) == 1 + len(set(re.findall(r"return Launch\((\w+)", text)))
    assert all(re.search(rf"^def {name}\(", text, re.MULTILINE) for name in names[1:])
