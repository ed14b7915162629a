"""Status of a sweep: written by the driver while it works, read by anybody."""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faigfast.io.atomic import write_text
from faigfast.io.progress import duration, progress_bar
from faigfast.io.text_table import counted
from faigfast.sweeps.failures import read_failures
from faigfast.sweeps.selection import select_records
from faigfast.sweeps.units import Unit

PROGRESS = "progress.json"
BEAT = 2.0  # seconds between two writings
ALIVE = 15.0  # seconds after which a driver that wrote nothing counts as gone


class Heartbeat:
    """Counts units, draws the bar and writes the state for `faigfast sweep status`.

    Parameters
    ----------
    folder : path
        Of the sweep.
    total, done : int
        All units, and the ones that were finished before.
    progress : bool
        Draw a bar on stderr, unless all units are finished.
    """

    def __init__(self, folder: Path, total: int, done: int, progress: bool = False) -> None:
        self._file, self.workers = folder / PROGRESS, 0
        self.total, self.done, self.lost, self.replaced = total, done, 0, 0
        self._new = 0
        self._start = self._written = time.monotonic()
        self._bar = progress_bar(
            total=total,
            initial=done,
            unit="unit",
            desc="sweep",
            disable=not progress or done == total,
        )
        self._write()

    def finished(self, unit: Unit) -> None:
        """Count a finished unit."""
        self.done += 1
        self._new += 1
        self._bar.update()

    def failed(self, unit: Unit) -> None:
        """Count a unit that was given up."""
        self.lost += 1
        self._bar.update()

    def split(self, unit: Unit) -> None:
        """Count two units in place of one."""
        self.total += 1
        self._bar.total = self.total

    def beat(self) -> None:
        """Write the state, if the last writing is some time ago."""
        if time.monotonic() - self._written > BEAT:
            self._write()

    def close(self) -> None:
        """Write the last state and end the bar."""
        self._bar.close()
        self._write(ended=True)

    def _write(self, ended: bool = False) -> None:
        self._written = time.monotonic()
        seconds = self._written - self._start
        rate = self._new / seconds if seconds > 0 else 0.0
        left = self.total - self.done - self.lost
        content = {
            **identity_of_driver(),
            "written": time.time(),
            "ended": ended,
            "done": self.done,
            "new": self._new,
            "failed": self.lost,
            "total": self.total,
            "workers": self.workers,
            "replaced": self.replaced,
            "seconds": seconds,
            "rate": rate,
            "left": left / rate if rate else None,
        }
        write_text(self._file, json.dumps(content) + "\n")


def identity_of_driver() -> dict[str, Any]:
    """Name this process."""
    return {"host": socket.gethostname(), "process": os.getpid()}


@dataclass(frozen=True)
class Status:
    """State of a sweep.

    Parameters
    ----------
    done, total, failed : int
        Units; failed ones are units of one image.
    images : list of str
        Images that failed, with the reason.
    bytes : int
        Of the finished files.
    driver : dict
        What the last driver wrote: host, process, rate and the like; empty if there was none.
    running : bool
        Whether it wrote a short while ago.
    """

    done: int
    total: int
    failed: int
    images: list[str]
    bytes: int
    driver: dict[str, Any]
    running: bool

    def __str__(self) -> str:
        """Say it in a few lines."""
        lines = [f"{self.done} of {counted(self.total, 'unit')} finished, {self.bytes} bytes"]
        if self.running:
            left = self.driver.get("left")
            lines.append(
                f"process {self.driver['process']} on {self.driver['host']} works on it with "
                f"{counted(self.driver['workers'], 'worker')}: {self.driver['rate']:.3g} units/s"
                + (f", about {duration(left)} left" if left else "")
            )
        elif self.done + self.failed < self.total:
            lines.append("nobody works on it; `faigfast sweep` with the same plan goes on")
        if self.images:
            lines.append(f"{counted(len(self.images), 'image')} failed: {self.images[0]}")
        return "\n".join(lines)


def status(output: str | os.PathLike[str]) -> Status:
    """Read the state of a sweep, also while it runs; nothing is locked or written.

    Raises
    ------
    FileNotFoundError
        If there is no sweep.
    """
    folder = Path(output)
    selection = select_records(folder)
    driver = _last_beat(folder)
    running = bool(driver) and not driver["ended"] and _is_alive(driver)
    failed = read_failures(folder)
    if failed:
        finished = {key.tobytes().hex() for key in selection.records["id"]}
        failed = [entry for entry in failed if entry["unit"] not in finished]
    images = {entry["image"]: entry["reason"] for entry in failed}
    return Status(
        len(selection.records),
        selection.total,
        sum(bool(entry["unit"]) for entry in failed),
        [f"{name}: {reason}" for name, reason in images.items()],
        int(selection.records["size"].sum()),
        driver,
        running,
    )


def _is_alive(driver: dict[str, Any]) -> bool:
    """Whether a driver lives: by its process on this host, by its last beat on others."""
    if driver["host"] == socket.gethostname():
        try:
            os.kill(driver["process"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user
            pass
    return abs(time.time() - driver["written"]) < ALIVE


def _last_beat(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
