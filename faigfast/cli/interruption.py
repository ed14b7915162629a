"""What an interrupted command has kept, and whether the same command goes on from it."""

from pathlib import Path
from typing import Any

from faigfast.cli.other_run import PARTS, STATE_SUFFIX
from faigfast.io.text_table import counted

AGAIN = "nothing is kept; the same command starts again"
GOES_ON = "the same command goes on from there"
WITHOUT_PARTS = ("demo", "bench", "accuracy", "doctor", "style")
STATE = "state.part"  # of a training
FINISHED = "finished.bin"  # of a sweep
FINISHED_PAIRS = "finished_pairs"  # attribute of the options of `bench --to-accuracy`


def kept_text(command: str, options: Any) -> str:
    """Say what is on the disk of a command that was interrupted.

    Parameters
    ----------
    command : str
        Its name.
    options : Namespace
        Of the command.
    """
    if pairs := getattr(options, FINISHED_PAIRS, 0):
        return f"kept: {counted(pairs, 'pair')} in {options.output}; the same command starts again"
    if command in WITHOUT_PARTS:
        return AGAIN
    if command == "sweep":
        begun = (Path(options.output) / FINISHED).is_file()
        return f"kept: finished units in {options.output}; {GOES_ON}" if begun else AGAIN
    folder = Path(options.output + STATE_SUFFIX if command == "baseline" else options.output)
    parts = len(list((folder / PARTS).glob("*.part")))
    states = sorted(path.parent for path in [*folder.glob(STATE), *folder.glob(f"*/{STATE}")])
    kept = [f"{counted(parts, 'part')} in {folder / PARTS}"] if parts else []
    if states:
        names = ", ".join(str(path) for path in states)
        kept.append(f"the last saved state of {counted(len(states), 'training')} in {names}")
    return f"kept: {' and '.join(kept)}; {GOES_ON}" if kept else AGAIN
