"""Progress at a terminal and elsewhere."""

import io
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases.analysis import study_parts  # noqa: F401

import faigfast
from faigfast.analysis.study import Study
from faigfast.io import progress
from faigfast.io.progress import progress_bar


class Terminal(io.StringIO):
    """stderr at a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    """Lines and ticks every 10 ms, on a stderr that is no terminal."""
    monkeypatch.setattr(progress._Ticking, "period", 0.01)
    monkeypatch.setattr(progress._Lines, "period", 0.01)
    return replaced(monkeypatch, io.StringIO())


def replaced(monkeypatch, stream):
    """Put a stream in the place of stderr; pytest exchanges sys.stderr between the phases."""
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    return stream


def wait_for(stream, text):
    deadline = time.monotonic() + 20
    while text not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert text in stream.getvalue()


def test_lines_come_by_the_clock_without_cursor_codes(stderr):
    with progress_bar(total=3, desc="masking", unit="network") as bar:
        wait_for(stderr, "faigfast: masking: 0/3, 0 s, 0 network/s\n")
        bar.update()
        bar.set_postfix(loss="0.1")
        bar.refresh()
        wait_for(stderr, "masking: 1/3, 0 s, ")
        bar.update(2)
    text = stderr.getvalue()
    assert re.search(r"\nfaigfast: masking: 3/3, 0 s, [\d.e+]+ network/s, loss=0.1\n$", text)
    assert not re.search(r"[\r\x1b]", text) and "\n\n" not in text


def test_an_iterable_is_counted_and_a_bar_may_leave_nothing(stderr):
    assert list(progress_bar([1, 2], "hashing", unit="image")) == [1, 2]
    assert "hashing: 2/2, 0 s, " in stderr.getvalue()
    before = stderr.getvalue()
    assert list(progress_bar([], desc="nothing", leave=False)) == []
    assert list(progress_bar([1], desc="quiet", disable=True)) == [1]
    assert stderr.getvalue() == before


def test_a_bar_at_a_terminal_moves_without_updates(stderr, monkeypatch):
    terminal = replaced(monkeypatch, Terminal())
    with progress_bar(total=3, desc="masking"):
        first = terminal.getvalue().count("\r")
        deadline = time.monotonic() + 20
        while terminal.getvalue().count("\r") < first + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert terminal.getvalue().count("\r") >= first + 3


def test_a_closed_stderr_stops_nothing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    replaced(monkeypatch, closed)
    assert list(progress_bar(range(3))) == [0, 1, 2]
    replaced(monkeypatch, None)
    assert list(progress_bar(range(3))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (250, "4 min"), (5400, "1.5 h")]
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


def test_every_bar_of_the_package_ticks_and_knows_plain_lines():
    sources = Path(progress.__file__).parents[1].rglob("*.py")
    own = [path.name for path in sources if re.search(r"\btqdm\(", path.read_text("utf-8"))]
    assert own == []


def test_an_attribution_counts_every_chunk_of_points(monkeypatch):
    steps, counts = 6, []

    class Counting(progress.tqdm):
        def update(self, n=1):
            counts.append(n)
            return super().update(n)

    monkeypatch.setattr(
        "faigfast.attribution.attributor.progress_bar", lambda **options: Counting(**options)
    )
    nets = [torch.nn.Conv2d(1, 1, 3, padding=1) for _ in range(2)]
    batch = (torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    faigfast.attribute(*nets, batch, steps=steps, backend="torch")
    assert counts == [1] * steps


def test_a_study_shows_the_points_within_its_parts(study_parts, monkeypatch):  # noqa: F811
    shown = []

    def rank(*args, progress, **options):
        shown.append(progress)
        return study_parts[-1]

    monkeypatch.setattr("faigfast.analysis.study.rank_by", rank)
    nets, attributed, kept, _ = study_parts
    Study(*nets, attributed, kept, 2, steps=2, progress=True).attribution()
    Study(*nets, attributed, kept, 2, steps=2).attribution()
    assert shown == [True, False]


def test_bars_leave_no_thread_behind():
    before = threading.active_count()
    for disable in (True, False):
        for _ in range(3):
            with progress_bar(range(2), disable=disable) as bar:
                list(bar)
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
