"""Progress on stderr: bars that move at a terminal, plain lines elsewhere.

A lost terminal does not stop a run.
"""

import sys
import threading
from contextlib import suppress
from typing import Any

from tqdm import tqdm

TICK = 1.0  # seconds after which a bar shows the time again, without an update
LINES = 10.0  # seconds between the lines where stderr is no terminal


class _Patient:
    """stderr, or nothing where there is none; what cannot be written is dropped.

    An error of a write would leave tqdm's lock held, and the next bar would wait for it.
    """

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


class _Bar(tqdm):
    """A bar that is drawn again every `period` seconds, whether or not it was updated."""

    period = TICK

    def __init__(self, *items: Any, **options: Any) -> None:
        self._closed = threading.Event()
        super().__init__(*items, **options)
        if not self.disable:
            threading.Thread(target=self._tick, daemon=True, name="faigfast-progress").start()

    def close(self) -> None:
        """End the bar."""
        self._closed.set()
        super().close()

    def _tick(self) -> None:
        while not self._closed.wait(self.period):
            with self.get_lock():
                if not self.disable:  # closed meanwhile
                    self.refresh(nolock=True)


class _Lines(_Bar):
    """Whole lines without control characters, one every 10 seconds and a last one."""

    period = LINES

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> bool:
        """Draw nothing after an update: the clock writes the lines."""
        return True

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw nothing after an update: the clock writes the lines."""
        return True

    def close(self) -> None:
        """Write the last line, unless all was done at once."""
        if getattr(self, "disable", True):
            return
        kept = self.leave or (self.leave is None and self.pos == 0)
        self._closed.set()
        self.disable = True
        self._decr_instances(self)
        if kept and self.format_dict["elapsed"] >= TICK:
            self._write()

    def line(self) -> str:
        """Say such as "masking: 5 of 22 networks, 12 s, about 40 s left"."""
        state = self.format_dict
        done, total, seconds = state["n"], state["total"], state["elapsed"]
        of = f"{done:g} of {total:g}" if total else f"{done:g}"
        text = f"{of} {_plural(state['unit'])}, {duration(seconds)}"
        new = done - state["initial"]
        if total and new > 0 and done < total:
            text += f", about {duration(seconds / new * (total - done))} left"
        parts = (state["prefix"].removesuffix(": "), text)
        text = ": ".join(part for part in parts if part)
        return f"{text}, {state['postfix']}" if state["postfix"] else text

    def _tick(self) -> None:
        while not self._closed.wait(self.period):
            self._write()

    def _write(self) -> None:
        self.fp.write(f"faigfast: {self.line()}\n")
        self.fp.flush()


def progress_bar(*items: Any, **options: Any) -> tqdm:
    """Make a bar of tqdm, or plain lines where stderr is no terminal; arguments are tqdm's."""
    kind = _Bar if _is_terminal() else _Lines
    return kind(*items, file=_Patient(), **options)


def duration(seconds: float) -> str:
    """Write "40 s", "4 min" or "1.5 h".

    Examples
    --------
    >>> duration(40.4), duration(250), duration(5400)
    ('40 s', '4 min', '1.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plural(unit: str) -> str:
    """Write "networks" of "network"; "it" is tqdm's iteration."""
    names = {"it": "iterations", "point·image": "points·images"}
    return names.get(unit, f"{unit}s")


def _is_terminal() -> bool:
    with suppress(ValueError, AttributeError):  # closed, or none
        return sys.stderr.isatty()
    return False
