"""Choices between ways of one computation: timed once on a device in bounded time, and saved."""

import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from faigfast.io.atomic import write_json

T = TypeVar("T")
ROUNDS = 5


def cache_file(name: str) -> Path:
    """Path of a file of choices: in FAIGFAST_CACHE, or the user's cache folder."""
    own = os.environ.get("FAIGFAST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own or Path(base) / "faigfast") / name


def device_name(device: torch.device) -> str:
    """Name the kind of a GPU: a choice holds for that kind alone."""
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} sm_{properties.major}{properties.minor}"


def rounded(count: int) -> int:
    """Round up to a power of two: sizes with one result share a choice."""
    return 1 << max(0, count - 1).bit_length()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Median seconds of a few runs after a warm-up; by events on a GPU."""
    if device.type != "cuda":
        run()
        return statistics.median(_by_clock(run) for _ in range(ROUNDS))
    times = []
    with torch.cuda.device(device):  # events belong to the current device's stream
        run()
        for _ in range(ROUNDS):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def _by_clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """One way of a computation.

    Parameters
    ----------
    name : str
        Name in notes and files.
    value : object
        Result of the choice.
    run : callable
        Does the work this way, into memory that nothing else reads.
    work : float
        Amount of work of a run; times are divided by it.
    """

    name: str
    value: T
    run: Callable[[], object]
    work: float = 1.0


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and the times.

    Parameters
    ----------
    name : str
        Name of the candidate.
    milliseconds : dict of str to float
        Times for equal work, by name; empty where nothing was timed.
    left_out : dict of str to str
        Errors of candidates that failed, by name.
    """

    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        times = sorted(self.milliseconds.items(), key=lambda item: item[1])
        shown = [f"{name} {milliseconds:.3g} ms" for name, milliseconds in times]
        shown += [f"{name} left out: {why}" for name, why in self.left_out.items()]
        return f"{self.name} ({'; '.join(shown) or 'not timed'})"


@dataclass
class TimedChoices:
    """All choices of one kind, measured by timing, in memory and in a file.

    Parameters
    ----------
    file : str
        Name for `cache_file`.
    seconds : float
        Time for one choice; after it, remaining candidates are left out.
    altogether : float
        Time for one process; after it, the first candidate is taken, and not saved.
    margin : float
        Factor by which a candidate must be faster than earlier ones.
    types : sequence of str
        Types of devices on which to time; elsewhere the first candidate is taken.
    timer, clock, name : callable
        Give the seconds of a run on a device, the current time, and a device's name.
    """

    file: str
    seconds: float
    altogether: float
    margin: float = 1.0
    types: Sequence[str] = ("cuda",)
    timer: Callable[[Callable[[], object], torch.device], float] = seconds_of
    clock: Callable[[], float] = time.perf_counter
    name: Callable[[torch.device], str] = device_name
    known: dict[str, dict[str, Choice]] = field(default_factory=dict)
    spent: float = 0.0

    @property
    def path(self) -> Path:
        """File of the choices."""
        return cache_file(self.file)

    def times(self, device: torch.device) -> bool:
        """Whether candidates are timed on a device; FAIGFAST_TUNE=0 turns it off."""
        return device.type in self.types and os.environ.get("FAIGFAST_TUNE") != "0"

    def chosen(
        self, device: torch.device, key: str, candidates: Sequence[Candidate[T]]
    ) -> tuple[T, Choice]:
        """Take the fastest candidate, or the first where nothing can be timed.

        Parameters
        ----------
        device : torch.device
            Device of the runs.
        key : str
            The computation, with everything that the times depend on.
        candidates : sequence of Candidate
            The first wins unless another is faster, and where none runs.

        Returns
        -------
        value : object
            Value of the candidate.
        choice : Choice
            Its name, and the times.

        Raises
        ------
        torch.OutOfMemoryError
            If a candidate does not fit; any other RuntimeError leaves it out.
        """
        by_name = {candidate.name: candidate.value for candidate in candidates}
        first = candidates[0].value, Choice(candidates[0].name)
        if len(candidates) == 1 or not self.times(device):
            return first
        device_key = self.name(device)
        if device_key not in self.known:
            self.known[device_key] = self._read().get(device_key, {})
        known = self.known[device_key]
        # A saved choice may name a candidate that is absent now.
        if key not in known or known[key].name not in by_name:
            capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
            if self.spent > self.altogether or capturing:
                return first
            known[key] = self._fastest(device, candidates)
            self._write(device_key, known)
        return by_name[known[key].name], known[key]

    def _fastest(self, device: torch.device, candidates: Sequence[Candidate[T]]) -> Choice:
        start = self.clock()
        best, shortest = candidates[0].name, float("inf")
        times: dict[str, float] = {}
        failed: dict[str, str] = {}
        for candidate in candidates:
            try:
                seconds = self.timer(candidate.run, device) / candidate.work
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as problem:  # too large for this device, or wrong
                failed[candidate.name] = (str(problem).strip().splitlines() or ["failed"])[0][:200]
            else:
                times[candidate.name] = 1e3 * seconds
                if seconds * self.margin < shortest:
                    best, shortest = candidate.name, seconds
            if self.clock() - start > self.seconds:
                break
        self.spent += self.clock() - start
        return Choice(best, times, failed)

    def _read(self) -> dict[str, dict[str, Choice]]:
        """Read the saved choices by device and key; skip unreadable parts."""
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, Mapping):
            return {}
        choices: dict[str, dict[str, Choice]] = {}
        for device, entries in content.items():
            for key, entry in entries.items() if isinstance(entries, Mapping) else ():
                choice = _choice(entry)
                if choice is not None:
                    choices.setdefault(device, {})[key] = choice
        return choices

    def _write(self, device: str, choices: Mapping[str, Choice]) -> None:
        everything = self._read()
        everything[device] = {**everything.get(device, {}), **choices}
        content = {
            name: {key: asdict(choice) for key, choice in sorted(entries.items())}
            for name, entries in sorted(everything.items())
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, content)
        except (OSError, ValueError):  # the next process times again
            pass

    def described(self) -> dict[str, str]:
        """Describe the saved choices: "device, key" → choice."""
        return {
            f"{device}, {key}": str(choice)
            for device, entries in sorted(self._read().items())
            for key, choice in sorted(entries.items())
        }


def _choice(entry: Any) -> Choice | None:
    try:
        choice = Choice(**entry)
        str(choice)
    except (TypeError, ValueError, AttributeError):
        return None
    return choice if isinstance(choice.name, str) else None
