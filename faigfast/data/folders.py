"""Folders of photographs: ground truth with degraded images from files or by recipe."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from faigfast.data.images import PathLike, image_size, read_hashed
from faigfast.io.regular_file import regular_file, shown

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SHOWN = 3  # names in a message before "and N more"


def image_files(folder: PathLike, what: str = "folder") -> dict[str, Path]:
    """Find the images of a folder.

    Parameters
    ----------
    folder : path-like
        Folder with PNG, JPEG, BMP or WebP files; subfolders and other files are skipped.
    what : str
        Name of the folder in error messages.

    Returns
    -------
    dict of str to pathlib.Path
        File by name without suffix, sorted.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If it is a file, has no images or two of one name, or an image's name belongs to a broken
        link, a named pipe, a socket or a device.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no {what} {shown(folder)}")
    if not folder.is_dir():
        raise ValueError(f"{what} {shown(folder)} is a file; expected a folder of images")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stem):
        if path.stem != path.stem.encode(errors="ignore").decode():
            raise ValueError(
                f"{what} {shown(folder)}: {path.name!r} is not valid UTF-8; rename the file"
            )
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            if path.stem in files:
                raise ValueError(
                    f"{what} {shown(folder)} has both {shown(files[path.stem].name)} and "
                    f"{shown(path.name)}; "
                    "expected one image of a name"
                )
            files[path.stem] = _image_file(path, what)
    if not files:
        raise ValueError(
            f"{what} {shown(folder)} has no image; expected any of {', '.join(SUFFIXES)}"
        )
    return files


def _image_file(path: Path, what: str) -> Path:
    """Refuse an image's name that belongs to a broken link or to no regular file."""
    try:
        return regular_file(path, "image", "a regular file with an image")
    except (FileNotFoundError, ValueError) as error:
        reason = str(error)
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            reason = (
                f"{shown(path.name)} is a link to {shown(path.readlink())}, where no file is; "
                "expected a regular file with an image"
            )
        raise ValueError(f"{what} {shown(path.parent)}: {reason}") from None


class _ImageFolder(Dataset):
    """Common part of both data sets: ground truth by name, cropped to a multiple of the scale."""

    def __init__(self, gt: PathLike) -> None:
        self._gt = image_files(gt, "gt folder")
        self._lq: dict[str, dict[str, Path]] = {}  # by degradation, where degraded images are files
        self.names = list(self._gt)
        self.scale = 1
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, position: int) -> dict[str, Any]:
        raise NotImplementedError

    def batches(self) -> Iterator[dict[str, Any]]:
        """Give the images one at a time, as `faigfast.attribute` takes them.

        Yields
        ------
        dict
            {"lq": {degradation: [1, 3, h, w]}, "gt": [1, 3, H, W]}.
        """
        for position in range(len(self)):
            item = self[position]
            lq = {name: x[None] for name, x in item["lq"].items()}
            yield {"lq": lq, "gt": item["gt"][None]}

    def files(self, name: str) -> dict[str, Path]:
        """Give the files of one image.

        Parameters
        ----------
        name : str
            One of `names`.

        Returns
        -------
        dict of str to pathlib.Path
            "gt", and "lq NAME" for every folder of degraded images.
        """
        lq_files = {f"lq {degradation}": files[name] for degradation, files in self._lq.items()}
        return {"gt": self._gt[name], **lq_files}

    def _set_low_sizes(self, low_sizes: Mapping[str, tuple[int, int]]) -> None:
        """Keep the low-resolution size of every image; warn of cropped images."""
        self._low_sizes = low_sizes
        cropped = [
            name
            for name, (height, width) in low_sizes.items()
            if image_size(self._gt[name]) != (height * self.scale, width * self.scale)
        ]
        if cropped:
            note = (
                f"{len(cropped)} of {len(self)} images do not divide by the scale {self.scale} and "
                f"are cropped at the bottom and right: {_first_names(cropped)}"
            )
            self.notes.append(note)
            warnings.warn(note, stacklevel=3)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of every cropped ground truth, by name."""
        return {name: (h * self.scale, w * self.scale) for name, (h, w) in self._low_sizes.items()}

    def _ground_truth(self, name: str) -> tuple[Tensor, str]:
        """Read a ground truth [3, H, W] and the hash of its file."""
        height, width = self._low_sizes[name]
        image, digest = read_hashed(self._gt[name])
        return image[:, : height * self.scale, : width * self.scale].contiguous(), digest


class PairedFolders(_ImageFolder):
    """Ground truth and degraded images from folders, matched by file name without suffix.

    Parameters
    ----------
    gt : path-like
        Folder of ground-truth images (PNG, JPEG, BMP or WebP, any size).
    lq : path-like or mapping of str to path-like
        One folder of degraded images, or degradation name to folder; one folder is named "lq".
    scale : int, optional
        Enlargement from degraded image to ground truth; by default that of most images.

    Attributes
    ----------
    names : list of str
        The file names without suffix, sorted.
    scale : int
        As given, or that of most images.
    notes : list of str
        Changes to the images, mainly cropping; each is also a warning.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    FileNotFoundError
        If a folder does not exist.
    ValueError
        If a folder has no images or two of one name, the names differ between the folders, an
        image cannot be read, or sizes do not fit the scale; all are named.

    Notes
    -----
    Item: {"lq": {degradation: [3, h, w]}, "gt": [3, H, W], "name": str, "sha256": {role: str}},
    images float32 in [0, 1], with H = scale·h and W = scale·w; `sha256` holds the hash of every
    file that was read. A ground truth that does not divide by the scale loses its last rows or
    columns; so does a degraded image whose size was rounded up from it.

    Examples
    --------
    >>> import tempfile, torch
    >>> from faigfast.data import write_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/gt/a.png", torch.zeros(3, 8, 8))
    ...     write_image(f"{folder}/lq/a.png", torch.zeros(3, 4, 4))
    ...     PairedFolders(f"{folder}/gt", f"{folder}/lq").scale
    2
    """

    def __init__(
        self, gt: PathLike, lq: PathLike | Mapping[str, PathLike], scale: int | None = None
    ) -> None:
        super().__init__(gt)
        folders = lq if isinstance(lq, Mapping) else {"lq": lq}
        if not folders:
            raise ValueError("lq is an empty mapping; expected degradation names and folders")
        self._lq = {
            name: image_files(path, f"lq folder {name!r}") for name, path in folders.items()
        }
        for name, files in self._lq.items():
            for some, others, where in ((self._gt, files, "lacks"), (files, self._gt, "adds")):
                if unmatched := [stem for stem in some if stem not in others]:
                    raise ValueError(
                        f"lq folder {name!r} ({folders[name]}) {where} {_first_names(unmatched)}; "
                        f"expected the names of the gt folder {gt}"
                    )
        large = {stem: image_size(path) for stem, path in self._gt.items()}
        small = {
            name: {stem: image_size(path) for stem, path in files.items()}
            for name, files in self._lq.items()
        }
        if scale is None:
            ratios = (
                round(large[stem][0] / size[0])
                for sizes in small.values()
                for stem, size in sizes.items()
            )
            scale = max(1, mode(ratios))
        self.scale = scale = _checked_integer("scale", scale)
        low_sizes = {}
        for stem, size in large.items():
            low_sizes[stem] = (size[0] // scale, size[1] // scale)
            for name in small:
                low_size = small[name][stem]
                fits = [
                    n in (m // scale, -(-m // scale)) for n, m in zip(low_size, size, strict=True)
                ]
                if not all(fits) or not all(low_sizes[stem]):
                    raise ValueError(
                        f"image {stem!r} is {low_size[0]}×{low_size[1]} in the lq folder {name!r} "
                        f"and {size[0]}×{size[1]} in the gt folder; expected a ratio of {scale}"
                    )
        self._set_low_sizes(low_sizes)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Read one image and its degraded versions."""
        name = self.names[position]
        height, width = self._low_sizes[name]
        gt, digest = self._ground_truth(name)
        lq, hashes = {}, {"gt": digest}
        for degradation, files in self._lq.items():
            image, hashes[f"lq {degradation}"] = read_hashed(files[name])
            lq[degradation] = image[:, :height, :width].contiguous()
        return {"lq": lq, "gt": gt, "name": name, "sha256": hashes}


class DegradedFolder(_ImageFolder):
    """Ground truth from a folder, degraded by recipe.

    Parameters
    ----------
    gt : path-like
        Folder of ground-truth images (PNG, JPEG, BMP or WebP, any size).
    degradations : mapping of str to callable
        Degradation name to `faigfast.data.degradations.Degradation`, or to any callable
        (gt [N, C, H, W], seed=int) -> [N, C, H/scale, W/scale] with an attribute `scale`.
    seed : int
        The noise of an image follows from the seed and the image's position among sorted names:
        different for every image, the same on every reading and for every degradation.

    Attributes
    ----------
    names, scale, notes
        As in `PairedFolders`.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the folder has no images or two of one name, an image cannot be read or is smaller
        than the scale, the degradations are none or differ in scale, or the seed is negative.

    Notes
    -----
    Items are as in `PairedFolders`.
    """

    def __init__(
        self, gt: PathLike, degradations: Mapping[str, Callable[..., Tensor]], seed: int = 0
    ) -> None:
        super().__init__(gt)
        self.degradations = dict(degradations)
        scales = {name: getattr(d, "scale", None) for name, d in self.degradations.items()}
        if len(set(scales.values())) != 1:
            raise ValueError(f"degradations have the scales {scales}; expected one for all")
        self.scale = _checked_integer("scale", next(iter(scales.values())))
        self.seed = _checked_integer("seed", seed, least=0)
        low_sizes = {}
        for name, path in self._gt.items():
            height, width = image_size(path)
            low_sizes[name] = (height // self.scale, width // self.scale)
            if not all(low_sizes[name]):
                raise ValueError(
                    f"image {shown(path)} is {height}×{width}; expected at least the scale "
                    f"{self.scale}"
                )
        self._set_low_sizes(low_sizes)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Read one image and degrade it."""
        name = self.names[position]
        gt, digest = self._ground_truth(name)
        index = position % len(self)  # -1 is the last image, with the last image's noise
        seed = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
        lq = {key: degrade(gt[None], seed=seed)[0] for key, degrade in self.degradations.items()}
        return {"lq": lq, "gt": gt, "name": name, "sha256": {"gt": digest}}


def _first_names(names: list[str]) -> str:
    """List the first names and count the rest."""
    rest = len(names) - SHOWN
    return ", ".join(map(shown, names[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def _checked_integer(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer from {least} up")
    return value
