"""The race to the authors' accuracy: contenders, comparison and output."""

import json
import sys

import pytest
import torch

from faigfast import attribute, backends
from faigfast.bench import race as run_race
from faigfast.bench import workload
from faigfast.bench.race import FEWEST, YARDSTICK, RaceEntry, entrants
from faigfast.bench.rivals import loop, own
from faigfast.bench.workloads import Problem
from faigfast.zoo import SwinIR

module = sys.modules[run_race.__module__]  # the function hides the module of the same name

FEW = (
    ("loop", "left", 6),
    ("faigfast-torch", "left", 6),
    ("faigfast-torch", "graded", 4),
    ("faigfast-torch", "averaged", FEWEST),
    ("faigfast-torch", "averaged", None),
)


def tiny():
    problem = workload("tiny-8x1").problem(1)
    return problem.baseline, problem.target


@pytest.fixture(scope="module")
def measured():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CONVERGED", ("gauss-legendre", 12))
        patch.setattr(module, "SIZE", 16)
        patch.setattr(module, "EVERY", 2000)
        return run_race({"tiny": tiny}, FEW, repeats=2, progress=False)


def test_the_authors_rule_is_what_others_are_compared_with():
    assert entrants()[0] == YARDSTICK == ("loop", "left", 100)


def test_faigfast_runs_with_its_defaults():
    x = torch.rand(1, 1, module.SIZE // module.SCALE, module.SIZE // module.SCALE)
    nets = [torch.nn.Conv2d(1, 1, 1) for _ in range(2)]
    default = "midpoint", attribute(*nets, (x, x), rule="midpoint").evaluations
    assert ("loop", *default) in entrants()
    assert ("faigfast-torch", "averaged", None) in entrants()
    if backends()["cpu"].available:
        for points in (None, FEWEST):
            assert ("faigfast-cpu", "averaged", points) in entrants()


def test_errors_are_those_of_the_rule(measured):
    first, engine, graded, *_ = measured.pairs["tiny"]
    assert first.errors == pytest.approx(engine.errors, rel=1e-2)
    assert max(graded.errors) < max(first.errors)
    assert len(first.errors) == 2 * len(measured.images) and measured.images
    assert all(len(row.seconds) == 2 for row in measured.pairs["tiny"])


def test_the_default_says_what_it_took(measured):
    first, *_, default = measured.pairs["tiny"]
    assert (first.points, default.steps) == (6, None) and 6 <= default.points <= 54
    assert "averaged, default" in measured.table() and f"{default.points:.4g}" in measured.table()


def test_the_fewest_points_that_suffice(measured):
    first, *_, fewest, _ = measured.pairs["tiny"]
    assert fewest.mean_error <= first.mean_error and 2 <= fewest.steps <= 6
    assert "averaged, fewest" in measured.table()


def test_what_is_finished_is_kept(monkeypatch):
    monkeypatch.setattr(module, "CONVERGED", ("gauss-legendre", 4))
    monkeypatch.setattr(module, "SIZE", 16)
    monkeypatch.setattr(module, "EVERY", 2000)

    def interrupted():
        raise KeyboardInterrupt

    kept = []
    pairs = {"tiny": tiny, "another": interrupted}
    with pytest.raises(KeyboardInterrupt):
        run_race(
            pairs, FEW[:2], repeats=1, progress=False, keep=lambda race: kept.append(race.table())
        )
    assert len(kept) == 1 and "tiny" in kept[0] and "another" not in kept[0]


def test_first_calls_are_timed(measured):
    assert all(row.first > 0 for row in measured.pairs["tiny"])


def test_images_of_a_folder():
    x, gt = module._folder()
    assert [image.shape[2:] for image in x] == [torch.Size(size) for size in module.SIZES]
    assert all(b.shape[2] == 2 * a.shape[2] for a, b in zip(x, gt, strict=True))


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ((0.02, 0.01, 0.02), "every rule is at most that of loop left 100"),
        (
            (0.02, 0.01, 0.03),
            "above that of loop left 100 with faigfast-cpu averaged, default (1.50 times); at most",
        ),
    ],
)
def test_mean_errors_are_compared_with_the_authors(errors, verdict):
    kinds = (("loop", "left", 100), ("loop", "midpoint", 15), ("faigfast-cpu", "averaged", None))
    rows = [
        RaceEntry(*kind, errors=[error / 2, 1.5 * error], seconds=[1.0])
        for kind, error in zip(kinds, errors, strict=True)
    ]
    text = module.Race({"pair": rows}, ["crop"], versions={"torch": "2"}).table()
    assert verdict in text and "÷ left 100" in text
    assert all(f"  {error / errors[0]:.2f}  " in text for error in errors)


def test_errors_against_a_direct_computation():
    baseline, target = tiny()
    generator = torch.Generator().manual_seed(0)
    x, gt = (torch.rand(2, 3, s, s, generator=generator) for s in (8, 16))
    exact = attribute(
        baseline, target, (x, gt), rule="gauss-legendre", steps=12, precision="fp64"
    ).scores()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CONVERGED", ("gauss-legendre", 12))
        patch.setattr(module, "photographs", lambda names: {})
        data = type("Data", (), {"lq": {"lq": x}, "gt": gt, "names": ("a", "b")})
        data.part = lambda self, chosen: self
        patch.setattr(module, "crops", lambda *given: data())
        (row,) = run_race({"t": tiny}, FEW[:1], repeats=1, progress=False).pairs["t"]
    left = attribute(baseline, target, (x, gt), rule="left", steps=6, precision="fp64").scores()
    expected = (left - exact).abs().sum(1) / exact.sum(1)
    assert row.errors == pytest.approx(expected.tolist(), rel=1e-3)


def test_table_and_file(measured, tmp_path):
    text = measured.table()
    assert "tiny" in text and "× loop, left 100" in text and "graded" in text
    measured.save(tmp_path / "race.json")
    kept = json.loads((tmp_path / "race.json").read_text())
    assert [row["rule"] for row in kept["pairs"]["tiny"]] == [
        "left", "left", "graded", "averaged", "averaged"
    ]  # fmt: skip


def test_no_repeats():
    with pytest.raises(ValueError, match="repeats is 0"):
        run_race({"tiny": tiny}, FEW, repeats=0)


def test_the_loop_takes_networks_with_indices_among_their_buffers():
    networks = [
        SwinIR(width=8, depths=(2,), heads=(2,), scale=2, window=4, image_size=8).eval()
        for _ in range(2)
    ]
    generator = torch.Generator().manual_seed(0)
    x, gt = (torch.rand(1, 3, s, s, generator=generator) for s in (8, 16))
    problem = Problem(*networks, x, gt, 2)
    torch.testing.assert_close(loop(problem)()[0], own("torch", problem)()[0], rtol=1e-4, atol=1e-6)
