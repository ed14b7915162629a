"""Ctrl-C and SIGTERM at any moment: one line, an exit code, and the same command goes on."""

import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
from commands import COMMANDS, OUTPUT, prepare, tiny_inputs, workplace
from folders import contents, difference
from forked import Fault, Outcome
from tally import Tally

NAME = "signals"
DISTURBED = ("attribute", "mask", "retrain", "train")
DEVICES = ("--devices", "cpu", "cpu")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
NEVER_SAID = ("Traceback", "BrokenPipe", "semaphore", "resource_tracker", "Exception ignored")
# In forked processes, in processes that import, and in processes with two devices.
CALLS, SHORT_CALLS = 80, 8
IMPORTS, SHORT_IMPORTS = 15, 1
TWO_DEVICES, SHORT_TWO_DEVICES = 10, 1


class Interrupt(Fault):
    """A signal at the n-th call of a function; without one calls are counted alone.

    Parameters
    ----------
    number : signal.Signals
        The signal.
    call : int, optional
        Call or return of a function of Python or C in the main thread, from 1.
    """

    def __init__(self, number: signal.Signals, call: int | None = None) -> None:
        self.number = number
        self.call = call
        self.count = 0

    def install(self, counter: mmap.mmap) -> None:
        """Count calls from now on."""
        self.counter = counter
        sys.setprofile(self._hear)

    def _hear(self, frame: Any, event: str, argument: Any) -> None:
        self.count += 1
        if self.call is None:
            self.counter[:] = self.count.to_bytes(8, "little")
        elif self.count == self.call:
            sys.setprofile(None)
            os.kill(os.getpid(), self.number)


@dataclass(frozen=True)
class Case:
    """A signal to a command.

    Parameters
    ----------
    command : str
        Its name.
    number : signal.Signals
        The signal.
    moment : float
        In [0, 1): share of an undisturbed run.
    started : bool
        In a new process, which imports first; else in a forked one.
    options : tuple of str
        Further options.
    group : bool
        The signal goes to all processes of the command, as from a terminal.
    """

    command: str
    number: signal.Signals
    moment: float
    started: bool = False
    options: tuple[str, ...] = ()
    group: bool = False

    @property
    def argv(self) -> list[str]:
        """Words after "faigfast"."""
        return [*COMMANDS[self.command].argv, *self.options]

    @property
    def kind(self) -> tuple[str, bool, tuple[str, ...]]:
        """What an undisturbed run depends on."""
        return self.command, self.started, self.options

    def __str__(self) -> str:
        """Describe the case."""
        place = "a new process" if self.started else "a forked process"
        whole = " to all processes" if self.group else ""
        words = " ".join([self.command, *self.options])
        return f"{words}, {self.number.name}{whole} at {self.moment:.4f} of {place}"


Undisturbed = tuple[Mapping[str, Any], float]  # contents; calls or seconds


def run(generator: random.Random, short: bool) -> Tally:
    """Send signals to commands in forked and in new processes."""
    prepare()
    numbers = list(CODES)

    def draw() -> tuple[signal.Signals, float]:
        return generator.choice(numbers), generator.random()

    cases = [
        Case(DISTURBED[n % len(DISTURBED)], *draw()) for n in range(SHORT_CALLS if short else CALLS)
    ]
    for options, count in (
        ((), SHORT_IMPORTS if short else IMPORTS),
        (DEVICES, SHORT_TWO_DEVICES if short else TWO_DEVICES),
    ):
        cases += [
            Case("attribute", *draw(), True, options, generator.random() < 0.5)
            for _ in range(count)
        ]
    with tiny_inputs() as inputs:
        undisturbed = {
            case.kind: _undisturbed(case, inputs) for case in {c.kind: c for c in cases}.values()
        }
        return Tally.of(
            NAME,
            forked.in_parallel(
                lambda case: _complaint(case, inputs, undisturbed[case.kind]), cases
            ),
        )


def _undisturbed(case: Case, inputs: Path) -> Undisturbed:
    with workplace(inputs) as folder:
        start = time.perf_counter()
        if case.started:
            outcome = _new_process(case, folder, None)
        else:
            outcome = forked.run(case.argv, folder, Interrupt(case.number))
        seconds = time.perf_counter() - start
        if outcome.code:
            raise RuntimeError(f"undisturbed, {' '.join(case.argv)} fails: {outcome}")
        return contents(folder / OUTPUT), seconds if case.started else outcome.count


def _complaint(case: Case, inputs: Path, undisturbed: Undisturbed) -> str:
    """Run one case; give what is wrong, or ""."""
    expected, length = undisturbed
    with workplace(inputs) as folder:
        if case.started:
            outcome = _new_process(case, folder, case.moment * length)
        else:
            call = 1 + int(case.moment * length)
            outcome = forked.run(case.argv, folder, Interrupt(case.number, call))
        if outcome.code not in (0, CODES[case.number]):  # 0: the run ended before the signal
            return f"{case}: {outcome}"
        rest = _new_process(case, folder, None) if case.options else forked.run(case.argv, folder)
        if rest.code:
            return f"{case}: the same command ends with {rest}"
        for ended in (outcome, rest):
            if said := [text for text in NEVER_SAID if text in ended.err]:
                return f"{case}: says {said[0]}: {ended}"
        change = difference(expected, contents(folder / OUTPUT))
        return f"{case}: {change}" if change else ""


def _new_process(case: Case, folder: Path, delay: float | None) -> Outcome:
    """Run a command in a process of its own, with a signal after some seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "faigfast", *case.argv],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if delay is not None:
        time.sleep(delay)
        if process.poll() is None:
            send = os.killpg if case.group else os.kill
            send(process.pid, case.number)
    out, err = process.communicate(timeout=forked.PATIENCE)
    return Outcome(process.returncode, out, err)
