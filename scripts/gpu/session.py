"""A session: items one after the other until the deadline, each a process with a limit."""

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .children import Child
from .items import Item
from .results import BEGUN, COMPLETE, CUT, NOT_RUN, Results, recorded
from .run import BROKEN

RESERVE = 3.0  # seconds before the deadline, to write the tables
LEAST = 4.0  # seconds without which no item begins: torch alone takes about as long
LOG_BYTES = 4 << 20  # the end that is kept of all output
RESTARTS = 8  # of an item whose process dies


@dataclass
class Running:
    """An item's process, and what it had recorded before."""

    item: Item
    child: Child
    skip: set[str]
    stamp: dict[str, Any]
    lines_before: int
    cut: bool  # whether the deadline, not its own limit, will end it
    began: float
    restarts: int = 0


@dataclass
class Session:
    """Runs items.

    Parameters
    ----------
    folder : Path
        Receives gpu.jsonl, gpu.log and gpu.md.
    stamp : dict
        `device`, `versions` and `commit` of every line.
    deadline : float
        On `time.monotonic`'s clock.
    environment : dict of str
        Of the items' processes.
    where : Path
        Their working folder.
    after_item : callable
        Called after every item.
    """

    folder: Path
    stamp: dict[str, Any]
    deadline: float
    environment: dict[str, str]
    where: Path
    after_item: Callable[[], object] = lambda: None

    @property
    def results(self) -> Results:
        """The results file."""
        return Results(self.folder / "gpu.jsonl")

    @property
    def log(self) -> Path:
        """File of all output."""
        return self.folder / "gpu.log"

    def left(self) -> float:
        """Seconds in which items may still run."""
        return self.deadline - RESERVE - time.monotonic()

    def run(self, items: Sequence[Item], retry: bool = False) -> bool:
        """Run items that have no result yet; give whether the deadline left any out.

        Parameters
        ----------
        items : sequence of Item
            In order.
        retry : bool
            Whether steps that failed before run again.
        """
        behind: Running | None = None
        left_out = False
        try:
            for item in items:
                if behind is not None and not item.beside:
                    self.finish(behind)
                    behind = None
                running = self.start(item, retry)
                if running is None:
                    left_out = left_out or self.left() < LEAST
                elif item.background:
                    behind = running
                else:
                    self.finish(running)
            if behind is not None:
                self.finish(behind)
                behind = None
        finally:
            if behind is not None:
                behind.child.kill()
        return left_out

    def start(self, item: Item, retry: bool) -> Running | None:
        """Start an item; None where there is nothing to run or no time for it."""
        stamp = self.stamp | {"sources": item.sources_hash()}
        lines = self.results.lines()
        skip = recorded(lines, item.name, stamp, retry)
        if item.local:
            skip = set()
        if skip is None:
            say(f"-- {item.name}: recorded for these sources")
            return None
        if self.left() < LEAST:
            say(f"-- {item.name}: no time left")
            return None
        say(f"-- {item.name}, at most {min(item.seconds, self.left()):.0f} s")
        cut = self.left() < item.seconds
        seconds = min(item.seconds, self.left())
        child = self.child(item, stamp, skip, seconds)
        return Running(item, child, skip, stamp, len(lines), cut, time.monotonic())

    def child(self, item: Item, stamp: dict[str, Any], skip: Iterable[str], limit: float) -> Child:
        """Start the process of an item."""
        given = {"results": str(self.results.path), "stamp": stamp, "skip": sorted(skip)}
        command = [*item.start_command(), json.dumps(given)]
        with self.log.open("ab") as log:
            log.write(f"== {item.name}\n".encode())
            log.flush()
            return Child(command, limit, log, cwd=self.where, env=self.environment)

    def finish(self, running: Running) -> None:
        """Wait for an item, start it again after a crash, and record how its last step ended."""
        item, stamp = running.item, running.stamp
        while True:
            code = running.child.wait()
            own = [
                line
                for line in self.results.lines()[running.lines_before :]
                if line["item"] == item.name
            ]
            states = {line["step"]: line["state"] for line in own}
            reason = self.reason(running, code)
            begun = [step for step, state in states.items() if state == BEGUN]
            for step in begun:
                self.results.append(
                    item=item.name, step=step, state=self.state(running, code), reason=reason,
                    figures={}, **stamp,
                )  # fmt: skip
            if states.get("") in (COMPLETE, NOT_RUN):
                break
            again = code is not None and (begun or code == BROKEN)
            left = running.child.until - time.monotonic()
            running.restarts += 1
            if not again or left < LEAST or running.restarts > RESTARTS:
                if not begun:  # it ended outside of its steps
                    self.results.append(
                        item=item.name, step="", state=self.state(running, code), reason=reason,
                        figures={}, **stamp,
                    )  # fmt: skip
                break
            ended = {step for step, state in states.items() if step}
            running.child = self.child(item, stamp, running.skip | ended, left)
        self.tell(running)
        self.shorten_log()
        self.after_item()

    def state(self, running: Running, code: int | None) -> str:
        """How a step ended that recorded no end."""
        if code is not None:
            return "crashed"
        return CUT if running.cut else "hung"

    def reason(self, running: Running, code: int | None) -> str:
        """Say why an item's process ended."""
        if code is None and running.cut:
            return "the deadline was reached"
        if code is None:
            return f"killed after its {running.item.seconds:g} s"
        ended = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"{ended}: {self.last_line()}".rstrip(": ")

    def last_line(self) -> str:
        """Last line of the output."""
        with self.log.open("rb") as log:
            log.seek(max(log.seek(0, os.SEEK_END) - 4096, 0))
            lines = log.read().decode(errors="replace").strip().splitlines()
        last = lines[-1][:300] if lines else ""
        return "" if last.startswith("== ") else last

    def tell(self, running: Running) -> None:
        """Print how the steps ended."""
        states = {
            line["step"]: line
            for line in self.results.lines()[running.lines_before :]
            if line["item"] == running.item.name
        }
        for step, line in states.items():
            if line["state"] not in ("passed", COMPLETE):
                say(f"   {step or running.item.name}: {line['state']}: {line.get('reason', '')}")
        passed = sum(line["state"] == "passed" for line in states.values())
        say(f"   {passed} passed, {time.monotonic() - running.began:.0f} s")

    def shorten_log(self) -> None:
        """Keep the end of a log that has grown too long."""
        if self.log.stat().st_size <= LOG_BYTES:
            return
        with self.log.open("r+b") as log:
            log.seek(-LOG_BYTES // 2, os.SEEK_END)
            end = log.read()
            log.seek(0)
            log.write(end)
            log.truncate()


def say(text: str) -> None:
    """Print at once: the script may be killed."""
    print(text, flush=True)
