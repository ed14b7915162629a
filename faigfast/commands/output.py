"""What the commands share: folders that can be written, files, notes and tables of text."""

import hashlib
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faigfast.files import atomic_write


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


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
