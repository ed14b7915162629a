"""Choices by measured times: bounded, kept in a file, and robust against failures."""

import json

import pytest
import torch

from faigfast.backend.gpu.timed_choices import Candidate, Choice, TimedChoices, rounded, seconds_of

CPU = torch.device("cpu")


class Clock:
    """A clock that advances only when a candidate runs."""

    def __init__(self):
        self.now = 0.0
        self.ran = []

    def __call__(self):
        return self.now

    def candidate(self, name, seconds, fails=None, **options):
        def run():
            self.ran.append(name)
            self.now += seconds
            if fails is not None:
                raise fails

        return Candidate(name, name.upper(), run, **options)

    def timer(self, run, device):
        before = self.now
        run()
        return self.now - before


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timed(clock, tmp_path, monkeypatch):
    monkeypatch.setenv("FAIGFAST_CACHE", str(tmp_path / "kept"))
    monkeypatch.delenv("FAIGFAST_TUNE", raising=False)

    def make(device="card A", **options):
        given = dict(seconds=10.0, altogether=30.0, margin=1.05) | options
        return TimedChoices(
            "some.json", types=("cpu",), timer=clock.timer, clock=clock, name=lambda _: device,
            **given,
        )  # fmt: skip

    return make


def test_the_fastest_is_taken_and_kept_for_its_device(timed, clock):
    ways = [clock.candidate("slow", 0.3), clock.candidate("fast", 0.1), clock.candidate("mid", 0.2)]
    first = timed()
    value, choice = first.chosen(CPU, "layer", ways)
    assert value == "FAST" and choice.name == "fast" and first.spent == pytest.approx(0.6)
    assert choice.milliseconds == pytest.approx({"slow": 300, "fast": 100, "mid": 200})
    assert str(choice) == "fast (fast 100 ms; mid 200 ms; slow 300 ms)"
    clock.ran.clear()
    assert first.chosen(CPU, "layer", ways)[0] == "FAST"
    assert timed().chosen(CPU, "layer", ways)[0] == "FAST"  # another process
    assert clock.ran == []
    assert timed("card B").chosen(CPU, "layer", ways)[0] == "FAST"
    assert timed().chosen(CPU, "another", ways)[0] == "FAST"
    assert clock.ran == ["slow", "fast", "mid"] * 2
    assert set(json.loads(first.path.read_text())) == {"card A", "card B"}
    assert list(first.described()) == ["card A, another", "card A, layer", "card B, layer"]


@pytest.mark.parametrize("other, expected", [(0.100, "OWN"), (0.096, "OWN"), (0.094, "OTHER")])
def test_the_first_stays_unless_another_is_clearly_faster(timed, clock, other, expected):
    ways = [clock.candidate("own", 0.1), clock.candidate("other", other)]
    assert timed().chosen(CPU, "layer", ways)[0] == expected


def test_times_are_for_equal_work(timed, clock):
    ways = [clock.candidate("many", 0.8, work=16), clock.candidate("few", 0.1, work=4)]
    value, choice = timed().chosen(CPU, "chunk", ways)
    assert value == "FEW" and choice.milliseconds == pytest.approx({"many": 50, "few": 25})


def test_what_fails_is_left_out_and_told_of(timed, clock):
    ways = [
        clock.candidate("own", 0.1, RuntimeError("too many registers\nand more")),
        clock.candidate("other", 0.2),
    ]
    value, choice = timed().chosen(CPU, "layer", ways)
    assert value == "OTHER" and choice.left_out == {"own": "too many registers"}
    assert str(choice) == "other (other 200 ms; own left out: too many registers)"
    every = [clock.candidate(name, 0.1, RuntimeError()) for name in ("a", "b")]
    assert timed().chosen(CPU, "none", every)[0] == "A"


def test_out_of_memory_is_not_hidden(timed, clock):
    ways = [clock.candidate("a", 0.1, torch.OutOfMemoryError("full")), clock.candidate("b", 0.1)]
    with pytest.raises(torch.OutOfMemoryError):
        timed().chosen(CPU, "layer", ways)


def test_time_is_bounded_for_one_and_altogether(timed, clock):
    ways = [clock.candidate("a", 11.0), clock.candidate("b", 1.0)]
    bounded = timed(altogether=15.0)
    assert bounded.chosen(CPU, "one", ways)[0] == "A" and clock.ran == ["a"]
    assert bounded.chosen(CPU, "two", ways)[0] == "A" and clock.ran == ["a", "a"]
    assert bounded.spent == 22
    value, choice = bounded.chosen(CPU, "three", ways)
    assert value == "A" and choice == Choice("a") and clock.ran == ["a", "a"]
    assert "three" not in bounded.path.read_text()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "7", '{"card A": 3}', '{"card A": {"layer": 3}}',
     '{"card A": {"layer": {"tile": 3}}}', '{"card A": {"layer": {"name": ["fast"]}}}',
     '{"card A": {"layer": {"name": "fast", "milliseconds": 3}}}'],
)  # fmt: skip
def test_a_damaged_file_is_as_good_as_none(timed, clock, text):
    ways = [clock.candidate("slow", 0.3), clock.candidate("fast", 0.1)]
    timings = timed()
    timings.path.parent.mkdir()
    timings.path.write_text(text)
    assert timings.described() == {}
    assert timings.chosen(CPU, "layer", ways)[0] == "FAST" and clock.ran == ["slow", "fast"]
    assert timed().described() == {"card A, layer": "fast (fast 100 ms; slow 300 ms)"}


def test_one_damaged_entry_costs_only_itself(timed, clock):
    ways = [clock.candidate("slow", 0.3), clock.candidate("fast", 0.1)]
    timings = timed()
    for key in ("layer", "other"):
        timings.chosen(CPU, key, ways)
    content = json.loads(timings.path.read_text())
    content["card A"]["other"] = None
    timings.path.write_text(json.dumps(content))
    assert list(timed().described()) == ["card A, layer"]


def test_what_was_fastest_may_be_gone(timed, clock):
    ways = [clock.candidate(name, s) for name, s in (("a", 0.3), ("b", 0.1), ("c", 0.2))]
    timed().chosen(CPU, "layer", ways)
    clock.ran.clear()
    assert timed().chosen(CPU, "layer", [ways[0], ways[2]])[0] == "C" and clock.ran == ["a", "c"]


def test_nothing_is_timed_where_that_is_not_wanted(timed, clock, monkeypatch):
    ways = [clock.candidate("a", 0.3), clock.candidate("b", 0.1)]
    assert timed().chosen(CPU, "layer", ways[:1])[0] == "A"
    assert timed().chosen(torch.device("meta"), "layer", ways)[0] == "A"
    monkeypatch.setenv("FAIGFAST_TUNE", "0")
    assert timed().chosen(CPU, "layer", ways)[0] == "A" and clock.ran == []
    monkeypatch.delenv("FAIGFAST_TUNE")
    monkeypatch.setenv("FAIGFAST_CACHE", "/proc/none")  # not writable
    assert timed().chosen(CPU, "layer", ways)[0] == "B"


def test_a_run_is_timed_after_one_to_warm_up():
    ran = []
    assert seconds_of(lambda: ran.append(1), CPU) >= 0 and len(ran) == 6


def test_size_classes():
    assert [rounded(n) for n in (1, 2, 3, 64, 65, 1000)] == [1, 2, 4, 64, 128, 1024]
