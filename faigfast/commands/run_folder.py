"""The folder of one attribution: its images one by one, then the results; it knows its run."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from faigfast.files import write_json
from faigfast.fingerprints import digest_of
from faigfast.provenance import difference

SCORES = "scores.safetensors"
TABLE = "filters.csv"
MANIFEST = "manifest.json"
IDENTITY = "run.json"
PART = "[0-9]" * 6 + ".safetensors"


@contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold a folder against other processes; however this one ends, it is free again."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"{path} is in use by another faigfast command") from None
    finally:
        os.close(handle)


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
        Remove finished results, and those of another run.

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
        if (path / MANIFEST).is_dir() or self.parts.is_file():
            raise ValueError(f"{path} holds a folder {MANIFEST} or a file parts; choose another")
        try:
            self.manifest = self._find()
        except ValueError:
            if not overwrite:
                raise
            self._remove()
            self.manifest = None
        if self.manifest and overwrite:
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
        scores = _hash(self.path / SCORES)
        manifest = {**manifest, "made_from": self.made_from, "scores_sha256": scores}
        write_json(self.path / MANIFEST, manifest)
        self._remove_files([name for name in before if name not in manifest["files"]])
        self._remove_parts()

    def _find(self) -> dict[str, Any] | None:
        """Read the manifest, if there is one; refuse whatever is not of this run."""
        manifest = self._same_run(self.path / MANIFEST)
        # Without an image nothing follows from it: what failed at once does not hold the folder.
        started = any(self.parts.glob(PART))
        unfinished = self._same_run(self.parts / IDENTITY) if started else None
        if started and unfinished is None:
            raise ValueError(
                f"{self.parts} holds images without their {IDENTITY}; choose another --output or "
                "add --overwrite"
            )
        scores = self.path / SCORES
        if manifest and _hash(scores) != manifest.get("scores_sha256"):
            raise ValueError(
                f"{scores} is missing or is not what was computed; add --overwrite to compute it "
                "again"
            )
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
        if change := difference(made_from, self.made_from):
            raise ValueError(
                f"{self.path} holds the results of another run: {change}; choose another --output "
                "or add --overwrite"
            )
        return content

    def _remove(self) -> None:
        names: list[str] = []
        if (self.path / MANIFEST).exists():
            try:
                manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
                names = [name for name in manifest["files"] if manifest["made_from"]]
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{self.path / MANIFEST} is not of faigfast attribute; choose another --output"
                ) from None
        # The manifest goes first: results without it are known to be incomplete.
        self._remove_files([MANIFEST, SCORES, TABLE, *names])
        self._remove_parts()

    def _remove_files(self, names: list[str]) -> None:
        for name in names:
            # Nothing but what this command writes, whatever a manifest lists.
            if name in (MANIFEST, SCORES, TABLE) or str(name).endswith("_index.txt"):
                (self.path / Path(name).name).unlink(missing_ok=True)

    def _remove_parts(self) -> None:
        if self.parts.is_dir():
            for file in [*self.parts.glob(PART), self.parts / IDENTITY]:
                file.unlink(missing_ok=True)
            if not any(self.parts.iterdir()):
                self.parts.rmdir()


def _hash(scores: Path) -> str:
    """Hash what a file of tensors holds; its header has them in any order. "" of other files."""
    try:
        return digest_of(load_file(scores))
    except (OSError, SafetensorError):
        return ""
