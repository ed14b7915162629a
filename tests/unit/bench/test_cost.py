"""The cost of a call: the line through timed calls, and the table."""

import json

import pytest

from faigfast.bench import measure_cost
from faigfast.bench.cost import Cost, TimedCalls
from faigfast.bench.first_cost import PARTS, Call, FirstCall, calls_of, timed_parts
from faigfast.cli.main import main


def test_the_line_through_what_was_timed():
    samples = [
        TimedCalls("cpu", n, p, [0.03 + n * (0.02 + 0.1 * p), 9.0, 0.0])
        for n in (1, 2, 4)
        for p in (2, 8, 16)
    ]
    cost = Cost(samples)
    assert cost.fit("cpu") == pytest.approx((0.03, 0.02, 0.1))
    text = cost.table()
    assert "30.0 ms per call (fixed), 20.0 ms per image, 100.0 ms per point of an image" in text
    assert "the fixed time is 2.9% of a call" in text


@pytest.mark.slow
def test_calls_are_timed_in_turn(tmp_path):
    cost = measure_cost(
        "tiny-8", points=(1, 3), images=(1, 2), backends=("torch",), repeats=2, progress=False
    )
    assert [(s.images, s.points, len(s.seconds)) for s in cost.samples] == [
        (1, 1, 2), (1, 3, 2), (2, 1, 2), (2, 3, 2)
    ]  # fmt: skip
    assert all(second > 0 for sample in cost.samples for second in sample.seconds)
    cost.save(tmp_path / "cost.json")
    written = json.loads((tmp_path / "cost.json").read_text())
    assert len(written["samples"]) == 4
    (first,) = written["first"]
    assert first["points"] == 10 and len(first["first"]) == len(first["later"]) == 2
    assert all(part > 0 for call in first["first"] for part in call["parts"].values())
    assert "first calls of one image and 10 points" in cost.table()
    with pytest.raises(ValueError, match="repeats is 0"):
        measure_cost(repeats=0)


def test_the_parts_of_a_first_call_add_up():
    names = dict.fromkeys(PARTS, 0.0)
    first = Call(1.0, names | {"networks": 0.3, "plan": 0.1, "comparing": 0.2})
    later = Call(0.2, names | {"networks": 0.05})
    one = FirstCall("cpu", 10, [first], [later])
    (extra,) = one.extra()
    assert extra == pytest.approx({"networks": 0.25, "plan": 0.1, "comparing": 0.2, "rest": 0.25})
    assert sum(extra.values()) == pytest.approx(first.seconds - later.seconds)
    assert one.cells() == ("cpu", "1000", "200", "250", "100", "200", "250")
    assert "250" in Cost([TimedCalls("cpu", 1, 1, [1.0])], [one]).table()


def test_only_a_first_call_makes_a_plan():
    first, later = calls_of("tiny-9x1", "torch", 1)
    assert all(seconds > 0 for seconds in first[1].values())
    assert later[1]["plan"] == later[1]["comparing"] == 0
    assert sum(first[1].values()) < first[0]


def test_timing_leaves_the_functions_as_they_were():
    places = [(module, name) for part in PARTS.values() for module, name in part]
    before = [getattr(module, name) for module, name in places]
    with pytest.raises(ZeroDivisionError), timed_parts():
        assert [getattr(module, name) for module, name in places] != before
        raise ZeroDivisionError
    assert [getattr(module, name) for module, name in places] == before


def test_the_command(monkeypatch, tmp_path, capsys):
    sample = [TimedCalls("cpu", n, p, [1.0 + n * p]) for n in (1, 2) for p in (1, 2)]
    monkeypatch.setattr("faigfast.cli.bench.measure_cost", lambda **options: Cost(sample))
    assert main(["bench", "--cost", "--output", str(tmp_path / "cost.md"), "--quiet"]) == 0
    text = (tmp_path / "cost.md").read_text()
    assert text.startswith("# The cost of a call\n\nWritten by `faigfast bench --cost")
    assert "the fixed time is" in text and "the fixed time is" in capsys.readouterr().out
