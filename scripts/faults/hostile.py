"""Hostile files: refused in one sentence, soon, in little memory, without running their code."""

import os
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from random import Random
from typing import Any

import hostile_attributions
import hostile_checkpoints
import hostile_images
import hostile_indices
from children import FORK, MIB, forget_peak, resident, watch
from hostile_file import MARK, Hostile
from readers import READERS
from tally import Tally
from verdict import fault_of_error

NAME = "hostile files"
FILES_SHORT = 15
SECONDS = 1.0  # until a file is refused, imports excluded
MEMORY = 300 * MIB  # beyond that of reading a good file
PATIENCE = 5.0  # seconds until a reader is killed
MOST = 1500 * MIB  # at which a reader is killed
BUILDING = 120.0  # seconds that one file may take to be written, or to be read again and again
ATTEMPTS = 3  # of a file that took too long, on a machine that does other work


def run(random: Random, short: bool) -> Tally:
    """Write every file, or some of them, and read each in a child of its own."""
    seed = random.randrange(2**31)
    names = [case.name for case in hostile_files(seed)]
    chosen = sorted(random.sample(range(len(names)), FILES_SHORT)) if short else range(len(names))
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        for message in watch(_write, seed, list(chosen), folder, patience=BUILDING):
            if message is not None:
                raise RuntimeError(f"a file could not be written: {message}")
        faults = list(watch(_judge_all, seed, list(chosen), folder, patience=BUILDING))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    named = zip((names[n] for n in chosen), faults, strict=True)
    return Tally.of(NAME, (f"{name}: {fault}" if fault else "" for name, fault in named))


def hostile_files(seed: int) -> list[Hostile]:
    """Draw all hostile files; equal for equal seeds."""
    random = Random(seed)
    kinds = hostile_checkpoints, hostile_attributions, hostile_indices, hostile_images
    return [case for kind in kinds for case in kind.hostile_files(random)]


def _write(sender: Any, seed: int, numbers: list[int], folder: Path) -> None:
    warnings.simplefilter("ignore")
    cases = hostile_files(seed)
    for number in numbers:
        place = folder / str(number)
        place.mkdir()
        cases[number].write(place)
        sender.send(None)


def _judge_all(sender: Any, seed: int, numbers: list[int], folder: Path) -> None:
    """Read good files once, then each hostile one in a fork, and send its fault or None."""
    warnings.simplefilter("ignore")
    for reader in READERS.values():
        with tempfile.TemporaryDirectory() as good:
            reader.read(reader.write_good(Path(good)))
    cases = hostile_files(seed)
    for number in numbers:
        sender.send(_fault_of(cases[number], folder / str(number)))


def _fault_of(case: Hostile, place: Path) -> str | None:
    """Read a file in a child, again where it took too long; None if it is fine."""
    fault = None
    for _ in range(ATTEMPTS):
        fault, slow = "sent no answer", False
        for message in watch(_read, case, place, patience=PATIENCE, memory=MOST, context=FORK):
            fault, slow = message if isinstance(message, tuple) else (message.reason, False)
        if (place / MARK).exists():
            return "ran code of the file"
        if not slow:
            break
    return fault


def _read(sender: Any, case: Hostile, place: Path) -> None:
    """Read a hostile file; send its fault, and whether it is the time that it took."""
    os.chdir(place)
    reader = READERS[case.reader]
    reader.write_good(place)
    path = case.path(place)
    forget_peak()
    before, started = resident(), time.monotonic()
    value: Any = None
    problem: BaseException | None = None
    try:
        value = reader.read(path)
    except Exception as error:
        problem = error
    seconds = time.monotonic() - started
    extra = resident(field="VmHWM") - before
    fault = _judge(case, value, problem)
    if fault is None and extra > MEMORY:
        fault = f"needed {extra / MIB:.0f} MiB"
    slow = fault is None and seconds > SECONDS
    sender.send((f"took {seconds:.1f} s" if slow else fault, slow))


def _judge(case: Hostile, value: Any, problem: BaseException | None) -> str | None:
    if problem is not None:
        return fault_of_error(problem, case.words)
    if not case.readable:
        return f"was read as {str(value)[:80]!r}"
    return None if READERS[case.reader].right(value) else "was read with other values"
