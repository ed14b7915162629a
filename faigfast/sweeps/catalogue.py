"""Catalogue: what the numbers in the records of a sweep stand for, in one file of lines."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

NAME = "catalogue.jsonl"
KINDS = ("pair", "degradation", "setting", "shard")


class Catalogue:
    """Pairs, degradations, settings and shards of images, each with a number and an identity.

    Entries are never removed and keep their numbers, so that records of earlier plans stay true.

    Parameters
    ----------
    folder : path
        Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME
        self._entries: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        self._numbers: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
        self._identities: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._unsaved: list[str] = []
        self._length = 0  # of the whole lines in the file
        if self._file.is_file():
            self._read()

    def _read(self) -> None:
        with open(self._file, "rb") as file:
            for line in file:
                try:
                    kind, identity, content = json.loads(line)
                except ValueError:  # of a process that was killed, or damaged: the rest is lost
                    break
                if not line.endswith(b"\n"):
                    break
                self._length += len(line)
                self._keep(kind, identity, content)

    def _keep(self, kind: str, identity: str, content: dict[str, Any]) -> int:
        numbers, entries = self._numbers[kind], self._entries[kind]
        number = numbers.setdefault(identity, len(entries))
        if number < len(entries):
            entries[number] = content
            return number
        entries.append(content)
        self._identities[kind].append(identity)
        return number

    def add(self, kind: str, identity: str, content: dict[str, Any]) -> int:
        """Give the number of an entry; a new or changed one is written by `save`.

        Parameters
        ----------
        kind : str
            One of `KINDS`.
        identity : str
            Hash of all that results depend on.
        content : dict
            In JSON types.
        """
        content = json.loads(json.dumps(content))
        number = self._numbers[kind].get(identity)
        if number is None or self._entries[kind][number] != content:
            number = self._keep(kind, identity, content)
            self._unsaved.append(json.dumps([kind, identity, content]) + "\n")
        return number

    def save(self) -> None:
        """Write new entries.

        Raises
        ------
        ValueError
            If the file cannot be written.
        """
        if not self._unsaved:
            return
        content = "".join(self._unsaved).encode()
        try:
            with open(self._file, "ab") as file:
                file.truncate(self._length)  # half a line of a process that was killed
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as problem:
            raise ValueError(f"{self._file} cannot be written: {problem.strerror}") from problem
        self._length += len(content)
        self._unsaved.clear()

    def entry(self, kind: str, number: int) -> dict[str, Any]:
        """Give the content of an entry."""
        return self._entries[kind][number]

    def count(self, kind: str) -> int:
        """Count the entries of a kind."""
        return len(self._entries[kind])

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """List the entries of a kind by their numbers."""
        return self._entries[kind]

    def identity(self, kind: str, number: int) -> str:
        """Give the identity of an entry."""
        return self._identities[kind][number]

    def number(self, kind: str, identity: str) -> int | None:
        """Give the number of an identity; None for a new one."""
        return self._numbers[kind].get(identity)

    def halves(self, shard: int) -> list[tuple[str, dict[str, Any]]]:
        """Give identity and content of the two shards that a shard splits into.

        Returns
        -------
        list
            Empty for a shard of one image.
        """
        content = self.entry("shard", shard)
        middle = len(content["images"]) // 2
        if not middle:
            return []
        parts = (slice(None, middle), slice(middle, None))
        halves = [
            {**content, "images": content["images"][part], "names": content["names"][part]}
            for part in parts
        ]
        return [(identity_of_shard(half), half) for half in halves]


def identity_of(content: Any) -> str:
    """Hash of a value in JSON types."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def identity_of_shard(content: dict[str, Any]) -> str:
    """Hash of the images of a shard, and of how they are cropped; their names do not count."""
    return identity_of([content["images"], content["size"], content["lq"]])
