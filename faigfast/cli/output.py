"""Functions that the commands share: writable folders, the command line, hashes, notes."""

import hashlib
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faigfast.io.atomic import write_text


def writable_folder(path: str, option: str = "--output") -> Path:
    """Make a folder, before a long computation for it begins.

    Raises
    ------
    ValueError
        If the path is a file, or the folder cannot be made or written.
    """
    if not path:
        raise ValueError(f"{option} is empty; expected a folder")
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


@contextmanager
def without_empty_folders(options: Any) -> Iterator[None]:
    """Remove the folders that a command made for its results and left empty."""
    given = [dict(options).get(name) for name in ("output", "save")]
    paths = [Path(path) for path in given if path]
    candidates = [folder for path in paths for folder in (path, *path.parents)]  # deepest first
    made_here = [folder for folder in candidates if not folder.exists()]
    try:
        yield
    finally:
        for folder in made_here:
            with suppress(OSError):  # it was not made, or is not empty
                folder.rmdir()


def writable_file(path: str, option: str = "--output") -> Path:
    """Make the folder of a file, before a long computation for it begins.

    Raises
    ------
    ValueError
        If the path is a folder, or its folder cannot be made or written.
    """
    file = Path(path)
    if file.is_dir():
        raise ValueError(f"{option} {path} is a folder; expected a file name")
    writable_folder(str(file.parent), f"the folder of {option},")
    return file


def command_line(words: Sequence[str]) -> str:
    """Give the command in a form for a shell."""
    return shlex.join(["faigfast", *words])


def sha256(path: Path) -> str:
    """Hash of a file, as `sha256sum` prints it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checkpoint_hash(path: Path) -> str:
    """Hash of a checkpoint: of the file, and for an ncnn network of its weights' file too."""
    if path.suffix.lower() != ".param":
        return sha256(path)
    return f"{sha256(path)} {sha256(path.with_suffix('.bin'))}"


def note(text: str, quiet: bool = False) -> None:
    """Print a note on stderr."""
    if not quiet:
        print(f"faigfast: {text}", file=sys.stderr)


def markers(command: str) -> tuple[str, str]:
    """Lines of a document before and after a command's part; all other text is kept."""
    return (
        f"<!-- from here written by `faigfast {command}` -->",
        f"<!-- to here written by `faigfast {command}` -->",
    )


def surroundings(path: Path, command: str) -> tuple[str, str]:
    """Read the text before and after a command's part of a document.

    Raises
    ------
    ValueError
        If the document exists without the two lines of `markers`.
    """
    if not path.exists():
        return "", "\n"
    begin, end = markers(command)
    text = path.read_text(encoding="utf-8", errors="replace")
    before, begun, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(
            f"--output {path} exists without the lines {begin!r} and {end!r}; expected a new file, "
            "or one with the two lines between which the tables belong"
        )
    return before, after


def write_between(path: str, command: str, body: str) -> None:
    """Write a command's part of a document."""
    before, after = surroundings(Path(path), command)
    begin, end = markers(command)
    write_text(path, f"{before}{begin}\n\n{body}\n\n{end}{after}")
