"""The benchmark of the GPU kernels, small and on a CPU."""

import json
from functools import partial

import pytest
import torch
from cases.cuda_emulation import compiler, emulated, extension

from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.bench import benchmark, gpu, rivals, runner, workload
from faigfast.bench.pointwise import pointwise_operations

quick = partial(
    gpu.measure_gpu, "cpu", layers=((8, 6, 2), (64, 5, 1)), matmul=32, copy=1000, progress=False
)


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(gpu, "REPEATS", 2)
    monkeypatch.setattr(gpu, "pointwise_operations", partial(pointwise_operations, shrink=16))


def test_torch_alone(brief, tmp_path):
    result = quick(who=["torch", "cuda", "triton"])
    speeds = {(row.what, row.who): row for row in result.rows}
    # Passes of two layers in each backend's precisions, and four pointwise operations.
    assert len(speeds) == len(result.rows) == 3 * (3 * 3 + 2 + 1) + 3 * 3 + 4 * 3
    for row in result.rows:
        if row.who == "torch":
            assert row.seconds and row.error is not None and not row.reason
            assert row.kernel == "plain" or "score" in row.what
        else:
            assert not row.seconds and row.reason
    text = result.table()
    assert "forward, 8 channels, 2×6², fp16" in text and "of matmul" in text
    assert text.count("\n  cuda, ") == text.count("\n  triton, ") == 1
    assert " and 15 more: " in text
    result.save(tmp_path / "kernels.json")
    saved = json.loads((tmp_path / "kernels.json").read_text())
    assert saved["rows"][0]["seconds"] == result.rows[0].seconds
    assert saved["matmul"] > 0 and saved["copy"] > 0 and saved["machine"]["cpu"]


@pytest.mark.slow
@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_the_kernels_that_serve_are_named(brief):
    with emulated(extension()):
        result = quick(who=["cuda", "hopper"], kinds=["fp16"])
    assert not [row for row in result.rows if row.reason], result.table()
    names = {(row.who, row.kernel) for row in result.rows}
    # The Hopper kernel serves only the second layer; the first falls back to cuda.
    assert names == {("cuda", "cuda"), ("cuda", "path_weights"), ("hopper", "hopper"),
                     ("hopper", "cuda")}  # fmt: skip


def test_what_is_wrong_has_no_speed(brief, monkeypatch):
    monkeypatch.setattr(gpu, "BOUNDS", dict.fromkeys(gpu.KINDS, 0.0))
    result = quick(who=["torch"], pointwise=False)
    assert all("over the bound of 0" in row.reason and not row.seconds for row in result.rows)
    assert "no speed" in result.table()


def test_rows_are_told_of_one_by_one_and_join(brief):
    told = []
    parts = [
        quick(who=[who], kinds=["fp16"], on_row=lambda so_far: told.append(len(so_far.rows)))
        for who in ("torch", "cuda")
    ]
    assert told == 2 * list(range(1, 3 * 2 + 4 + 1))
    back = gpu.GpuKernels.of(json.loads(json.dumps(gpu.asdict(parts[0]))))
    assert back == parts[0]
    lines = gpu.joint_table([back, parts[1]]).splitlines()[2:22]
    names = [line.partition(" torch ")[0].partition(" cuda ")[0].strip() for line in lines]
    assert names[::2] == names[1::2] == [row.what for row in back.rows]


def test_what_cannot_be_made_costs_its_rows(brief, monkeypatch):
    """A layer or operation without enough memory costs no other row."""
    layer = gpu.ConvolutionLayer

    def some(channels, *arguments):
        if channels == 8:
            raise torch.OutOfMemoryError("out of memory, tried to allocate 3 GiB")
        return layer(channels, *arguments)

    monkeypatch.setattr(gpu, "ConvolutionLayer", some)
    makers = gpu.pointwise_operations

    def fails():
        raise RuntimeError("no such thing")

    monkeypatch.setattr(
        gpu,
        "pointwise_operations",
        lambda device: dict(
            (name, fails if "loss" in name else make) for name, make in makers(device).items()
        ),
    )
    result = quick(who=["torch"], kinds=["fp16"])
    reasons = [row.reason for row in result.rows]
    assert [bool(reason) for reason in reasons] == [True] * 3 + [False] * 5 + [True, False]
    assert "3 GiB" in reasons[0] and reasons[-2] == "no such thing"


def test_a_device_that_fails_is_blamed_on_one_row(brief, monkeypatch):
    run, calls = gpu.ConvolutionLayer.run, []

    def fails(layer, part, backend):
        calls.append(part)
        if part == "input gradient":
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")
        return run(layer, part, backend)

    monkeypatch.setattr(gpu.ConvolutionLayer, "run", fails)
    monkeypatch.setattr(gpu, "works", lambda device: "input gradient" not in calls)
    result = quick(who=["torch"], kinds=["fp16"])
    first, second, *others = result.rows
    assert first.seconds and second.reason.endswith("an illegal memory access was encountered")
    assert {row.reason for row in others} == {
        f"not measured: the device failed in {second.what}, torch"
    }
    assert len(others) == 8 and calls.count("input gradient") == 1


def test_a_device_that_works():
    assert gpu.works(torch.device("cpu"))


@pytest.mark.parametrize("name", ["loop-fp16", "compile-fp16"])
def test_rivals_in_16_bits(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    problem = workload("tiny-8x2").problem(3)
    before = problem.target.state_dict()["conv_first.weight"].clone()
    scores, losses = runner.errors(rivals.NARROW[name](problem)(), runner.exact(problem))
    assert 1e-5 < scores < 2e-2 and losses < 1e-2
    assert torch.equal(problem.target.state_dict()["conv_first.weight"], before)


def test_who_takes_part_on_a_gpu():
    names = list(rivals.contenders("cuda"))
    assert names[:4] == list(rivals.contenders("cpu"))[:4]
    assert {"loop-fp16", "compile-fp16", "faigfast-triton-fp16", "faigfast-cuda"} <= set(names)
    with pytest.raises(ValueError, match="contender is 'loop-fp16'"):
        benchmark(["tiny-8x1"], contenders=["loop-fp16"], progress=False)


@pytest.mark.slow
def test_backends_that_are_not_there_say_why_in_their_rows(monkeypatch):
    everyone = rivals.contenders("cuda")
    monkeypatch.setattr(runner, "everyone", lambda device: everyone)
    report = benchmark(
        ["tiny-8x1"], steps=2, repeats=1, memory=False, progress=False,
        contenders=["loop", "loop-fp16", "faigfast-cuda-fp16"],
    )  # fmt: skip
    section = report.sections[0]
    assert section.row("loop-fp16").seconds
    if _extension_cuda.problem("cpu"):
        assert "backend 'cuda' cannot be used on cpu" in section.row("faigfast-cuda-fp16").reason


def test_a_problem_on_a_device_is_a_copy():
    problem = workload("tiny-8x1").problem(2)
    moved = problem.to("cpu")
    assert moved.target is not problem.target and moved.flops == problem.flops
    assert torch.equal(moved.x, problem.x) and moved.rule == problem.rule
