"""RunFolder: the folder of one attribution, with finished images, results and their identity."""

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
FILTERS_CSV = "filters.csv"
MANIFEST = "manifest.json"
IDENTITY = "run.json"
PART = "[0-9]" * 6 + ".safetensors"

Hashes = dict[str, dict[str, str]]  # SHA-256 of the files of images, by name and role


@contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Lock a folder against other processes; the lock ends with the process at the latest."""
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"{path} is in use by another faigfast command") from None
    finally:
        os.close(handle)


class RunFolder:
    """Keeps finished images in `parts` until the manifest is written.

    Parameters
    ----------
    path : pathlib.Path
        An existing folder.
    made_from : dict
        Everything except the images that the results depend on, in JSON types; results in the
        folder must have the same.
    names : sequence of str
        Names of the images, by position.
    hash_images : callable
        Hashes the images of some names. The folder hashes only images whose results it holds;
        the caller adds the other images to `hashes`.
    overwrite : bool
        Remove finished results and results of another run.

    Attributes
    ----------
    manifest : dict or None
        Manifest of the run, if it is finished.
    hashes : dict of str to dict of str to str
        SHA-256 of the files of the images that were read, by name and role.

    Raises
    ------
    ValueError
        If the folder holds results of another run, or such files without their identity.
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
        """Path of the result of one image."""
        return self.parts / f"{position:06d}.safetensors"

    def keep(self, positions: Sequence[int], result: Attribution) -> None:
        """Keep every image of a result as a part; their `hashes` must be known."""
        # First, since a part without hashes is refused; hashes without a part are ignored.
        self._write_identity()
        for position, image in zip(positions, one_by_one(result), strict=True):
            image.save(self.part(position))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest; remove old files and the parts."""
        before = (self.manifest or {}).get("files", [])
        scores = _hash(self.path / SCORES)
        manifest = {**manifest, "made_from": self._made_from(), "scores_sha256": scores}
        write_json(self.path / MANIFEST, manifest)
        self._remove_files([name for name in before if name not in manifest["files"]])
        self._remove_parts()

    def _made_from(self) -> dict[str, Any]:
        """Give everything the results depend on; images that were not read have no hashes."""
        images = {name: self.hashes.get(name, {}) for name in self._names}
        return {**self._settings, "images": images}

    def _write_identity(self) -> None:
        write_json(self.parts / IDENTITY, {"made_from": self._made_from()})

    def _find(self) -> dict[str, Any] | None:
        """Read the manifest, if there is one; refuse files of another run."""
        manifest = self._same_run(self.path / MANIFEST)
        # Only with images: a run that failed at once does not block the folder.
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
        for name in (SCORES, FILTERS_CSV):
            if manifest is None and unfinished is None and (self.path / name).exists():
                raise ValueError(
                    f"{self.path} holds a {name} without its {MANIFEST}; choose another --output "
                    "or add --overwrite"
                )
        return manifest

    def _same_run(self, file: Path) -> dict[str, Any] | None:
        """Read a file with the identity of results; refuse another run's."""
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
        """Name the first image whose hash differs from the image of the result in the folder."""
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
        self._remove_files([MANIFEST, SCORES, FILTERS_CSV, *names])
        self._remove_parts()

    def _remove_files(self, names: list[str]) -> None:
        for name in names:
            # Only files of this command, whatever a manifest lists.
            if name in (MANIFEST, SCORES, FILTERS_CSV) or str(name).endswith("_index.txt"):
                (self.path / Path(name).name).unlink(missing_ok=True)

    def _remove_parts(self) -> None:
        if self.parts.is_dir():
            for file in [*self.parts.glob(PART), self.parts / IDENTITY]:
                file.unlink(missing_ok=True)
            if not any(self.parts.iterdir()):
                self.parts.rmdir()


def one_by_one(result: Attribution) -> Iterator[Attribution]:
    """Split a result into results of one image; `Attribution.merge` joins them again."""
    by_image = {name: getattr(result, name) for name in ARRAYS if name != "scored"}  # [D, N, ...]
    for n in range(result.images):
        image = slice(n, n + 1)
        yield replace(
            result,
            by_degradation={name: x[image] for name, x in result.by_degradation.items()},
            **{name: x[:, image] for name, x in by_image.items()},
        )


def _hash(scores: Path) -> str:
    """Hash the tensors of a file, in any order; "" for other files."""
    try:
        return digest_of(load_file(scores))
    except (OSError, SafetensorError):
        return ""
