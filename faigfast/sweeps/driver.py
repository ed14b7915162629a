"""Driver: hands units to workers, and keeps what they finish, whatever happens to them."""

import heapq
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from faigfast.io.text_table import counted
from faigfast.sweeps.failures import Failures
from faigfast.sweeps.ledger import DONE as FINISHED
from faigfast.sweeps.ledger import SPLIT, Ledger
from faigfast.sweeps.local import DIED, DONE, FAILED, READY, Event
from faigfast.sweeps.pair_list import Pair
from faigfast.sweeps.status import Heartbeat
from faigfast.sweeps.units import Grid, Unit
from faigfast.sweeps.worker import IMAGE, OUTPUT, PAIR, Task

RETRIES = 4
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a unit is tried again
TICK = 0.5  # seconds after which the driver looks at its clocks
FALSE_STARTS = 10  # workers in a row that may end before they are ready


class Workers(Protocol):
    """What the driver needs of an engine: workers by number, and what they do."""

    workers: int
    depth: int  # units that a worker holds, the one that it computes included

    def started(self) -> list[int]:
        """List the workers that are ready at once; the others say so by an event."""

    def send(self, worker: int, task: Task, pair: Pair) -> None:
        """Give a unit to a worker."""

    def events(self, timeout: float) -> list[Event]:
        """Wait for at most `timeout` seconds for something to happen."""

    def replace(self, worker: int) -> None:
        """Kill a worker, and start another one in its place."""

    def close(self) -> None:
        """End all workers."""


class Driver:
    """Computes units by workers until all are finished, split or failed.

    Parameters
    ----------
    grid : Grid
        The units, and what tasks are made of.
    ledger : Ledger
        Receives what is finished.
    failures : Failures
        Receives images that cannot be computed.
    heartbeat : Heartbeat
        Shows progress.
    unit_timeout : float, optional
        Seconds after which a worker counts as hung; None: never.
    retries : int
        Times that a unit is tried again after the death of its worker, or an error that may pass.
    clock : callable
        Seconds that never go back.
    """

    def __init__(
        self,
        grid: Grid,
        ledger: Ledger,
        failures: Failures,
        heartbeat: Heartbeat,
        unit_timeout: float | None = None,
        retries: int = RETRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.grid, self.ledger, self.failures = grid, ledger, failures
        self.heartbeat, self.unit_timeout, self.retries = heartbeat, unit_timeout, retries
        self._clock = clock

    def run(self, units: Iterator[Unit], workers: Workers) -> None:
        """Compute units that are not finished.

        Raises
        ------
        ValueError
            If the output cannot be written, the networks cannot be loaded, workers do not start, or
            more images fail than `failures` allows. Finished units are kept.
        """
        self._units, self._workers = units, workers
        self._again: list[tuple[float, int, Unit]] = []  # a heap by the time when a unit is due
        self._attempts: dict[bytes, int] = {}
        self._held: dict[int, list[Unit]] = {}  # units of every worker that is ready
        self._since: dict[int, float] = {}  # when a worker began its first unit
        self._starting: dict[int, float] = {}  # when the driver began to wait for a worker
        self._false_starts = 0
        self._count = 0
        for worker in workers.started():
            self._held[worker] = []
        exhausted = False
        while True:
            exhausted = self._hand_out(exhausted)
            if exhausted and not self._again and not any(self._held.values()):
                return
            for event in workers.events(self._pause()):
                self._take(event)
            self._replace_hung()
            self.heartbeat.beat()

    def _hand_out(self, exhausted: bool) -> bool:
        """Fill the workers; say whether no new unit is left."""
        free = [n for n, held in self._held.items() for _ in range(self._workers.depth - len(held))]
        free.sort(key=lambda n: len(self._held[n]))
        for worker in free:
            unit = self._due()
            if unit is None and not exhausted:
                unit = next(self._units, None)
                exhausted = unit is None
            if unit is None:
                break
            held = self._held[worker]
            if not held:
                self._since[worker] = self._clock()
            held.append(unit)
            self._workers.send(worker, self.grid.task(unit), self.grid.pairs[unit.pair])
        return exhausted

    def _due(self) -> Unit | None:
        if self._again and self._again[0][0] <= self._clock():
            return heapq.heappop(self._again)[2]
        return None

    def _pause(self) -> float:
        """Seconds until the driver has something to do without an event."""
        free = any(len(held) < self._workers.depth for held in self._held.values())
        if self._again and free:
            return min(TICK, max(0.0, self._again[0][0] - self._clock()))
        return TICK

    def _take(self, event: Event) -> None:
        if event.kind == READY:
            self._held[event.worker] = []
            self._starting.pop(event.worker, None)
            self._false_starts = 0
            return
        if event.kind == DIED:
            self._bury(event.worker, str(event.content))
            return
        held = self._held.get(event.worker, [])
        unit = next((one for one in held if one.id == event.unit), None)
        if unit is None:  # of a worker that was replaced meanwhile
            return
        held.remove(unit)
        self._since[event.worker] = self._clock()
        if event.kind == DONE:
            self.ledger.add(unit, FINISHED, event.content.size, event.content.digest)
            self._attempts.pop(unit.key, None)
            self.heartbeat.finished(unit)
        elif event.kind == FAILED:
            self._fail(unit, *event.content)

    def _bury(self, worker: int, reason: str) -> None:
        """Replace a worker that died; the unit that it computed may be the reason."""
        if worker not in self._held:
            self._false_starts += 1
            if self._false_starts > FALSE_STARTS:
                raise ValueError(
                    f"{self._false_starts} workers in a row ended before they were ready: {reason}"
                )
        held = self._held.pop(worker, [])
        self._starting.pop(worker, None)
        for unit in held[1:]:  # it had not begun with these
            self._put_back(unit, 0.0)
        if held:
            self._try_again(held[0], reason)
        self._workers.replace(worker)
        for ready in self._workers.started():
            self._held.setdefault(ready, [])
        self.heartbeat.replaced += 1

    def _replace_hung(self) -> None:
        if self.unit_timeout is None:
            return
        now = self._clock()
        for worker, held in list(self._held.items()):
            if held and now - self._since[worker] > self.unit_timeout:
                self._bury(worker, f"the unit took more than {self.unit_timeout:g} s")
        for worker in set(range(self._workers.workers)) - self._held.keys():
            if now - self._starting.setdefault(worker, now) > self.unit_timeout:
                self._bury(worker, f"it was not ready after {self.unit_timeout:g} s")

    def _fail(self, unit: Unit, kind: str, reason: str) -> None:
        """Split, repeat or give up a unit; end the sweep where no unit could be computed."""
        if kind == OUTPUT:
            raise ValueError(reason)
        if kind == PAIR:
            raise ValueError(f"pair {self.grid.pairs[unit.pair].name!r}: {reason}")
        if kind == IMAGE:
            self._isolate(unit, reason)
        else:
            self._try_again(unit, reason)

    def _try_again(self, unit: Unit, reason: str) -> None:
        attempts = self._attempts.get(unit.key, 0) + 1
        self._attempts[unit.key] = attempts
        if attempts > self.retries:
            del self._attempts[unit.key]
            self._isolate(unit, f"{reason}; tried {counted(attempts, 'time')}")
            return
        self._put_back(unit, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempts - 1)))

    def _put_back(self, unit: Unit, wait: float) -> None:
        self._count += 1
        heapq.heappush(self._again, (self._clock() + wait, self._count, unit))

    def _isolate(self, unit: Unit, reason: str) -> None:
        """Split the images of a unit; report the image of a unit of one."""
        images = self.grid.images_of(unit.shard)
        if not images:
            raise ValueError(f"pair {self.grid.pairs[unit.pair].name!r}: {reason}")
        halves = self.grid.split(unit)
        if not halves:
            image = images[0]
            self.heartbeat.failed(unit)
            self.failures.add(unit, self.grid.task(unit).names, image, reason)
            return
        self.grid.catalogue.save()  # before the record that refers to the halves
        self.ledger.add(unit, SPLIT)
        self.heartbeat.split(unit)
        for half in halves:
            for leaf in self.grid.leaves(half, self.ledger.is_split):
                if not self.ledger.is_done(leaf):
                    self._put_back(leaf, 0.0)
                else:
                    self.heartbeat.finished(leaf)
