import copy
import json
from functools import partial

import pytest
import torch
from torch import nn

from faigfast.bench import WORKLOADS, benchmark, rivals, runner, workload
from faigfast.bench.families import FAMILIES, SCALE
from faigfast.bench.report import BenchmarkResult, ContenderResult, WorkloadResult
from faigfast.bench.spandrel import NETWORKS
from faigfast.bench.workloads import forward_flops
from faigfast.zoo import SRResNet

quick = partial(
    benchmark, ["tiny-8x2"], steps=3, repeats=2, first=False, memory=False, progress=False
)
HONEST = ["authors", "loop", "vmap", "faigfast-reference"]


@pytest.mark.parametrize("name", [*rivals.contenders()])
def test_everyone_computes_the_same(name, monkeypatch):
    # torch.compile without C++ code generation, which takes half a minute.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    problem = workload("tiny-8x2").problem(3).to(torch.float64)
    before = [copy.deepcopy(net.state_dict()) for net in (problem.baseline, problem.target)]
    run = rivals.contenders()[name](problem)
    expected = runner.exact(problem)
    for _ in range(2):  # the second run starts from the state after the first
        scores, losses = run()
        assert scores.shape == (2, 136) and losses.shape == (2, 2)
        assert max(runner.errors((scores, losses), expected)) < 1e-12
    for net, state in zip((problem.baseline, problem.target), before, strict=True):
        assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())
        assert all(parameter.grad is None for parameter in net.parameters())


def test_vmap_in_chunks(monkeypatch):
    monkeypatch.setattr(rivals, "VMAP_PIXELS", 2 * 8 * 8)
    problem = workload("tiny-8x1").problem(5).to(torch.float64)
    assert max(runner.errors(rivals.vmapped(problem)(), runner.exact(problem))) < 1e-12


def test_report(tmp_path):
    report = quick(contenders=HONEST)
    (section,) = report.sections
    assert [row.contender for row in section.rows] == HONEST
    for row in section.rows:
        assert len(row.seconds) == 2 and min(row.seconds) > 0
        assert row.error < 1e-4 and not row.reason and row.memory is None
    assert section.ratios(section.row("loop")) == [1.0, 1.0]
    assert section.flops == 2 * 3 * 3 * 2 * 64 * by_hand(4, 1)
    text = report.table()
    assert "tiny-8x2: SRResNet 4×1" in text and "every image" in text
    assert all(f"\n  {name} " in text for name in HONEST)

    report.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    row = saved["sections"][0]["rows"][0]
    assert row["seconds"] == section.rows[0].seconds
    assert row["ratios"] == section.ratios(section.rows[0])
    assert (saved["bound"], saved["loss_bound"]) == (runner.BOUND, runner.LOSS_BOUND)
    assert saved["machine"]["threads"] == torch.get_num_threads()
    assert saved["machine"]["cpu"] and saved["machine"]["instructions"] and saved["command"]
    assert saved["versions"]["torch"] == torch.__version__
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_table_shows_medians_and_pairwise_ratios():
    section = WorkloadResult("name", "title", 8, 12_000_000_000, "every image")
    section.rows = [
        ContenderResult(
            "loop", [1.0, 2.0, 3.0], error=1e-6, first=[2.0, 4.0, 3.0], memory=100 * 2**20
        ),
        ContenderResult("own", [1.0, 1.0, 1.0], error=1e-6, first=[4.0, 2.0]),
        ContenderResult("other", [0.5, 0.5, 3.0], error=2e-6, scaled="2 of 8 points"),
    ]
    lines = BenchmarkResult([section], 2e-3, 1e-4).table().splitlines()
    loop, own, other = (line.split() for line in lines[3:6])
    assert loop == [
        "loop",
        "2.000",
        "1.000–3.000",
        "6.0",
        "1.00",
        "3.000",
        "1.00",
        "1.0e-06",
        "100",
    ]
    assert own == ["own", "1.000", "1.000–1.000", "12.0", "2.00", "3.000", "1.25", "1.0e-06", "–"]
    assert other == ["other*", "0.500", "0.500–3.000", "24.0", "2.00", "–", "–", "2.0e-06", "–"]
    assert lines[6].strip() == "other: scaled from 2 of 8 points"


def test_no_ratio_without_the_loop():
    (section,) = quick(contenders=["authors"]).sections
    assert section.ratios(section.rows[0]) == []


def off_by_a_percent(problem):
    run = rivals.loop(problem)
    return lambda: (run()[0] * 1.01, run()[1])


def wrong_end_losses(problem):
    run = rivals.loop(problem)
    return lambda: (run()[0], run()[1].flip(1))


def not_a_number(problem):
    run = rivals.loop(problem)
    return lambda: (run()[0] * float("nan"), run()[1])


def one_image(problem):
    run = rivals.loop(problem)
    return lambda: tuple(part[:1] for part in run())


def no_compiler(problem):
    raise RuntimeError("backend='inductor' raised:\nno C++ compiler\n\nmany more lines")


@pytest.mark.parametrize(
    "wrong, reason",
    [
        (off_by_a_percent, "error 1.0e-02 of the scores, over the bound of 0.002"),
        (wrong_end_losses, "of the losses, over the bound of 0.0001"),
        (not_a_number, "error nan of the scores, over the bound of 0.002"),
        (one_image, "cannot run here: it computes [1, 136]; expected [2, 136]"),
        (no_compiler, "cannot run here: backend='inductor' raised: no C++ compiler"),
    ],
)
def test_what_is_wrong_has_no_speed(wrong, reason, monkeypatch, tmp_path):
    monkeypatch.setitem(rivals.RIVALS, "wrong", wrong)
    report = quick(contenders=["wrong", "loop"])
    row, loop = report.sections[0].rows
    assert reason in row.reason and row.seconds == []
    assert len(loop.seconds) == 2
    (line,) = (line for line in report.table().splitlines() if line.startswith("  wrong  "))
    assert "no speed" in line and line.split()[1] == "–"
    assert f"wrong: {row.reason}" in report.table()
    report.save(tmp_path / "report.json")
    assert "NaN" not in (tmp_path / "report.json").read_text()


def test_contenders_take_turns(monkeypatch):
    order = []

    def noting(name, problem):
        run = rivals.loop(problem)
        return lambda: order.append(name) or run()

    for name in "abc":
        monkeypatch.setitem(rivals.RIVALS, name, partial(noting, name))
    quick(contenders=["a", "b", "c"])
    assert "".join(order) == "abc" + "abc" + "bca"


def test_the_authors_way_is_scaled_where_large(monkeypatch):
    problems = []

    def spy(problem):
        problems.append((len(problem.x), problem.steps))
        return rivals.loop(problem)

    monkeypatch.setitem(rivals.RIVALS, "authors", spy)
    monkeypatch.setattr(runner, "LARGE", 0)
    monkeypatch.setattr(runner, "_seconds", lambda run: 1.0)
    report = quick(contenders=["authors", "loop"])
    (section,) = report.sections
    assert problems == [(1, 3), (1, 2)]
    row = section.row("authors")
    assert row.scaled == "2 of 3 points, 1 of 2 images"
    assert row.seconds == [2 * (3 * 3 + 2) / (3 * 2 + 2)] * 2
    assert section.row("loop").seconds == [1.0, 1.0]
    assert section.checked == "first image" and "authors*" in report.table()


def test_progress_ends_full(capsys):
    quick(contenders=["loop"], progress=True)
    assert "4/4" in capsys.readouterr().err


def by_hand(width: int, blocks: int) -> int:
    """Multiply-adds per LR pixel of an SRResNet ×2; all kernels are 3×3."""
    low = 3 * width + blocks * 2 * width * width + width * 4 * width
    high = width * width + width * 3
    return 9 * (low + 4 * high)


@pytest.mark.parametrize("width, blocks", [(4, 1), (64, 16)])
def test_flops_of_srresnet(width, blocks):
    net = SRResNet(width=width, blocks=blocks, scale=2)
    assert forward_flops(net, torch.zeros(2, 3, 4, 5)) == 2 * 2 * 4 * 5 * by_hand(width, blocks)
    assert not net._forward_hooks and not net.conv_last._forward_hooks


def test_flops_of_the_design():
    assert round(2 * by_hand(64, 16) / 1e6, 2) == 2.97


@pytest.mark.parametrize(
    "net, x, flops",
    [
        (nn.Conv2d(4, 6, 3, stride=2, groups=2), (1, 4, 7, 9), 2 * 6 * (3 * 4) * 2 * 9),
        (nn.Conv1d(2, 5, 3, padding=1), (2, 2, 6), 2 * 2 * 5 * 6 * 2 * 3),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 3), 2 * 4 * 15 * 6 * 4),
        (nn.Linear(4, 4), (1, 4), 0),
    ],
)
def test_flops_of_other_convolutions(net, x, flops):
    assert forward_flops(net, torch.zeros(x)) == flops


@pytest.mark.parametrize("name", [n for n in WORKLOADS if n.endswith("-48x4") or "srcnn" in n])
def test_workloads(name):
    chosen = workload(name)
    problem, again = chosen.problem(8), chosen.problem(8, 1)
    images, size = len(chosen.sizes), chosen.sizes[0][0]
    assert problem.x.shape == (images, 3, size, size)
    assert problem.gt.shape == (images, 3, SCALE * size, SCALE * size)
    assert problem.gt.min() >= 0 and problem.gt.max() <= 1
    assert len(again.x) == 1 and torch.equal(problem.x[:1], again.x)
    for net, same in ((problem.baseline, again.baseline), (problem.target, again.target)):
        assert not net.training
        for key, value in net.state_dict().items():
            assert torch.equal(value, same.state_dict()[key])
    first, last = problem.baseline.state_dict(), problem.target.state_dict()
    for key, value in last.items():
        if value.numel() < 100:
            continue  # too few pixels to estimate the noise's deviation
        moved, size = ((t.square().mean().sqrt().item()) for t in (value - first[key], first[key]))
        assert moved == pytest.approx(0.1 * size + 0.001, rel=0.2)


def test_the_shipped_pair_as_a_workload():
    problem = workload("pair-8x2").problem(1)
    assert problem.target(problem.x).shape == problem.gt.shape == (2, 3, 16, 16)
    assert forward_flops(problem.target, problem.x) == 2 * 2 * 8 * 8 * by_hand(32, 8)


def test_workloads_leave_random_numbers_alone():
    before = torch.get_rng_state()
    workload("tiny-8x1").problem(1)
    assert torch.equal(before, torch.get_rng_state())


def test_list_of_workloads():
    assert len(WORKLOADS) == 16 and len(set(WORKLOADS)) == 16
    assert {workload(name).family for name in WORKLOADS} == FAMILIES.keys() - {"tiny", *NETWORKS}
    assert set(runner.DEFAULT) <= set(WORKLOADS)


@pytest.mark.parametrize(
    "arguments, kind, wrong_value, expected",
    [
        ({"workloads": ["srresnet"]}, ValueError, "'srresnet'", "srresnet-48x1"),
        ({"workloads": ["resnet-48x1"]}, ValueError, "'resnet-48x1'", "pair-64x4"),
        ({"workloads": ["tiny-0x1"]}, ValueError, "'tiny-0x1'", "FAMILY-SIZExIMAGES"),
        ({"workloads": []}, ValueError, "workloads is empty", "at least one"),
        ({"workloads": "all"}, TypeError, "'all'", "a sequence"),
        ({"contenders": ["captum"]}, ValueError, "'captum'", "authors, loop, vmap, compile"),
        ({"contenders": []}, ValueError, "contenders is empty", "at least one"),
        ({"steps": 0}, ValueError, "steps is 0", "positive"),
        ({"steps": 2.5}, TypeError, "steps is 2.5", "integer"),
        ({"repeats": -1}, ValueError, "repeats is -1", "positive"),
        ({"repeats": True}, TypeError, "repeats is True", "integer"),
    ],
)
def test_bad_arguments(arguments, kind, wrong_value, expected):
    with pytest.raises(kind) as caught:
        benchmark(**{"workloads": ["tiny-8x1"], "progress": False, **arguments})
    assert wrong_value in str(caught.value) and expected in str(caught.value)
