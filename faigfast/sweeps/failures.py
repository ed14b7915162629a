"""Images that could not be computed: reported in a file, and fatal only when they are many."""

import json
import time
from pathlib import Path
from typing import Any

from faigfast.io.text_table import counted
from faigfast.sweeps.image_list import ImageFile
from faigfast.sweeps.units import Unit

NAME = "failures.jsonl"
MOST = 100


class Failures:
    """Failed images of one run.

    Parameters
    ----------
    folder : path
        Of the sweep.
    most : int
        Images that may fail; one more ends the sweep.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._file, self._most = folder / NAME, most
        self.images: dict[str, str] = {}  # first reason by name

    def add(self, unit: Unit, names: dict[str, str], image: ImageFile, reason: str) -> None:
        """Report one image of one unit.

        Raises
        ------
        ValueError
            If more images failed than are allowed, or the file cannot be written.
        """
        self._write({"unit": unit.id, **names, "image": image.name, **image.files}, reason)
        self._count(image.name, reason)

    def refuse(self, name: str, reason: str) -> None:
        """Report an image that is in no unit; errors as `add`."""
        self._write({"unit": "", "image": name}, reason)
        self._count(name, reason)

    def _count(self, name: str, reason: str) -> None:
        self.images.setdefault(name, reason)
        if len(self.images) > self._most:
            raise ValueError(
                f"{counted(len(self.images), 'image')} failed, more than max_failures="
                f"{self._most}; the last one: {reason}; {self._file} lists them"
            )

    def _write(self, content: dict[str, Any], reason: str) -> None:
        line = json.dumps({**content, "reason": reason, "time": time.time()}) + "\n"
        try:
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as problem:
            raise ValueError(f"{self._file} cannot be written: {problem.strerror}") from problem

    @staticmethod
    def clear(folder: Path) -> None:
        """Remove the report of an earlier run, whose failed images are tried again."""
        (folder / NAME).unlink(missing_ok=True)


def read_failures(folder: Path) -> list[dict[str, Any]]:
    """Read the report of a sweep's last run, without half a line at the end."""
    file = folder / NAME
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
