"""Hostile: a file that is damaged, of another kind or made to do harm."""

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

MARK = "ran"  # the file that code of a pickle would make
FILE = "hostile"  # first characters of the name of every hostile file


@dataclass(frozen=True)
class Hostile:
    """One hostile file.

    Attributes
    ----------
    name : str
        In words.
    reader : str
        Key of `readers.READERS`.
    write : callable
        Writes the file into a folder.
    readable : bool
        Whether a reader may give the values of the good file.
    file : str
        Name of the file in the folder, or an absolute path.
    words : str
        Regular expression, of which an error has a match; by default the file's name.
    """

    name: str
    reader: str
    write: Callable[[Path], object]
    readable: bool = False
    file: str = FILE
    words: str = FILE

    def path(self, folder: Path) -> Path:
        """Path of the file."""
        return folder / self.file


def damaged(
    reader: str, good: Callable[[Path], Path], random: Random, cuts: int, flips: int, holes: int
) -> list[Hostile]:
    """Cut a good file short, flip bits of it and zero blocks, at random places."""

    def changed(change: Callable[[bytearray], bytes]) -> Callable[[Path], object]:
        return lambda folder: (folder / FILE).write_bytes(
            change(bytearray(good(folder).read_bytes()))
        )

    def cut(share: float) -> Callable[[bytearray], bytes]:
        return lambda content: bytes(content[: int(share * len(content))])

    def flipped(share: float, bit: int) -> Callable[[bytearray], bytes]:
        def change(content: bytearray) -> bytes:
            content[int(share * len(content))] ^= 1 << bit
            return bytes(content)

        return change

    def zeroed(share: float) -> Callable[[bytearray], bytes]:
        def change(content: bytearray) -> bytes:
            start = int(share * len(content))
            size = min(64, len(content) - start)
            content[start : start + size] = bytes(size)
            return bytes(content)

        return change

    changes = {f"cut to {share:.4f}": cut(share) for share in _shares(random, cuts)}
    changes |= {
        f"bit flipped at {share:.4f}": flipped(share, random.randrange(8))
        for share in _shares(random, flips)
    }
    changes |= {f"zeroed at {share:.4f}": zeroed(share) for share in _shares(random, holes)}
    return [
        Hostile(f"{reader}: {name}", reader, changed(change), readable=True)
        for name, change in changes.items()
    ]


def _shares(random: Random, count: int) -> list[float]:
    return [random.random() for _ in range(count)]


def misplaced(reader: str) -> list[Hostile]:
    """Give what is no regular file, or none with content."""
    named = {
        "empty": lambda path: path.touch(),
        "of one byte": lambda path: path.write_bytes(b"\x80"),
        "of text": lambda path: path.write_text("no weights\n" * 20),
        "of zeros": lambda path: path.write_bytes(bytes(5000)),
        "sparse, of 50 GB": sparse,
        "FIFO": os.mkfifo,
        "link to itself": lambda path: path.symlink_to(path),
        "link to nothing": lambda path: path.symlink_to("nothing"),
        "link to endless zeros": lambda path: path.symlink_to("/dev/zero"),
        "link to a random device": lambda path: path.symlink_to("/dev/urandom"),
        "link to a full device": lambda path: path.symlink_to("/dev/full"),
        "link to memory": lambda path: path.symlink_to("/proc/self/mem"),
        "folder": lambda path: path.mkdir(),
        "socket": listening,
        "missing": lambda path: None,
    }
    files = [
        Hostile(f"{reader}: {name}", reader, lambda folder, make=make: make(folder / FILE))
        for name, make in named.items()
    ]
    paths = {
        "device": "/dev/zero",
        "name that is too long": FILE * 40,
        "name with NUL": f"{FILE}\0",
        "name of invalid UTF-8": f"{FILE}\udcff",
        "file inside a file": f"good/{FILE}",
    }
    for name, file in paths.items():
        words = "zero" if file.startswith("/") else FILE
        files.append(
            Hostile(f"{reader}: {name}", reader, lambda folder: None, file=file, words=words)
        )
    return files


def sparse(path: Path) -> None:
    """Make a file of 50 GB of zeros that needs no disk."""
    with open(path, "wb") as file:
        file.truncate(50 * 10**9)


def listening(path: Path) -> None:
    """Make a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))


def safetensors(
    header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None
) -> bytes:
    """Give the bytes of a safetensors file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data
