"""Driver: deaths, hung workers, retries, late answers and back-pressure, with workers of a test."""

from collections import Counter, deque
from itertools import pairwise

import pytest
import torch

from faigfast.sweeps import engines
from faigfast.sweeps.driver import Driver
from faigfast.sweeps.local import DIED, DONE, FAILED, READY, Event
from faigfast.sweeps.run import sweep
from faigfast.sweeps.worker import TRANSIENT, UnitComputer, UnitFailure

ORIGINAL = Driver.__init__


class Clock:
    """Seconds that pass while the driver waits."""

    now = 0.0

    def __call__(self):
        return self.now


class Scripted:
    """Two workers in this process; a script says what happens to a unit in place of its result.

    The script is a function (worker, task) -> None or "die", "hang", "late", or a failure.
    """

    def __init__(self, folder, script, clock, depth=1):
        self._computer, self._script, self.clock = UnitComputer(folder), script, clock
        self.workers, self.depth = 2, depth
        self.events_due = deque(Event(n, READY) for n in range(2))
        self.tasks, self.sent = {0: deque(), 1: deque()}, Counter()
        self.late, self.replaced, self.most_held, self.closed = [], 0, 0, False

    def started(self):
        return []

    def send(self, worker, task, pair):
        self._computer.add_pair(task.pair, pair.source, pair.prints)
        self.tasks[worker].append(task)
        self.sent[task.unit] += 1
        self.most_held = max(self.most_held, *(len(tasks) for tasks in self.tasks.values()))

    def events(self, timeout):
        self.clock.now += timeout
        if self.events_due:
            return [self.events_due.popleft()]
        for worker, tasks in self.tasks.items():
            if tasks:
                return self._step(worker, tasks)
        return []

    def _step(self, worker, tasks):
        what = self._script(worker, tasks[0])
        if what == "hang" and self.sent[tasks[0].unit] == 1:
            return []
        task = tasks.popleft()
        if what == "die":
            tasks.clear()
            return [Event(worker, DIED, content="the worker ended with signal 9")]
        if isinstance(what, UnitFailure):
            return [Event(worker, FAILED, task.unit, (what.kind, what.text))]
        return [Event(worker, DONE, task.unit, self._computer.compute(task))]

    def replace(self, worker):
        self.replaced += 1
        # Its answers may still come.
        for task in self.tasks[worker]:
            self.late.append(Event(worker, DONE, task.unit, self._computer.compute(task)))
        self.tasks[worker].clear()
        self.events_due.append(Event(worker, READY))
        self.events_due.extend(self.late)
        self.late.clear()

    def close(self):
        self.closed = True


@pytest.fixture
def scripted(monkeypatch, plan, tmp_path):
    """Run the plan with a script, and compare with an undisturbed run."""
    wanted = sweep(plan, tmp_path / "wanted", workers=0)

    def run(script, depth=1, name="out", **options):
        clock = Clock()
        pools = []

        def start(self, folder, resources):
            pools.append(Scripted(folder, script, clock, depth))
            return pools[-1]

        monkeypatch.setattr(engines.Engine, "start", start)
        monkeypatch.setattr(
            Driver, "__init__", lambda self, *given: ORIGINAL(self, *given, clock=clock)
        )
        result = sweep(plan, tmp_path / name, **options)
        assert pools[0].closed
        return result, pools[0]

    def compare(result):
        assert result.status.done == result.status.total
        for name in result.degradations:
            for one, other in zip(
                result.scores(None, name), wanted.scores(None, name), strict=True
            ):
                assert one.names == other.names and torch.equal(one.scores, other.scores)

    run.compare = compare
    return run


def once(what):
    """Let every unit fail in one way the first time."""
    seen = set()

    def script(worker, task):
        if task.unit in seen:
            return None
        seen.add(task.unit)
        return what

    return script


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("what", ["die", UnitFailure(TRANSIENT, "the network file system")])
def test_every_unit_fails_once(scripted, what, depth):
    result, pool = scripted(once(what), depth)
    scripted.compare(result)
    assert pool.replaced == (9 if what == "die" else 0) and result.failures == []


def test_a_hung_worker_is_replaced_and_its_late_answer_changes_nothing(scripted):
    result, pool = scripted(lambda worker, task: "hang", unit_timeout=30)
    scripted.compare(result)
    assert pool.replaced >= 9 and result.failures == []


def test_a_unit_that_always_kills_its_worker_is_split_and_reported(scripted):
    def script(worker, task):
        return "die" if any(image.name == "p2" for image in task.images) else None

    result, pool = scripted(script, retries=1)
    assert {failure["image"] for failure in result.failures} == {"p2"}
    assert "the worker ended with signal 9; tried 2 times" in result.failures[0]["reason"]
    assert pool.replaced == 3 * 2 * 2  # three levels, the unit and its half, twice each
    assert result.status.done == result.status.total - 3


def test_waits_grow(scripted):
    times = []

    def script(worker, task):
        if task.level.name == "blur=1" and task.images[0].name == "p4":
            times.append(pools[0].clock.now)
            return UnitFailure(TRANSIENT, "busy")
        return None

    pools = []
    original = Scripted.__init__

    def remember(self, *given):
        pools.append(self)
        original(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scripted, "__init__", remember)
        result, _ = scripted(script, retries=3)
    waits = [after - before for before, after in pairwise(times)]
    assert len(times) == 4 and waits == sorted(waits) and waits[-1] >= 2
    assert [failure["image"] for failure in result.failures] == ["p4"]


@pytest.mark.parametrize("depth", [1, 2])
def test_workers_hold_no_more_than_their_depth(scripted, depth):
    result, pool = scripted(lambda worker, task: None, depth)
    scripted.compare(result)
    assert pool.most_held == depth


def test_settings_with_other_resources_have_workers_of_their_own(monkeypatch, plan, tmp_path):
    from faigfast.sweeps.local import InProcess

    started = []

    def start(self, folder, resources):
        started.append((resources.cpus, resources.threads))
        return InProcess(folder)

    monkeypatch.setattr(engines.Engine, "start", start)
    plan["settings"] = [{"steps": 2}, {"steps": 3, "cpus": 2}, {"steps": 4}]
    result = sweep(plan, tmp_path / "out", workers=1)
    assert started == [(1, 1), (2, 2)] and result.status.done == 27


def test_an_output_that_cannot_be_written_stops_the_sweep(scripted):
    with pytest.raises(ValueError, match="disk is full"):
        scripted(lambda worker, task: UnitFailure("output", "x: the disk is full"))


def test_workers_that_never_start(monkeypatch, plan, tmp_path):
    class Dead(Scripted):
        def events(self, timeout):
            return [Event(0, DIED, content="exit code 1")]

    monkeypatch.setattr(
        engines.Engine, "start", lambda self, folder, _: Dead(folder, None, Clock())
    )
    with pytest.raises(ValueError, match="11 workers in a row ended before they were ready: exit"):
        sweep(plan, tmp_path / "out")


def test_a_worker_that_is_never_ready_is_replaced(scripted, monkeypatch):
    begin = Scripted.__init__

    def one_ready(self, *given):
        begin(self, *given)
        self.events_due.popleft()  # worker 0 hangs while it starts

    monkeypatch.setattr(Scripted, "__init__", one_ready)
    workers = []
    result, pool = scripted(lambda worker, task: workers.append(worker), unit_timeout=2.0)
    assert pool.replaced == 1 and set(workers) == {0, 1}
    scripted.compare(result)


def test_a_start_that_never_ends_stops_the_sweep(scripted, monkeypatch):
    begin = Scripted.__init__

    def none_ready(self, *given):
        begin(self, *given)
        self.events_due.clear()

    monkeypatch.setattr(Scripted, "__init__", none_ready)
    monkeypatch.setattr(Scripted, "replace", lambda self, worker: None)
    with pytest.raises(ValueError, match="before they were ready: it was not ready after 5 s"):
        scripted(lambda worker, task: None, unit_timeout=5.0)
