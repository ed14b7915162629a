"""What the commands share: a folder that can be written, the command in words, hashes, notes."""

import hashlib
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def writable_folder(path: str, option: str = "--output") -> Path:
    """Make a folder, before anything long is computed for it.

    Raises
    ------
    ValueError
        If it is a file or cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {path} cannot be written: {error.strerror}; expected a folder"
        ) from error
    return folder


def writable_file(path: str) -> Path:
    """Make the folder of --output, before anything long is computed for it.

    Raises
    ------
    ValueError
        If the path is a folder, or its folder cannot be made or written.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"--output {path} is a folder; expected a file name")
    writable_folder(str(file.parent), "the folder of --output,")
    return file


def command_line(words: Sequence[str]) -> str:
    """Write the command as it can be pasted into a shell."""
    return shlex.join(["faigfast", *words])


def sha256(path: Path) -> str:
    """Hash of a file, as `sha256sum` prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def note(text: str, quiet: bool = False) -> None:
    """Say something on stderr."""
    if not quiet:
        print(f"faigfast: {text}", file=sys.stderr)
