"""RunFolder: the folder of one attribution, with finished images, results and their identity."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from faigfast.cli.other_run import forget, kept_options, remember
from faigfast.io.atomic import write_json
from faigfast.io.differences import difference
from faigfast.io.parts import REMEDY, Parts
from faigfast.io.tensor_file import load_tensors
from faigfast.models.fingerprint import digest_of
from faigfast.result import ARRAYS, Attribution

SCORES = "scores.safetensors"
FILTERS_CSV = "filters.csv"
FILTERS_COLUMNS = "filters.columns.json"
MANIFEST = "manifest.json"
PARTS = "parts"
HASHES = "hashes"  # metadata of a part

Hashes = dict[str, dict[str, str]]  # SHA-256 of the files of images, by name and role


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
        Hashes the images of some names, to compare them with the images of results in the folder.
    files : sequence of str
        Names of the files that the run will write; files of others are refused.
    overwrite : bool
        Remove finished results and results of another run.
    options : mapping
        Of the command; a refusal names the options that differ.

    Attributes
    ----------
    manifest : dict or None
        Manifest of the run, if it is finished.
    finished : set of int
        Positions of images whose result the folder holds.

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
        files: Sequence[str],
        overwrite: bool,
        options: Any,
    ) -> None:
        self.path = path
        self._settings = json.loads(json.dumps(made_from))
        self._names = names
        self._hash_images = hash_images
        self._files = files
        self._hashes: Hashes = {}  # of images whose result is in the folder
        parts = path / PARTS
        if (path / MANIFEST).is_dir() or parts.is_symlink() or parts.is_file():
            raise ValueError(
                f"{path} holds a folder {MANIFEST}, or {PARTS} as a file or a link; choose another"
            )
        replaced = overwrite and (path / MANIFEST).exists()
        if replaced:
            self._remove_results()
        self._options = options
        positions = {name: position for position, name in enumerate(names)}
        self.parts = Parts(parts, {**self._settings, "images": positions}, overwrite)
        if replaced:
            self.parts.discard()
        self.manifest = self._read_manifest()
        self.finished = set() if self.manifest else self._find_finished(overwrite)
        if not self.manifest:
            remember(parts, options, overwrite)

    def load(self, position: int) -> Attribution:
        """Load the result of one finished image; ValueError if it was damaged since."""
        result = self.parts.load(_part(position), Attribution.from_tensors)
        if result is None:
            raise ValueError(
                f"{self.parts.path(_part(position))} was damaged or removed; run again"
            )
        return result

    def keep(self, positions: Sequence[int], result: Attribution, hashes: Hashes) -> None:
        """Keep every image of a result as a part, with the hashes of its files."""
        for position, image in zip(positions, one_by_one(result), strict=True):
            name = self._names[position]
            tensors, metadata = image.to_tensors()
            metadata[HASHES] = self._hashes[name] = hashes[name]
            self.parts.save(_part(position), tensors, metadata)
            self.finished.add(position)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest; remove old files and the parts."""
        before = (self.manifest or {}).get("files", [])
        images = {name: self._hashes[name] for name in self._names}
        manifest = {
            **manifest,
            "options": kept_options(self._options),
            "made_from": {**self._settings, "images": images},
            "scores_sha256": _hash(self.path / SCORES),
        }
        write_json(self.path / MANIFEST, manifest)
        self._remove_files([name for name in before if name not in manifest["files"]])
        forget(self.parts.folder)
        self.parts.clear()

    def _read_manifest(self) -> dict[str, Any] | None:
        """Read the manifest, if there is one; refuse another run's."""
        file = self.path / MANIFEST
        if not file.exists():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            settings = dict(content["made_from"])
            images = dict(settings.pop("images"))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file} is not of faigfast attribute; {REMEDY}") from None
        if change := difference(settings, self._settings):
            raise ValueError(f"{self.path} holds the results of another run: {change}; {REMEDY}")
        now = self._hash_images(self._names)
        if change := difference(images, now, "images"):
            raise ValueError(f"{self.path} holds the results of another run: {change}; {REMEDY}")
        scores = self.path / SCORES
        if _hash(scores) != content.get("scores_sha256"):
            raise ValueError(
                f"{scores} is missing or is not what was computed; add --overwrite to compute it "
                "again"
            )
        others = [name for name in self._files if name not in content.get("files", [])]
        if taken := [name for name in others if (self.path / name).exists()]:
            raise ValueError(f"{self.path} holds a {taken[0]} of another program; {REMEDY}")
        self._hashes = now
        return content

    def _find_finished(self, overwrite: bool) -> set[int]:
        """Find undamaged parts; refuse, or leave out, parts of images that changed since."""
        kept: Hashes = {}
        for position, name in enumerate(self._names):
            if hashes := self.parts.load(_part(position), _hashes_of):
                kept[name] = hashes
        now = self._hash_images(list(kept)) if kept else {}
        change = difference(kept, now, "images")
        if not kept and (others := [name for name in self._files if (self.path / name).exists()]):
            change = f"{others[0]} without its {MANIFEST}"
        if change and not overwrite:
            raise ValueError(f"{self.path} holds the results of another run: {change}; {REMEDY}")
        self._hashes = {name: hashes for name, hashes in kept.items() if hashes == now[name]}
        return {position for position, name in enumerate(self._names) if name in self._hashes}

    def _remove_results(self) -> None:
        """Remove the manifest first: results without it are known to be incomplete."""
        try:
            manifest = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            names = [str(name) for name in manifest["files"] if manifest["made_from"]]
        except (ValueError, KeyError, TypeError):  # damaged, or of another program
            names = []
        self._remove_files([MANIFEST, SCORES, FILTERS_CSV, FILTERS_COLUMNS, *names])

    def _remove_files(self, names: list[str]) -> None:
        for name in names:
            # Only files of this command, whatever a manifest lists.
            if name in (MANIFEST, SCORES, FILTERS_CSV, FILTERS_COLUMNS) or name.endswith(
                "_index.txt"
            ):
                (self.path / Path(name).name).unlink(missing_ok=True)


def _part(position: int) -> str:
    return f"{position:06d}"


def _hashes_of(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> dict[str, str]:
    """Give the hashes of the image in a part, and check the part's result."""
    Attribution.from_tensors(tensors, metadata)
    if not isinstance(metadata.get(HASHES), dict):
        raise ValueError("a part is a result without the hashes of its image")
    return metadata[HASHES]


def one_by_one(result: Attribution) -> Iterator[Attribution]:
    """Split a result into results of one image; `Attribution.merge` joins them again."""
    names = ("line", *(name for name in ARRAYS if name != "scored"))
    by_image = {name: getattr(result, name) for name in names}  # [D, N, ...]
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
        return digest_of(load_tensors(scores)[0])
    except (FileNotFoundError, ValueError):
        return ""
