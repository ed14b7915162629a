"""The benchmark of the GPU's kernels, small and on a CPU."""

import json
from functools import partial

import pytest
import torch
from cuda_emulation import compiler, emulated, extension

from faigfast import _extension_cuda
from faigfast.bench import benchmark, gpu, rivals, runner, workload
from faigfast.bench.pointwise import subjects

quick = partial(
    gpu.measure_gpu, "cpu", layers=((8, 6, 2), (64, 5, 1)), matmul=32, copy=1000, progress=False
)


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(gpu, "REPEATS", 2)
    monkeypatch.setattr(gpu, "subjects", partial(subjects, shrink=16))


def test_torch_alone(brief, tmp_path):
    found = quick(who=["torch", "cuda", "triton"])
    speeds = {(row.what, row.who): row for row in found.rows}
    assert len(speeds) == len(found.rows) == 3 * (3 * 3 + 3 + 4)
    for row in found.rows:
        if row.who == "torch":
            assert row.seconds and row.error is not None and not row.reason
            assert row.kernel == "plain" or "score" in row.what
        else:
            assert not row.seconds and row.reason
    table = found.table()
    assert "forward, 8 channels, 2×6², fp16" in table and "of matmul" in table
    assert "cuda: " in table and "triton: " in table
    found.save(tmp_path / "kernels.json")
    saved = json.loads((tmp_path / "kernels.json").read_text())
    assert saved["rows"][0]["seconds"] == found.rows[0].seconds
    assert saved["matmul"] > 0 and saved["copy"] > 0 and saved["machine"]["cpu"]


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
def test_the_kernels_that_serve_are_named(brief):
    with emulated(extension()):
        found = quick(who=["cuda", "hopper"], kinds=["fp16"])
    assert not [row for row in found.rows if row.reason], found.table()
    names = {(row.who, row.kernel) for row in found.rows}
    # The Hopper kernel serves the second layer alone, and the first falls back to cuda.
    assert names == {("cuda", "cuda"), ("cuda", "path_weights"), ("hopper", "hopper"),
                     ("hopper", "cuda")}  # fmt: skip


def test_what_is_wrong_has_no_speed(brief, monkeypatch):
    monkeypatch.setattr(gpu, "BOUNDS", dict.fromkeys(gpu.KINDS, 0.0))
    found = quick(who=["torch"], pointwise=False)
    assert all("over the bound of 0" in row.reason and not row.seconds for row in found.rows)
    assert "no speed" in found.table()


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
