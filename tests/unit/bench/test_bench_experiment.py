"""The whole experiment of the paper, tiny and on a CPU."""

import json
import statistics
import sys
from functools import partial

import pytest

from faigfast import bench

module = sys.modules["faigfast.bench.experiment"]
tiny = partial(
    bench.experiment, "cpu", family="tiny", sizes={"a": (24, 20), "b": (16, 20), "c": (24, 20)},
    crop=6, points=(1, 16), repeats=2, progress=False,
)  # fmt: skip


@pytest.mark.slow
def test_every_way_is_compared_and_timed(tmp_path):
    result = tiny(ways=[("torch", "fp32"), ("cuda", "fp16")])
    theirs, own, absent = result.rows
    assert result.title == (
        "SRResNet 4×1 ×2, random; 3 drawn images, 0.00 megapixels of ground truth; blur, noise; "
        "both directions"
    )
    # One point is less accurate than the authors' 100; 16 points of the graded rule are enough.
    assert own.ran == "torch fp32" and own.points == 16 and own.error <= result.goal == theirs.error
    assert len(own.seconds) == 2 and own.off < 1e-3 and theirs.off < 1e-3
    assert theirs.scaled.startswith("2 of 100 points of one image of 24×20 under one degradation")
    assert len(theirs.seconds) == 3 and absent.seconds == []
    assert "backend 'cuda' cannot be used on cpu" in absent.reason
    lines = result.table().splitlines()
    assert lines[3].split()[0] == "authors*" and " 100 " in lines[3] and "no speed" in lines[5]
    result.save(tmp_path / "experiment.json")
    saved = json.loads((tmp_path / "experiment.json").read_text())
    assert saved["rows"][1]["seconds"] == own.seconds and saved["machine"]["cpu"]


@pytest.fixture
def quick(monkeypatch):
    """Measure errors against a rule of few points."""
    monkeypatch.setattr(module, "CONVERGED", ("gauss-legendre", 4))


def test_ways_are_told_of_one_by_one_and_join(quick, monkeypatch):
    monkeypatch.setattr(module._TrainedPair, "error", lambda *_: 0.0)
    told = []
    parts = [
        tiny(ways=[way], on_row=lambda so_far: told.append([row.who for row in so_far.rows]))
        for way in (("torch", "fp32"), ("cuda", "fp16"))
    ]
    first, second = "faigfast torch fp32", "faigfast cuda fp16"
    assert told == [["authors"], ["authors", first], ["authors"], ["authors", second]]
    back = module.Experiment.of(json.loads(json.dumps(module.asdict(parts[0]))))
    assert back == parts[0]
    both = module.joined([back, parts[1]])
    assert [row.who for row in both.rows] == ["authors", first, second]
    theirs, own, _ = both.rows
    assert own.ratio == pytest.approx(
        statistics.median(theirs.seconds) / statistics.median(own.seconds)
    )


def test_the_authors_way_may_fail_alone(quick, monkeypatch):
    monkeypatch.setattr(module._TrainedPair, "error", lambda *_: 0.0)

    def fails(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(module, "_authors", fails)
    theirs, own = tiny(ways=[("torch", "fp32")]).rows
    assert theirs.reason == "no memory" and own.seconds and own.ratio is None


def test_the_authors_way_is_scaled_by_its_work(quick, monkeypatch):
    monkeypatch.setattr(module._TrainedPair, "error", lambda *_: 0.0)
    monkeypatch.setattr(module, "_seconds", lambda run, device: 1.0)
    result = tiny(ways=[])
    # All pixels / one image's pixels · points with ends / timed ones · degradations · directions.
    assert result.rows[0].seconds == pytest.approx([(2 * 480 + 320) / 480 * 302 / 8 * 2 * 2] * 3)


@pytest.mark.slow
def test_what_is_not_as_accurate_or_wrong_has_no_speed(monkeypatch):
    (_, own) = tiny(ways=[("torch", "fp32")], points=(1,)).rows
    assert not own.seconds and own.reason.startswith("with 1 point the error is")
    monkeypatch.setattr(module, "BOUND", 0.0)
    (_, own) = tiny(ways=[("torch", "fp32")]).rows
    assert not own.seconds and "over the bound of 0" in own.reason


def test_the_sizes_of_set14():
    assert len(module.SET14) == 14
    assert all(h % 2 == w % 2 == 0 and min(h, w) >= 250 for h, w in module.SET14.values())
    shapes = module._by_size(module.SET14)
    assert sum(map(len, shapes.values())) == 14 and len(shapes) == 10
    assert shapes[512, 512] == ["bridge", "lenna", "man", "pepper"]
