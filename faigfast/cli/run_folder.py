"""The folder of one attribution: its images one by one, then the results; it knows its run."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from faigfast.io.atomic import write_json
from faigfast.io.differences import difference
from faigfast.models.fingerprint import digest_of
from faigfast.result import ARRAYS, Attribution

SCORES = "scores.safetensors"
TABLE = "filters.csv"
MANIFEST = "manifest.json"
IDENTITY = "run.json"
PART = "[0-9]" * 6 + ".safetensors"

Hashes = dict[str, dict[str, str]]  # SHA-256 of the files of images, by name and role


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
        Everything but the images that the results follow from, in JSON's types; what is in the
        folder must follow from the same.
    names : sequence of str
        The images, in the order of their positions.
    hash_images : callable
        Gives the hashes of the images of some names. Only images whose results the folder holds
        are hashed: who computes the others adds to `hashes`.
    overwrite : bool
        Remove finished results, and those of another run.

    Attributes
    ----------
    manifest : dict or None
        That of the finished run, if it is finished.
    hashes : dict of str to dict of str to str
        SHA-256 of the files of the images that were read, by name and role.

    Raises
    ------
    ValueError
        If the folder holds results of another run, or files of these names of an unknown one.
    """

    def __init__(
        self,
        path: Path,
        made_from: dict[str, Any],
        names: Sequence[str],
        hash_images: Callable[[Sequence[str]], Hashes],
        overwrite: bool,
    ) -> None:
        self.path = path
        self.parts = path / "parts"
        self._settings = json.loads(json.dumps(made_from))
        self._names = names
        self._hash_images = hash_images
        self.hashes: Hashes = {}
        if (path / MANIFEST).is_dir() or self.parts.is_file():
            raise ValueError(f"{path} holds a folder {MANIFEST} or a file parts; choose another")
        if overwrite and (path / MANIFEST).exists():
            self._remove()
        try:
            self.manifest = self._find()
        except ValueError:
            if not overwrite:
                raise
            self._remove()
            self.manifest = None
        if self.manifest is None:
            self._write_identity()

    def part(self, position: int) -> Path:
        """Where the result of one image is kept."""
        return self.parts / f"{position:06d}.safetensors"

    def keep(self, positions: Sequence[int], result: Attribution) -> None:
        """Keep every image of a result as a part; their `hashes` must be known."""
        # First: a part without hashes would be refused, and hashes without a part are not used.
        self._write_identity()
        for position, image in zip(positions, one_by_one(result), strict=True):
            image.save(self.part(position))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest and remove what it makes superfluous."""
        before = (self.manifest or {}).get("files", [])
        scores = _hash(self.path / SCORES)
        manifest = {**manifest, "made_from": self._made_from(), "scores_sha256": scores}
        write_json(self.path / MANIFEST, manifest)
        self._remove_files([name for name in before if name not in manifest["files"]])
        self._remove_parts()

    def _made_from(self) -> dict[str, Any]:
        """Everything that the results follow from; images that were not read have no hashes."""
        images = {name: self.hashes.get(name, {}) for name in self._names}
        return {**self._settings, "images": images}

    def _write_identity(self) -> None:
        write_json(self.parts / IDENTITY, {"made_from": self._made_from()})

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
            settings = dict(content["made_from"])
            hashes = dict(settings.pop("images"))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{file} is not of faigfast attribute; choose another --output or add --overwrite"
            ) from None
        if change := difference(settings, self._settings) or self._replaced(file, hashes):
            raise ValueError(
                f"{self.path} holds the results of another run: {change}; choose another --output "
                "or add --overwrite"
            )
        return content

    def _replaced(self, file: Path, hashes: Hashes) -> str:
        """Name the first image that is not the one a result in the folder was made from."""
        known = {
            name
            for position, name in enumerate(self._names)
            if file.name == IDENTITY and name in hashes and not self.part(position).exists()
        }
        asked = [name for name in self._names if name not in known and name not in self.hashes]
        self.hashes |= self._hash_images(asked)
        now = {name: hashes[name] if name in known else self.hashes[name] for name in self._names}
        return difference(hashes, now, "images")

    def _remove(self) -> None:
        self.hashes.clear()
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


def one_by_one(result: Attribution) -> Iterator[Attribution]:
    """Give every image of a result as a result of its own; `Attribution.merge` joins them again."""
    by_image = {name: getattr(result, name) for name in ARRAYS if name != "scored"}  # [D, N, ...]
    for n in range(result.images):
        image = slice(n, n + 1)
        yield replace(
            result,
            by_degradation={name: x[image] for name, x in result.by_degradation.items()},
            **{name: x[:, image] for name, x in by_image.items()},
        )


def _hash(scores: Path) -> str:
    """Hash what a file of tensors holds; its header has them in any order. "" of other files."""
    try:
        return digest_of(load_file(scores))
    except (OSError, SafetensorError):
        return ""
