"""Damages of a file or a folder between two runs of a command, and faults of the disk in a run."""

import ctypes
import errno
import mmap
import os
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import Fault

Undo = Callable[[], object]
FOREIGN = ("{}", "[]", "null", "7", '"text"', '{"files": []}', '{"made_from": 3, "files": 4}')
CAPABILITIES = 0x20080522  # version 3 of the structures of capset(2)


@dataclass(frozen=True)
class Place:
    """Where a damage happens.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of the command.
    file : pathlib.Path
        One of its files.
    donors : list of pathlib.Path
        Output folders of other runs of the command.
    generator : random.Random
        Chooses bytes and donors.
    """

    folder: Path
    file: Path
    donors: list[Path]
    generator: random.Random


def truncate(place: Place) -> None:
    """Cut the end of a file."""
    content = place.file.read_bytes()
    place.file.write_bytes(content[: place.generator.randrange(max(1, len(content)))])


def empty(place: Place) -> None:
    """Leave no byte."""
    place.file.write_bytes(b"")


def zero(place: Place) -> None:
    """Make all bytes zero."""
    place.file.write_bytes(bytes(place.file.stat().st_size))


def flip(place: Place) -> None:
    """Flip one bit."""
    content = bytearray(place.file.read_bytes())
    if content:
        content[place.generator.randrange(len(content))] ^= 1 << place.generator.randrange(8)
    place.file.write_bytes(content)


def delete(place: Place) -> None:
    """Remove a file."""
    place.file.unlink()


def foreign(place: Place) -> None:
    """Put the same file of another run, or one of its kind, in the place of a file."""
    donor = place.generator.choice(place.donors)
    same = donor / place.file.relative_to(place.folder)
    kind = sorted(path for path in donor.rglob(f"*{place.file.suffix}") if path.is_file())
    other = sorted(path for path in donor.rglob("*") if path.is_file())
    source = same if same.is_file() else place.generator.choice(kind or other)
    shutil.copyfile(source, place.file)


def other_manifest(place: Place) -> None:
    """Put JSON of another kind into a manifest, or beside the results where there is none."""
    files = sorted(place.folder.rglob("*.json")) or [place.folder / "manifest.json"]
    place.generator.choice(files).write_text(place.generator.choice(FOREIGN))


def folder_instead(place: Place) -> Undo:
    """Put a folder in the place of a file."""
    place.file.unlink()
    place.file.mkdir()
    return place.file.rmdir


def linked_parts(place: Place) -> Undo:
    """Put a link in the place of the folder that holds the parts."""
    parts = next((path.parent for path in sorted(place.folder.rglob("*.part"))), None)
    parts, elsewhere = parts or place.folder / "parts", place.folder.parent / "elsewhere"
    if parts.exists():
        parts.rename(elsewhere)
    else:
        elsewhere.mkdir()
    parts.symlink_to(elsewhere)

    def undo() -> None:
        if parts.is_symlink():
            parts.unlink()
            elsewhere.rename(parts)

    return undo


def read_only(place: Place) -> Undo:
    """Take the permission to write in the output folder and the folders in it."""
    folders = [place.folder, *(path for path in place.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    return lambda: [folder.chmod(0o755) for folder in folders if folder.exists()]


# Damages of content, which --overwrite removes, and of the folder, which are undone.
DAMAGES: dict[str, Callable[[Place], Undo | None]] = {
    "truncated": truncate,
    "emptied": empty,
    "zeroed": zero,
    "with a flipped bit": flip,
    "deleted": delete,
    "of another run": foreign,
    "of another kind": other_manifest,
    "as a folder": folder_instead,
    "with parts as a link": linked_parts,
    "read-only": read_only,
}


class Unprivileged(Fault):
    """Permissions count, for the superuser too."""

    def install(self, counter: mmap.mmap) -> None:
        """Give up all capabilities."""
        header = (ctypes.c_uint32 * 2)(CAPABILITIES, 0)
        if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset failed")


class FullDisk(Fault):
    """No space is left from the n-th write on.

    Parameters
    ----------
    write : int
        From 1; writes of tensors and texts count, and renames.
    """

    def __init__(self, write: int) -> None:
        self.write = write
        self.count = 0

    def install(self, counter: mmap.mmap) -> None:
        """Replace the functions that write."""
        import safetensors.torch
        from safetensors import SafetensorError

        text = f"I/O error: {os.strerror(errno.ENOSPC)} (os error {errno.ENOSPC})"
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        safetensors.torch.serialize_file = self._failing(
            safetensors.torch.serialize_file, SafetensorError(text)
        )
        Path.write_text = self._failing(Path.write_text, full)  # type: ignore[method-assign]
        os.replace = self._failing(os.replace, full)

    def _failing(self, function: Callable[..., Any], error: Exception) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count >= self.write:
                raise error
            return function(*arguments, **options)

        return write


class FileSizeLimit(Fault):
    """No file may become larger.

    Parameters
    ----------
    size : int
        In bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def install(self, counter: mmap.mmap) -> None:
        """Set the limit of the operating system; Python ignores its signal."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))
