"""Time and memory of a sweep's driver for each unit, with simulated workers in simulated time.

Run `python scripts/sweep_overhead.py --images 10000 --workers 1000`. The grid, the driver, the
ledger and the catalogue are the real ones; workers answer after the seconds of a unit and of the
way there and back, on a clock of their own, and write nothing.
"""

import argparse
import heapq
import os
import tempfile
import time
from pathlib import Path

import torch

import faigfast
from faigfast.data import write_image
from faigfast.io.text_table import markdown
from faigfast.sweeps.catalogue import Catalogue
from faigfast.sweeps.driver import Driver
from faigfast.sweeps.failures import Failures
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.ledger import Ledger
from faigfast.sweeps.local import DONE, Event
from faigfast.sweeps.plan import Plan
from faigfast.sweeps.status import Heartbeat
from faigfast.sweeps.units import Grid
from faigfast.sweeps.worker import Outcome
from faigfast.zoo import SRCNNStyle

DIGEST = bytes(32)


def resident() -> float:
    """Memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Simulated:
    """Workers that answer after a time on a simulated clock."""

    depth = 2

    def __init__(self, workers: int, seconds: float, units: int) -> None:
        self.workers, self.now, self.own_time = workers, 0.0, 0.0
        self._seconds, self._units = seconds, units
        self._free_at = [0.0] * workers
        self._due: list[tuple[float, int, str]] = []
        self._answered = 0
        self.memory: list[float] = []

    def started(self) -> list[int]:
        """All are ready."""
        return list(range(self.workers))

    def send(self, worker: int, task: object, pair: object) -> None:
        """Begin when the worker is free."""
        end = max(self.now, self._free_at[worker]) + self._seconds
        self._free_at[worker] = end
        heapq.heappush(self._due, (end, worker, task.unit))  # type: ignore[attr-defined]

    def events(self, timeout: float) -> list[Event]:
        """Give the answers that are due next."""
        start = time.process_time()
        events = []
        while self._due and (not events or self._due[0][0] <= self.now):
            self.now, worker, unit = heapq.heappop(self._due)
            events.append(Event(worker, DONE, unit, Outcome(1, DIGEST, self._seconds)))
            self._answered += 1
            if self._answered % max(1, self._units // 10) == 0:
                self.memory.append(resident())
        self.own_time += time.process_time() - start
        return events

    def replace(self, worker: int) -> None:
        """Nothing dies here."""

    def close(self) -> None:
        """Nothing to end."""


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--shard", type=int, default=1)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a unit, with its way")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in "ab":
            faigfast.save_model(SRCNNStyle(widths=(4, 3), scale=2), place / f"{name}.pth")
        for n in range(options.images):
            write_image(place / "photos" / f"{n}.png", torch.rand(3, 8, 8))
        plan = Plan(
            {"tiny": [str(place / "a.pth"), str(place / "b.pth")]},
            str(place / "photos"),
            ["blur=1"],
            [{"steps": n} for n in range(2, 6)],
            shard=options.shard,
        )
        cache = FileCache()
        for workers in options.workers:
            output = place / f"out-{workers}"
            output.mkdir()
            catalogue = Catalogue(output)
            grid = Grid(plan, catalogue, cache)
            catalogue.save()
            ledger = Ledger(output)
            pool = Simulated(workers, options.seconds, len(grid))
            heartbeat = Heartbeat(output, len(grid), 0)
            driver = Driver(grid, ledger, Failures(output), heartbeat, clock=lambda p=pool: p.now)
            start = time.process_time()
            driver.run(grid.units(), pool)
            own = time.process_time() - start - pool.own_time
            heartbeat.close()
            ledger.close()
            growth = max(pool.memory) - pool.memory[0]
            cells = (len(grid), f"{1000 * own / len(grid):.3f}", f"{growth:.1f}")
            rows.append((str(workers), *map(str, cells)))
    print(markdown(("workers", "units", "driver, ms a unit", "memory after a tenth, MB"), rows))


if __name__ == "__main__":
    main()
