"""Signals that end a command: Ctrl-C and SIGTERM leave one line, whole files and an exit code."""

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled in the ways of Ctrl-C, with an exit code of its own."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """Give 143 for SIGTERM and 130 for Ctrl-C."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


@contextmanager
def terminable() -> Iterator[None]:
    """Raise `Terminated` for SIGTERM, in the main thread, unless the signal is handled already."""
    handled = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


@contextmanager
def no_lost_interrupt() -> Iterator[None]:
    """Interrupt again where Python ignores it: in a `__del__` or a callback of a weak reference."""
    before = sys.unraisablehook
    timers: list[threading.Timer] = []

    def again(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        number = signal.SIGTERM if issubclass(ignored.exc_type, Terminated) else signal.SIGINT
        # Later: an immediate interrupt would hit this function.
        later = threading.Timer(0.01, _thread.interrupt_main, (number,))
        timers.append(later)
        later.start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        for later in timers:  # the interrupt comes here, not in the caller
            later.join()
        sys.unraisablehook = before
