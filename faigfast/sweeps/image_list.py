"""Images of a plan: files of folders and manifests, with their sizes and hashes."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mode
from typing import Any

from faigfast.data.image_files import first_names, image_files, match_names
from faigfast.data.images import image_size
from faigfast.io.nearest_name import refuse_unknown
from faigfast.io.regular_file import regular_file, shown
from faigfast.sweeps.file_cache import FileCache
from faigfast.sweeps.local_copies import images_behind, is_url, local_copy
from faigfast.sweeps.plan import Plan, listed

MANIFESTS = (".csv", ".parquet")
GT_COLUMNS = ("file", "gt")
GT = "gt"


@dataclass(frozen=True)
class ImageFile:
    """A ground truth, with its degraded images where they are files.

    Parameters
    ----------
    name : str
        Unique in the plan.
    files : dict of str to str
        Path or URL: "gt", then degradations by name.
    hashes : dict of str to str
        SHA-256 of the files.
    size : tuple of int
        Height and width of the ground truth, cropped to what the scale divides.
    """

    name: str
    files: dict[str, str]
    hashes: dict[str, str]
    size: tuple[int, int]

    @property
    def lq_names(self) -> tuple[str, ...]:
        """Degradations that are files."""
        return tuple(name for name in self.files if name != GT)

    @property
    def identity(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(json.dumps(sorted(self.hashes.items())).encode()).hexdigest()


@dataclass(frozen=True)
class ImageList:
    """All images of a plan.

    Parameters
    ----------
    images : list of ImageFile
        In the order of the plan, without copies of one content.
    refused : dict of str to str
        Why an image cannot be used, by name.
    notes : list of str
        About cropped images and copies.
    """

    images: list[ImageFile]
    refused: dict[str, str]
    notes: list[str]


def list_images(plan: Plan, scale: int, cache: FileCache) -> ImageList:
    """List the images of a plan, hash them and read their sizes.

    Parameters
    ----------
    plan : Plan
        Its `images`.
    scale : int
        Enlargement from degraded images to ground truths.
    cache : FileCache
        Hashes and sizes of earlier runs.

    Raises
    ------
    FileNotFoundError
        If a folder or a manifest does not exist.
    ValueError
        If there is no image that can be used, or degraded images are not of the scale.
    """
    usable: dict[str, ImageFile] = {}
    refused: dict[str, str] = {}
    raw_sizes: dict[str, dict[str, tuple[int, int]]] = {}
    names: set[str] = set()
    copies: list[str] = []
    for stem, files in _listed_files(plan):
        name = stem if stem not in names else files[GT]
        if name in names:
            copies.append(name)
            continue
        names.add(name)
        try:
            facts = {role: _facts(place, plan, cache) for role, place in files.items()}
        except (OSError, ValueError) as problem:
            refused[name] = str(problem)
            continue
        sizes = {role: (fact["size"][0], fact["size"][1]) for role, fact in facts.items()}
        step = scale * plan.crop_to
        height, width = (side // step * step for side in sizes[GT])
        if not (height and width):
            refused[name] = (
                f"image {shown(files[GT])} is {sizes[GT][0]}×{sizes[GT][1]}; expected at least "
                f"{step} pixels a side"
            )
            continue
        hashes = {role: fact["sha256"] for role, fact in facts.items()}
        image = ImageFile(name, files, hashes, (height, width))
        if image.identity in usable:
            copies.append(name)
            continue
        usable[image.identity] = image
        raw_sizes[name] = sizes
    _check_scales(raw_sizes, scale)
    if not usable:
        reason = next(iter(refused.values()), "there are none")
        raise ValueError(f"the plan has no image that can be used: {reason}")
    notes = []
    if copies:
        notes.append(f"images that are copies of others count once: {first_names(copies)}")
    cropped = [one.name for one in usable.values() if raw_sizes[one.name][GT] != one.size]
    if cropped:
        notes.append(
            f"images that do not divide by {scale * plan.crop_to} are cropped at the bottom and "
            f"right: {first_names(cropped)}"
        )
    return ImageList(list(usable.values()), refused, notes)


def _facts(place: str, plan: Plan, cache: FileCache) -> dict[str, Any]:
    """Give the hash and the size of one image."""

    def read() -> dict[str, Any]:
        with local_copy(place) as path:
            regular_file(path, "image")
            size = image_size(path, alpha=plan.alpha)
            return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "size": [*size]}

    return cache.get(f"image {plan.alpha}", [place], read)


def _check_scales(sizes: Mapping[str, Mapping[str, tuple[int, int]]], scale: int) -> None:
    """Refuse degraded images that are not of the scale."""
    ratios = [
        round(of_image[GT][0] / max(1, size[0]))
        for of_image in sizes.values()
        for role, size in of_image.items()
        if role != GT
    ]
    for name, of_image in sizes.items():
        for role, low in of_image.items():
            large = of_image[GT]
            fits = (n in (m // scale, -(-m // scale)) for n, m in zip(low, large, strict=True))
            if role != GT and not all(fits):
                raise ValueError(
                    f"image {name!r} is {low[0]}×{low[1]} as {role!r} and {large[0]}×{large[1]} as "
                    f"ground truth; expected a ratio of {scale}, the enlargement of the networks "
                    f"(most images have {mode(ratios)})"
                )


def _listed_files(plan: Plan) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the name and the files of every image."""
    for source in listed(plan.images):
        if isinstance(source, Mapping):
            yield from _paired(source, plan)
            continue
        if not isinstance(source, str | Path) or not str(source):
            raise TypeError(f"images hold {source!r}; expected folders, manifests or URLs")
        text = str(source)
        if text.lower().endswith(MANIFESTS):
            yield from _of_manifest(text)
        else:
            for name, path in _of_folder(text, plan, "folder").items():
                yield name, {GT: str(path)}


def _of_folder(place: str, plan: Plan, what: str) -> dict[str, str]:
    if is_url(place):
        return images_behind(place, plan.recursive)
    files = image_files(place, what, recursive=plan.recursive)
    return {name: str(path) for name, path in files.items()}


def _paired(source: Mapping[str, Any], plan: Plan) -> Iterator[tuple[str, dict[str, str]]]:
    refuse_unknown("an entry of images", source, ("gt", "lq", "lq_name"))
    if not source.get(GT):
        raise ValueError(f"an entry of images is {dict(source)!r}; expected 'gt', and perhaps 'lq'")
    gt = _of_folder(str(source[GT]), plan, "gt folder")
    folders = source.get("lq", {})
    folders = folders if isinstance(folders, Mapping) else {"lq": folders}
    matched = {}
    for name, folder in folders.items():
        texts = _of_folder(str(folder), plan, "lq folder")
        places = {Path(text): text for text in texts.values()}  # a Path would change a URL
        files = {stem: Path(text) for stem, text in texts.items()}
        where = f"lq folder {name!r} ({shown(str(folder))})"
        stems, _ = match_names(gt, files, where, source.get("lq_name"), plan.scale)
        matched[str(name)] = {stem: places[path] for stem, path in stems.items()}
    for stem, path in gt.items():
        yield stem, {GT: path, **{name: files[stem] for name, files in matched.items()}}


def _of_manifest(place: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a manifest; paths in it are relative to its folder."""
    with local_copy(place) as path:
        regular_file(path, "manifest", "a CSV or Parquet file")
        rows = _csv_rows(path) if place.lower().endswith(".csv") else _parquet_rows(path)
    if not rows:
        raise ValueError(f"manifest {shown(place)} has no row; expected one an image")
    column = next((name for name in GT_COLUMNS if name in rows[0]), None)
    if column is None:
        raise ValueError(
            f"manifest {shown(place)} has the columns {', '.join(rows[0])}; expected 'file'"
        )
    base = place.rpartition("/")[0]
    for number, row in enumerate(rows, start=1):
        files = {}
        for name, value in row.items():
            role = GT if name == column else _degradation_of(name)
            if role is None or value in (None, ""):
                continue
            files[role] = _joined(base, str(value))
        if GT not in files:
            raise ValueError(f"manifest {shown(place)}, row {number}, has no {column!r}")
        yield str(row[column]).rpartition(".")[0] or str(row[column]), files


def _degradation_of(column: str) -> str | None:
    """Give the degradation of a column "lq" or "lq NAME"; None for other columns."""
    if column == "lq":
        return "lq"
    return column[3:] if column.startswith(("lq ", "lq_")) and column[3:] else None


def _joined(base: str, value: str) -> str:
    if is_url(value) or value.startswith("/") or not base:
        return value
    return f"{base}/{value}"


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            "manifests in Parquet need pyarrow: pip install 'faigfast[sweep]'"
        ) from None
    return parquet.read_table(path).to_pylist()
