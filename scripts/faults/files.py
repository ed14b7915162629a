"""Damaged files and full disks: the right results, or one clear error and a way on."""

import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked
from commands import COMMANDS, OUTPUT, Command, prepare, tiny_inputs, workplace
from damages import DAMAGES, FileSizeLimit, FullDisk, Place, Undo, Unprivileged
from file_events import Kill
from folders import contents, difference
from forked import Fault, Outcome
from kills import undisturbed_run
from tally import Tally

from faigfast.data import read_image, write_image

NAME = "files"
FAULTS, SHORT_FAULTS = 165, 15
DISTURBED = ("attribute", "mask", "train")
IMAGE, FULL, LIMIT = "with another image", "on a full disk", "under a limit of file sizes"
KINDS = (*DAMAGES, IMAGE, FULL, LIMIT)
LARGEST = 20_000  # bytes of the limit
WRITES = 40
# Their damage may stay: no result depends on the command and the machine in them.
RECORDS = ("command.txt", "manifest.json", "training.json")
NEVER_SAID = ("Traceback", "KeyError", "os error", "Errno")


@dataclass(frozen=True)
class Case:
    """One fault.

    Parameters
    ----------
    command : str
        Its name.
    kind : str
        One of `KINDS`.
    moment : float, optional
        In [0, 1): of the kill before the damage; None: the command has ended.
    seed : int
        Of the generator that chooses files and bytes.
    """

    command: str
    kind: str
    moment: float | None
    seed: int

    def __str__(self) -> str:
        """Describe the fault."""
        when = "finished" if self.moment is None else f"killed at {self.moment:.3f}"
        return f"{self.command} {when}, then {self.kind} (seed {self.seed})"


@dataclass(frozen=True)
class Setting:
    """What all cases share.

    Parameters
    ----------
    inputs : pathlib.Path
        Folder of the inputs.
    donors : dict of str to list of pathlib.Path
        Output folders of other runs, by command.
    events : dict of str to int
        File events of an undisturbed run.
    expected : dict of (str, bool) to dict
        Contents of the output folder, by command and whether its image was replaced.
    """

    inputs: Path
    donors: dict[str, list[Path]]
    events: dict[str, int]
    expected: dict[tuple[str, bool], Mapping[str, Any]]


def run(generator: random.Random, short: bool) -> Tally:
    """Damage files of runs that were killed or have ended."""
    prepare()
    count = SHORT_FAULTS if short else FAULTS
    cases = [
        Case(
            DISTURBED[n % len(DISTURBED)],  # their numbers share no factor: all combinations come
            KINDS[n % len(KINDS)],
            None if generator.random() < 0.3 else generator.uniform(0.1, 1),
            generator.randrange(10**6),
        )
        for n in range(count)
    ]
    with tiny_inputs() as inputs, tiny_inputs() as elsewhere:
        setting = Setting(inputs, {}, {}, {})
        for name in DISTURBED:
            command = COMMANDS[name]
            setting.expected[name, False], setting.events[name] = undisturbed_run(
                command.argv, inputs
            )
            with workplace(inputs) as changed:
                replace_image(command, changed)
                setting.expected[name, True], _ = undisturbed_run(command.argv, changed)
            setting.donors[name] = _donors(command, setting.events[name], elsewhere / name, inputs)
        return Tally.of(NAME, forked.in_parallel(lambda case: _complaint(case, setting), cases))


def replace_image(command: Command, folder: Path) -> None:
    """Put the negative of a photograph in its place."""
    image = folder / command.image
    write_image(image, 1 - read_image(image))


def _donors(command: Command, events: int, folder: Path, inputs: Path) -> list[Path]:
    """Make output folders of a run with other options, and of one with the pair exchanged."""
    names = ["a.safetensors", "b.safetensors"]
    swap = dict(zip(names, reversed(names), strict=True))
    runs = [[*command.argv, *command.other], [swap.get(word, word) for word in command.argv]]
    for number, argv in enumerate(runs):
        with workplace(inputs) as place:
            # Killed late: parts are there, and results.
            forked.run(argv, place, Kill(place / OUTPUT, int(0.85 * events)))
            shutil.copytree(place / OUTPUT, folder / str(number))
    return [folder / str(number) for number in range(len(runs))]


def _complaint(case: Case, setting: Setting) -> str:
    """Run one case; give what is wrong, or ""."""
    command = COMMANDS[case.command]
    with workplace(setting.inputs) as folder:
        event = None
        if case.moment is not None:
            event = 1 + int(case.moment * setting.events[case.command])
        forked.run(command.argv, folder, Kill(folder / OUTPUT, event))
        what, fault, undo = _damage(case, folder, setting)
        expected = setting.expected[case.command, case.kind == IMAGE]
        trial = Trial(command, folder, expected, what)
        outcome = forked.run(command.argv, folder, fault)
        complaint = trial.judge(outcome)
        if undo:
            undo()
        if not complaint and outcome.code:
            complaint = trial.go_on(outcome, bool(undo or fault))
        return f"{case}, {what}: {complaint}" if complaint else ""


def _damage(case: Case, folder: Path, setting: Setting) -> tuple[str, Fault | None, Undo | None]:
    """Cause the damage; give its place in words, the fault of the next run and what undoes it."""
    generator = random.Random(case.seed)
    if case.kind == IMAGE:
        replace_image(COMMANDS[case.command], folder)
        return COMMANDS[case.command].image, None, None
    if case.kind == FULL:
        write = generator.randint(1, WRITES)
        return f"from write {write} on", FullDisk(write), None
    if case.kind == LIMIT:
        size = int(LARGEST ** generator.random())
        return f"of {size} bytes", FileSizeLimit(size), None
    output = folder / OUTPUT
    files = sorted(path for path in output.rglob("*") if path.is_file())
    if not files:
        return "nothing to damage", None, None
    place = Place(output, generator.choice(files), setting.donors[case.command], generator)
    undo = DAMAGES[case.kind](place)
    fault = Unprivileged() if case.kind == "read-only" else None
    return str(place.file.relative_to(folder)), fault, undo


@dataclass(frozen=True)
class Trial:
    """A damaged output folder, and how the command answers.

    Parameters
    ----------
    command : Command
        The command.
    folder : pathlib.Path
        Its working folder.
    expected : mapping
        Contents of the output folder of an undisturbed run.
    damaged : str
        The damaged file in the working folder.
    """

    command: Command
    folder: Path
    expected: Mapping[str, Any]
    damaged: str

    def judge(self, outcome: Outcome) -> str:
        """Say what is wrong with an answer that is neither right results nor one clear error."""
        if said := [text for text in NEVER_SAID if text in outcome.err]:
            return f"says {said[0]}: {outcome}"
        if outcome.code == 0:
            return self._wrong_results()
        if outcome.code != 1:
            return f"ends badly: {outcome}"
        if outcome.err.count("\n") != 1 or not outcome.err.startswith("faigfast: error: "):
            return f"not one line: {outcome}"
        if not re.search(r"--\w|[\w.-]+/|\.\w{3,}|\bout\b", outcome.err):
            return f"names no path and no option: {outcome}"
        return ""

    def go_on(self, refusal: Outcome, undone: bool) -> str:
        """Say what is wrong after an error, once its cause is gone or with --overwrite."""
        overwriting = [*self.command.argv, "--overwrite"]
        outcome = forked.run(self.command.argv if undone else overwriting, self.folder)
        if outcome.code == 1 and "--overwrite" in outcome.err:
            outcome = forked.run(overwriting, self.folder)
        problem = str(outcome) if outcome.code else self._wrong_results()
        return f"after {refusal.err!r}: {problem}" if problem else ""

    def _wrong_results(self) -> str:
        actual, expected = contents(self.folder / OUTPUT), dict(self.expected)
        name = self.damaged.removeprefix(f"{OUTPUT}/")
        if name in RECORDS:
            expected[name] = actual.get(name)
        change = difference(expected, actual)
        return f"silently wrong: {change}" if change else ""
