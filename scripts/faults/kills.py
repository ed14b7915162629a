"""Kills at file events: the same command goes on, to the results of an undisturbed run."""

import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
from commands import COMMANDS, OUTPUT, prepare, tiny_inputs, workplace
from file_events import Kill
from folders import contents, difference
from tally import Tally

NAME = "kills"
KILLS, SHORT_KILLS = 104, 6  # of each command; a few come after the run's end
MOST_KILLS = 3  # of one sequence


@dataclass(frozen=True)
class Sequence:
    """Kills of one command, one after the other.

    Parameters
    ----------
    command : str
        Its name.
    moments : tuple of float
        In [0, 1): positions among the file events that an undisturbed run would still have.
    """

    command: str
    moments: tuple[float, ...]


def run(generator: random.Random, short: bool) -> Tally:
    """Kill every command in many sequences."""
    prepare()
    cases = []
    for name in COMMANDS:
        left = SHORT_KILLS if short else KILLS
        while left > 0:
            count = min(left, generator.randint(1, MOST_KILLS))
            cases.append(Sequence(name, tuple(generator.random() for _ in range(count))))
            left -= count
    with tiny_inputs() as inputs:
        undisturbed = {name: undisturbed_run(COMMANDS[name].argv, inputs) for name in COMMANDS}
        outcomes = forked.in_parallel(lambda case: _outcome(case, inputs, undisturbed), cases)
    bad = [sentence for _, sentence in outcomes if sentence]
    kills = sum(count for count, _ in outcomes)
    return Tally(NAME, kills, kills - len(bad), bad)


def undisturbed_run(argv: list[str], inputs: Path) -> tuple[dict[str, Any], int]:
    """Give the contents of the output folder, and the number of file events.

    Raises
    ------
    RuntimeError
        If the command fails.
    """
    with workplace(inputs) as folder:
        outcome = forked.run(argv, folder, Kill(folder / OUTPUT))
        if outcome.code:
            raise RuntimeError(f"undisturbed, {' '.join(argv)} fails: {outcome}")
        return contents(folder / OUTPUT), outcome.count


def _outcome(
    case: Sequence, inputs: Path, undisturbed: dict[str, tuple[dict[str, Any], int]]
) -> tuple[int, str]:
    """Run one sequence; give the number of kills, and what is wrong, or ""."""
    argv = COMMANDS[case.command].argv
    expected, events = undisturbed[case.command]
    killed: list[int] = []
    with workplace(inputs) as folder:
        for moment in case.moments:
            event = 1 + int(moment * max(events - sum(killed), 1))
            outcome = forked.run(argv, folder, Kill(folder / OUTPUT, event))
            if outcome.code != -signal.SIGKILL:
                break
            killed.append(event)
        else:
            outcome = forked.run(argv, folder)
        sentence = f"{case.command} killed at events {killed} of {events}"
        change = str(outcome) if outcome.code else difference(expected, contents(folder / OUTPUT))
        return len(killed), f"{sentence}: {change}" if change else ""
