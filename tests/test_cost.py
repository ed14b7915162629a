"""The cost of a call: the line through calls that were timed, and the table."""

import json

import pytest

from faigfast.bench import measure_cost
from faigfast.bench.cost import Cost, Sample
from faigfast.cli import main


def test_the_line_through_what_was_timed():
    samples = [
        Sample("cpu", n, p, [0.03 + n * (0.02 + 0.1 * p), 9.0, 0.0])
        for n in (1, 2, 4)
        for p in (2, 8, 16)
    ]
    found = Cost(samples)
    assert found.fit("cpu") == pytest.approx((0.03, 0.02, 0.1))
    assert "30.0 ms a call, 20.0 ms an image, 100.0 ms a point of one; 2.9% of a call" in (
        found.table()
    )


def test_calls_are_timed_in_turn(tmp_path):
    found = measure_cost(
        "tiny-8", points=(1, 3), images=(1, 2), backends=("torch",), repeats=2, progress=False
    )
    assert [(s.images, s.points, len(s.seconds)) for s in found.samples] == [
        (1, 1, 2), (1, 3, 2), (2, 1, 2), (2, 3, 2)
    ]  # fmt: skip
    assert all(second > 0 for sample in found.samples for second in sample.seconds)
    found.save(tmp_path / "cost.json")
    assert len(json.loads((tmp_path / "cost.json").read_text())["samples"]) == 4
    with pytest.raises(ValueError, match="repeats is 0"):
        measure_cost(repeats=0)


def test_the_command(monkeypatch, tmp_path, capsys):
    sample = [Sample("cpu", n, p, [1.0 + n * p]) for n in (1, 2) for p in (1, 2)]
    monkeypatch.setattr("faigfast.commands.bench.measure_cost", lambda **options: Cost(sample))
    assert main(["bench", "--cost", "--output", str(tmp_path / "cost.md"), "--quiet"]) == 0
    text = (tmp_path / "cost.md").read_text()
    assert text.startswith("# The cost of a call\n\nWritten by `faigfast bench --cost")
    assert "is fixed" in text and "is fixed" in capsys.readouterr().out
