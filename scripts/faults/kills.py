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
SEQUENCES, SHORT_SEQUENCES = 100, 6  # of each command
MOST_KILLS = 3


@dataclass(frozen=True)
class Sequence:
    """Kills of one command, one after the other.

    Parameters
    ----------
    command : str
        Its name.
    moments : tuple of float
        In [0, 1): positions among the file events of an undisturbed run.
    """

    command: str
    moments: tuple[float, ...]


def run(generator: random.Random, short: bool) -> Tally:
    """Kill every command in many sequences."""
    prepare()
    cases = [
        Sequence(name, tuple(generator.random() for _ in range(generator.randint(1, MOST_KILLS))))
        for name in COMMANDS
        for _ in range(SHORT_SEQUENCES if short else SEQUENCES)
    ]
    with tiny_inputs() as inputs:
        undisturbed = {name: undisturbed_run(COMMANDS[name].argv, inputs) for name in COMMANDS}
        return Tally.of(
            NAME, forked.in_parallel(lambda case: _complaint(case, inputs, undisturbed), cases)
        )


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


def _complaint(
    case: Sequence, inputs: Path, undisturbed: dict[str, tuple[dict[str, Any], int]]
) -> str:
    """Run one sequence; give what is wrong, or ""."""
    argv = COMMANDS[case.command].argv
    expected, events = undisturbed[case.command]
    killed = []
    with workplace(inputs) as folder:
        for moment in case.moments:
            event = 1 + int(moment * events)
            outcome = forked.run(argv, folder, Kill(folder / OUTPUT, event))
            if outcome.code != -signal.SIGKILL:
                break
            killed.append(event)
        else:
            outcome = forked.run(argv, folder)
        sentence = f"{case.command} killed at events {killed} of {events}"
        if outcome.code:
            return f"{sentence}: {outcome}"
        change = difference(expected, contents(folder / OUTPUT))
        return f"{sentence}: {change}" if change else ""
