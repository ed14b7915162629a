"""Choices between ways of computing one thing: timed once on a device, within bounds, and kept."""

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
    """Where choices are kept: in FAIGFAST_CACHE, or the user's cache folder."""
    own = os.environ.get("FAIGFAST_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own or Path(base) / "faigfast") / name


def device_name(device: torch.device) -> str:
    """Name a GPU, since a choice holds for its kind alone."""
    found = torch.cuda.get_device_properties(device)
    return f"{found.name} sm_{found.major}{found.minor}"


def rounded(count: int) -> int:
    """Give the power of two from `count` on: sizes of one class share a choice."""
    return 1 << max(0, count - 1).bit_length()


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Median of a few runs, after one to warm up; by events where the device has any."""
    if device.type != "cuda":
        run()
        return statistics.median(_by_clock(run) for _ in range(ROUNDS))
    times = []
    with torch.cuda.device(device):  # events are of the current one's stream
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
    """One way.

    Parameters
    ----------
    name : str
        In what is shown and kept.
    value : object
        What is chosen.
    run : callable
        Does the work this way, into memory that nothing else reads.
    work : float
        How much it does; times are compared for equal work.
    """

    name: str
    value: T
    run: Callable[[], object]
    work: float = 1.0


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Parameters
    ----------
    name : str
        Of the candidate.
    milliseconds : dict of str to float
        For equal work, by name; empty where nothing was timed.
    left_out : dict of str to str
        Candidates that failed, and how.
    """

    name: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        times = sorted(self.milliseconds.items(), key=lambda item: item[1])
        shown = [f"{name} {found:.3g} ms" for name, found in times]
        shown += [f"{name} left out: {why}" for name, why in self.left_out.items()]
        return f"{self.name} ({'; '.join(shown) or 'not timed'})"


@dataclass
class Choices:
    """All choices of one kind, in memory and in a file.

    Parameters
    ----------
    file : str
        Name of the file among those of `cache_file`.
    seconds : float
        For one choice; candidates that were not reached in time are left out.
    altogether : float
        For one process; then the first candidate is taken, and nothing is kept.
    margin : float
        How many times faster than those before it a candidate must be.
    types : sequence of str
        Types of devices on which times are taken; elsewhere the first candidate is.
    timer, clock, name : callable
        Give the seconds of a run on a device, the time, and a device's name.
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
        """Where they are kept."""
        return cache_file(self.file)

    def times(self, device: torch.device) -> bool:
        """Whether times are taken on a device; FAIGFAST_TUNE=0 says no."""
        return device.type in self.types and os.environ.get("FAIGFAST_TUNE") != "0"

    def chosen(
        self, device: torch.device, key: str, candidates: Sequence[Candidate[T]]
    ) -> tuple[T, Choice]:
        """Take the fastest of some candidates, or the first where nothing can be timed.

        Parameters
        ----------
        device : torch.device
            Where they run.
        key : str
            What is computed, with all that the times depend on.
        candidates : sequence of Candidate
            The first stays where others are no faster, and is taken where none runs.

        Returns
        -------
        value : object
            Of the candidate.
        choice : Choice
            Its name, and why.

        Raises
        ------
        torch.OutOfMemoryError
            If a candidate does not fit; any other RuntimeError leaves it out.
        """
        by_name = {candidate.name: candidate.value for candidate in candidates}
        first = candidates[0].value, Choice(candidates[0].name)
        if len(candidates) == 1 or not self.times(device):
            return first
        own = self.name(device)
        if own not in self.known:
            self.known[own] = self._read().get(own, {})
        known = self.known[own]
        # What was the fastest may not be there any more.
        if key not in known or known[key].name not in by_name:
            capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
            if self.spent > self.altogether or capturing:
                return first
            known[key] = self._fastest(device, candidates)
            self._write(own, known)
        return by_name[known[key].name], known[key]

    def _fastest(self, device: torch.device, candidates: Sequence[Candidate[T]]) -> Choice:
        start = self.clock()
        best, least = candidates[0].name, float("inf")
        times: dict[str, float] = {}
        failed: dict[str, str] = {}
        for candidate in candidates:
            try:
                found = self.timer(candidate.run, device) / candidate.work
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as problem:  # too large for this device, or wrong
                failed[candidate.name] = (str(problem).strip().splitlines() or ["failed"])[0][:200]
            else:
                times[candidate.name] = 1e3 * found
                if found * self.margin < least:
                    best, least = candidate.name, found
            if self.clock() - start > self.seconds:
                break
        self.spent += self.clock() - start
        return Choice(best, times, failed)

    def _read(self) -> dict[str, dict[str, Choice]]:
        """All that was kept; what cannot be read is as good as not there."""
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, Mapping):
            return {}
        found: dict[str, dict[str, Choice]] = {}
        for device, entries in content.items():
            for key, entry in entries.items() if isinstance(entries, Mapping) else ():
                choice = _choice(entry)
                if choice is not None:
                    found.setdefault(device, {})[key] = choice
        return found

    def _write(self, device: str, choices: Mapping[str, Choice]) -> None:
        everything = self._read()
        everything[device] = {**everything.get(device, {}), **choices}
        content = {
            name: {key: asdict(choice) for key, choice in sorted(found.items())}
            for name, found in sorted(everything.items())
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, content)
        except (OSError, ValueError):  # where nothing can be written, the next start times again
            pass

    def described(self) -> dict[str, str]:
        """Write out what is kept: "device, key" → choice."""
        return {
            f"{device}, {key}": str(choice)
            for device, found in sorted(self._read().items())
            for key, choice in sorted(found.items())
        }


def _choice(entry: Any) -> Choice | None:
    try:
        choice = Choice(**entry)
        str(choice)
    except (TypeError, ValueError, AttributeError):
        return None
    return choice if isinstance(choice.name, str) else None
