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


class _Ticking:
    """Draws a bar of tqdm again every `period` seconds, whether or not it was updated."""

    period = TICK
    monitor_interval = 0  # tqdm would start a thread of its own for every class, and keep it

    def __init__(self, *items: Any, **options: Any) -> None:
        self._closed = threading.Event()
        super().__init__(*items, **options)
        if not self.disable:
            threading.Thread(target=self._tick, daemon=True, name="faigfast-progress").start()

    def __getattr__(self, name: str) -> Any:  # of tqdm, for the type checker
        raise AttributeError(name)

    def close(self) -> None:
        """End the bar."""
        self._closed.set()
        super().close()  # type: ignore[misc]

    def _tick(self) -> None:
        while not self._closed.wait(self.period):
            with self.get_lock():
                if not self.disable:  # closed meanwhile
                    self.refresh(nolock=True)


class _Lines(_Ticking):
    """Whole lines without control characters, one every 10 seconds and a last one."""

    period = LINES

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw nothing after an update: the clock writes the lines."""
        return True

    def close(self) -> None:
        """Write the last line."""
        # An interrupted constructor leaves a bar without a time.
        if getattr(self, "disable", True) or not hasattr(self, "last_print_t"):
            return
        kept = self.leave or (self.leave is None and self.pos == 0)
        self._closed.set()
        self.disable = True
        self._decr_instances(self)
        if kept:
            self._write()

    def line(self) -> str:
        """Say such as "masking: 5/22, 12 s, 0.417 network/s, about 41 s left"."""
        state = self.format_dict
        done, total, seconds = state["n"], state["total"], state["elapsed"]
        of = f"{done}/{total}" if total else f"{done}"
        new = done - state["initial"]
        rate = f"{new / max(seconds, 1e-9):.3g} {state['unit']}/s"
        text = f"{of}, {duration(seconds)}, {rate}"
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
    kind = _Ticking if _is_terminal() else _Lines
    bar: Any = type(kind.__name__, (kind, tqdm), {})
    return bar(*items, file=_Patient(), **options)


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


def _is_terminal() -> bool:
    with suppress(ValueError, AttributeError):  # closed, or none
        return sys.stderr.isatty()
    return False
