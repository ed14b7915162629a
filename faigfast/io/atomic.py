"""Files that are either whole or absent."""

import json
import os
import reprlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

KEPT = "files that were finished before are kept"
TEMPORARY = ".faigfast-"  # first characters of the names of unfinished files


def checked_path(path: Any) -> Path:
    """Refuse anything but the name of a file.

    Raises
    ------
    TypeError
        If `path` is neither a str nor path-like.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path is {reprlib.repr(path)}; expected the name of a file")
    return Path(path)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved onto it once the block has ended well.

    An exception or an interrupt inside the block leaves `path` as it was and removes the
    temporary file.

    Parameters
    ----------
    path : path-like
        Where the finished file belongs; missing folders are made.

    Yields
    ------
    pathlib.Path
        A temporary name in the same folder, to be written by the caller.

    Raises
    ------
    TypeError
        If `path` is no path.
    ValueError
        If the folder cannot be made or written, or `path` is a folder or a device.
    """
    path = Path(os.path.realpath(checked_path(path)))  # a link stays a link: its target is written
    with _one_sentence(path, "expected a path in a folder that can be written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(0, "it is a folder or a device")
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with _one_sentence(path, KEPT):
            yield temporary
        # mkstemp makes private files; a result gets the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        with _one_sentence(path, KEPT):
            temporary.chmod(0o666 & ~mask)
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of killed processes below a folder that no other one writes."""
    for file in folder.rglob(f"{TEMPORARY}*"):
        with suppress(OSError):
            file.unlink()


@contextmanager
def _one_sentence(path: Path, remedy: str) -> Iterator[None]:
    """Turn an error of the operating system into one sentence about the path."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        raise ValueError(f"{path} cannot be written: {reason}; {remedy}") from problem


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8, whole or not at all.

    Raises
    ------
    ValueError
        As `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises
    ------
    ValueError
        As `atomic_write`.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
