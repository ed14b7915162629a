"""Facts of files that cost a reading, such as hashes, kept until the file changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faigfast.io.atomic import atomic_write
from faigfast.sweeps.local_copies import state_of_file
from faigfast.version import __version__

NAME = "files.jsonl"


class FileCache:
    """Facts by kind and by the state of their files.

    Parameters
    ----------
    folder : path, optional
        Where the facts of earlier runs are, and `save` writes; None: nowhere.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = None if folder is None else folder / NAME
        self._facts: dict[str, Any] = {}
        if self._file is not None and self._file.is_file():
            for line in self._file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    key, fact = json.loads(line)
                except ValueError:  # a damaged cache costs time alone
                    continue
                self._facts[key] = fact

    def get(self, kind: str, places: list[str], read: Callable[[], Any]) -> Any:
        """Give a fact of some files, in JSON types; read it unless all are as they were.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        """
        states = [state_of_file(place) for place in places]
        key = json.dumps([kind, __version__, states])
        if key not in self._facts:
            fact = read()
            if states != [state_of_file(place) for place in places]:
                return fact  # the file changed meanwhile
            self._facts[key] = fact
        return self._facts[key]

    def save(self) -> None:
        """Write the facts, of other plans too.

        Raises
        ------
        ValueError
            If the file cannot be written.
        """
        if self._file is None:
            return
        with atomic_write(self._file) as temporary, open(temporary, "w", encoding="utf-8") as file:
            for entry in self._facts.items():
                file.write(json.dumps(entry) + "\n")
