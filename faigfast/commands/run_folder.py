"""The folder of one attribution: its images one by one, then the results; it knows its run."""

import json
from pathlib import Path
from typing import Any

from faigfast.files import write_json

SCORES = "scores.safetensors"
TABLE = "filters.csv"
MANIFEST = "manifest.json"
IDENTITY = "run.json"


class RunFolder:
    """Keeps finished images in `parts` until the manifest says that all is done.

    Parameters
    ----------
    path : pathlib.Path
        An existing folder.
    made_from : dict
        Everything that the results follow from, in JSON's types; what is in the folder must
        follow from the same.
    overwrite : bool
        Remove another run's results.

    Attributes
    ----------
    manifest : dict or None
        That of the finished run, if it is finished.

    Raises
    ------
    ValueError
        If the folder holds results of another run, or files of these names of an unknown one.
    """

    def __init__(self, path: Path, made_from: dict[str, Any], overwrite: bool) -> None:
        self.path = path
        self.parts = path / "parts"
        self.made_from = json.loads(json.dumps(made_from))
        try:
            self.manifest = self._find()
        except ValueError:
            if not overwrite:
                raise
            self._remove()
            self.manifest = None
        if self.manifest is None:
            write_json(self.parts / IDENTITY, {"made_from": self.made_from})

    def part(self, position: int) -> Path:
        """Where the result of one image is kept."""
        return self.parts / f"{position:06d}.safetensors"

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest and remove what it makes superfluous."""
        before = (self.manifest or {}).get("files", [])
        write_json(self.path / MANIFEST, {**manifest, "made_from": self.made_from})
        self._remove_files([name for name in before if name not in manifest["files"]])
        self._remove_parts()

    def _find(self) -> dict[str, Any] | None:
        """Read the manifest, if there is one; refuse whatever is not of this run."""
        manifest = self._same_run(self.path / MANIFEST)
        # Without an image nothing follows from it: what failed at once does not hold the folder.
        started = any(self.parts.glob("[0-9]*.safetensors"))
        unfinished = self._same_run(self.parts / IDENTITY) if started else None
        for name in (SCORES, TABLE):
            if manifest is None and unfinished is None and (self.path / name).exists():
                raise ValueError(
                    f"{self.path} holds a {name} without its {MANIFEST}; choose another --output "
                    "or add --overwrite"
                )
        return manifest

    def _same_run(self, file: Path) -> dict[str, Any] | None:
        """Read a file that says what results were made from; refuse another run's."""
        if not file.exists():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            made_from = dict(content["made_from"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{file} is not of faigfast attribute; choose another --output or add --overwrite"
            ) from None
        if change := _difference(made_from, self.made_from):
            raise ValueError(
                f"{self.path} holds the results of another run: {change}; choose another --output "
                "or add --overwrite"
            )
        return content

    def _remove(self) -> None:
        try:
            names = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            names = []
        # The manifest goes first: results without it are known to be incomplete.
        self._remove_files([MANIFEST, SCORES, TABLE, *names])
        self._remove_parts()

    def _remove_files(self, names: list[str]) -> None:
        for name in names:
            (self.path / Path(name).name).unlink(missing_ok=True)

    def _remove_parts(self) -> None:
        if self.parts.is_dir():
            for file in [*self.parts.glob("*.safetensors"), self.parts / IDENTITY]:
                file.unlink(missing_ok=True)
            if not any(self.parts.iterdir()):
                self.parts.rmdir()


def _difference(old: Any, new: Any, place: str = "") -> str:
    """Name the first entry that differs, with both values; "" where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            inner = f"{place}.{key}" if place else key
            if found := _difference(old.get(key), new.get(key), inner):
                return found
        return ""
    return "" if old == new else f"{place} was {old!r} and is {new!r}"
