"""First runs, each in a process of its own, and warm runs."""

import json
import os
import sys
from pathlib import Path

import pytest

from faigfast.bench import benchmark, rivals, runner
from faigfast.bench.first_run import FirstRun, first_run
from faigfast.bench.fresh import in_fresh_process
from faigfast.bench.memory import own_peak


def quick(**options):
    default = dict(steps=2, repeats=3, contenders=["loop", "vmap", "faigfast"], progress=False)
    return benchmark(["tiny-8x2"], **{**default, **options})


def test_a_first_run_in_a_process_of_its_own():
    first = first_run("tiny-8x1", "loop", 1, 1)
    assert 0 < first.seconds < 60
    # Python with torch takes more than 50 MiB, and a tiny network almost nothing.
    assert 50 * 2**20 < first.peak < 4 * 2**30
    assert own_peak() > 50 * 2**20


def test_what_fails_in_a_fresh_process_is_said():
    with pytest.raises(RuntimeError, match="the process of its own failed: ValueError: workload"):
        in_fresh_process(first_run, "no such", "loop", 1, 1)


@pytest.fixture
def counted(monkeypatch):
    """Fake first runs: each takes a second and a byte more than the one before."""
    calls = []

    def counting(*words):
        calls.append(words)
        return FirstRun(float(len(calls)), len(calls))

    monkeypatch.setattr(runner, "first_run", counting)
    return calls


def test_first_runs_take_turns(counted, tmp_path):
    report = quick()
    (section,) = report.sections
    order = [name for _, name, _, _ in counted]
    assert order[:3] == ["loop", "vmap", "faigfast"]
    assert order[3:6] == ["vmap", "faigfast", "loop"]
    assert order[6:] == ["faigfast", "loop", "vmap"]
    assert {(name, steps, images) for name, _, steps, images in counted} == {("tiny-8x2", 2, 2)}
    loop, vmap, own = section.rows
    assert (loop.first, vmap.first, own.first) == (
        [1.0, 6.0, 8.0],
        [2.0, 4.0, 9.0],
        [3.0, 5.0, 7.0],
    )
    assert [row.memory for row in section.rows] == [1, 2, 3]
    assert section.first_ratios(own) == [1 / 3, 6 / 5, 8 / 7]
    assert all(len(row.seconds) == 3 for row in section.rows)
    report.save(tmp_path / "report.json")
    written = json.loads((tmp_path / "report.json").read_text())["sections"][0]["rows"][2]
    assert written["first"] == own.first and written["first_ratios"] == section.first_ratios(own)
    line = next(line for line in report.table().splitlines() if line.startswith("  faigfast "))
    assert line.split()[5:7] == ["5.000", "1.14"]


@pytest.mark.parametrize("first, memory, processes", [(False, True, 2), (True, False, 6)])
def test_only_what_is_asked_for_is_measured(first, memory, processes, counted, capsys):
    report = quick(contenders=["loop", "authors"], first=first, memory=memory, progress=True)
    assert len(counted) == processes
    for row in report.sections[0].rows:
        assert len(row.first) == 3 * first and (row.memory is not None) == memory
    assert f"{1 + 2 * 4 + processes}/{1 + 2 * 4 + processes}" in capsys.readouterr().err


def test_what_is_scaled_has_memory_and_no_first_run(counted, monkeypatch):
    monkeypatch.setattr(runner, "LARGE", 0)
    authors, loop = quick(contenders=["authors", "loop"]).sections[0].rows
    assert authors.scaled and authors.first == [] and authors.memory == 1
    assert len(loop.first) == 3 and len(counted) == 4


@pytest.mark.slow
def test_a_first_run_that_fails_is_a_note(monkeypatch):
    monkeypatch.setitem(rivals.RIVALS, "only here", rivals.loop)
    report = quick(contenders=["only here"])
    (row,) = report.sections[0].rows
    assert row.memory is None and row.first == [] and len(row.seconds) == 3
    assert "no first run" in row.note and "KeyError" in row.note
    assert f"only here: {row.note}" in report.table()


def where_compilers_keep_things():
    return [os.environ[name] for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")]


def test_compilers_find_nothing_that_they_kept(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("TRITON_CACHE_DIR", "kept")
    places = in_fresh_process(where_compilers_keep_things)
    assert "kept" not in places and not any(map(os.path.exists, places))
