"""Folders of photographs: ground truth with degraded images from files or by recipe."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from faigfast.data.degradations import Degradation
from faigfast.data.image_files import (
    SUFFIXES,
    checked_pattern,
    first_names,
    image_files,
    match_names,
)
from faigfast.data.images import PathLike, check_reading, image_size, read_hashed
from faigfast.io.regular_file import shown
from faigfast.io.text_table import counted

__all__ = ["SUFFIXES", "DegradedFolder", "PairedFolders", "image_files"]


class _ImageFolder(Dataset):
    """Common part of both data sets: ground truth by name, cropped to a multiple of the scale."""

    def __init__(
        self, gt: PathLike, recursive: bool, crop_to: int, channels: int, alpha: str
    ) -> None:
        check_reading(channels, alpha)
        self.crop_to = _checked_integer("crop_to", crop_to)
        self._reading: dict[str, Any] = {"channels": channels, "alpha": alpha}
        self._gt = image_files(gt, "gt folder", recursive=recursive)
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
            {"lq": {degradation: [1, C, h, w]}, "gt": [1, C, H, W], "name": [str]}.
        """
        for position in range(len(self)):
            item = self[position]
            lq = {name: x[None] for name, x in item["lq"].items()}
            yield {"lq": lq, "gt": item["gt"][None], "name": [item["name"]]}

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

    def _size(self, path: Path) -> tuple[int, int]:
        """Height and width of a file; transparent pixels are refused here, before any is read."""
        return image_size(path, alpha=self._reading["alpha"])

    def _set_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Keep the low-resolution sizes of ground truths of these sizes; warn of cropped images."""
        step = self.scale * self.crop_to
        self._low_sizes = {
            name: (height // step * self.crop_to, width // step * self.crop_to)
            for name, (height, width) in sizes.items()
        }
        for name, (height, width) in sizes.items():
            if not all(self._low_sizes[name]):
                least = f"the scale {self.scale}"
                if self.crop_to > 1:
                    least = f"{step}, the scale {self.scale} times crop_to={self.crop_to}"
                raise ValueError(
                    f"image {shown(self._gt[name])} is {height}×{width}; expected at least {least}"
                )
        cropped = [name for name, size in sizes.items() if size != self.sizes[name]]
        if cropped:
            problem = f"do not divide by the scale {self.scale}"
            if self.crop_to > 1:
                problem += f" times crop_to={self.crop_to}"
            note = (
                f"cropped {len(cropped)} of {counted(len(self), 'image')} at the bottom and right, "
                f"since sides {problem}: {first_names(cropped)}"
            )
            self.notes.append(note)
            warnings.warn(note, stacklevel=3)

    @property
    def low_sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of every cropped degraded image, by name."""
        return dict(self._low_sizes)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Height and width of every cropped ground truth, by name."""
        return {name: (h * self.scale, w * self.scale) for name, (h, w) in self._low_sizes.items()}

    def _ground_truth(self, name: str) -> tuple[Tensor, str]:
        """Read a ground truth [C, H, W] and the hash of its file."""
        height, width = self._low_sizes[name]
        image, digest = read_hashed(self._gt[name], **self._reading)
        return image[:, : height * self.scale, : width * self.scale].contiguous(), digest


class PairedFolders(_ImageFolder):
    """Ground truth and degraded images from folders, matched by file name without suffix.

    Parameters
    ----------
    gt : path-like
        Folder of ground-truth images (PNG, JPEG, BMP, WebP, TIFF, PPM or AVIF, any size).
    lq : path-like or mapping of str to path-like
        One folder of degraded images, or degradation name to folder; one folder is named "lq".
    scale : int, optional
        Enlargement from degraded image to ground truth; by default the ratio of most images.
    lq_name : str, optional
        Names of the degraded images, {} for the name of the ground truth and {scale} for the scale:
        "{}x2". None: the same names, or else a pattern of published data sets, such as
        "{}x{scale}", "{}_x{scale}" and "{}_LR", which all images follow.
    recursive : bool
        Include subfolders; images are matched within the subfolder of the same name.
    crop_to : int
        Crop degraded images to multiples of this number of pixels, and ground truths to match.
    channels : {3, 1}
        Read colour or gray.
    alpha : {"refuse", "drop"}
        What becomes of an alpha channel that is not opaque.

    Attributes
    ----------
    names : list of str
        The file names without suffix, sorted.
    scale : int
        As given, or the ratio of most images.
    notes : list of str
        Patterns of names, and changes to the images, mainly cropping; a change is also a warning.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    FileNotFoundError
        If a folder does not exist.
    ValueError
        If a folder has no images or two of one name, the names differ between the folders, an
        image cannot be read or has transparent pixels, or sizes do not fit the scale; all are
        named.

    Notes
    -----
    Item: {"lq": {degradation: [C, h, w]}, "gt": [C, H, W], "name": str, "sha256": {role: str}},
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
        self,
        gt: PathLike,
        lq: PathLike | Mapping[str, PathLike],
        scale: int | None = None,
        *,
        lq_name: str | None = None,
        recursive: bool = False,
        crop_to: int = 1,
        channels: int = 3,
        alpha: str = "refuse",
    ) -> None:
        super().__init__(gt, recursive, crop_to, channels, alpha)
        folders = lq if isinstance(lq, Mapping) else {"lq": lq}
        if not folders:
            raise ValueError("lq is an empty mapping; expected degradation names and folders")
        if scale is not None:
            _checked_integer("scale", scale)
        if lq_name is not None:
            checked_pattern(lq_name)
        for name, folder in folders.items():
            what = f"lq folder {name!r}"
            files = image_files(folder, what, recursive=recursive)
            where = f"{what} ({shown(folder)})"
            self._lq[name], pattern = match_names(self.names, files, where, lq_name, scale)
            if pattern != "{}" and lq_name is None:
                self.notes.append(f"{what}: images are matched by names such as {pattern!r}")
        large = {stem: self._size(path) for stem, path in self._gt.items()}
        small = {
            name: {stem: self._size(path) for stem, path in files.items()}
            for name, files in self._lq.items()
        }
        if scale is None:
            ratios = (
                round(large[stem][0] / size[0])
                for sizes in small.values()
                for stem, size in sizes.items()
            )
            scale = max(1, mode(ratios))
        self.scale = scale
        for stem, size in large.items():
            for name in small:
                low_size = small[name][stem]
                fits = [
                    n in (m // scale, -(-m // scale)) for n, m in zip(low_size, size, strict=True)
                ]
                if not all(fits) or min(size) < scale:
                    raise ValueError(
                        f"image {stem!r} is {low_size[0]}×{low_size[1]} in the lq folder {name!r} "
                        f"and {size[0]}×{size[1]} in the gt folder; expected a ratio of {scale}"
                    )
        self._set_sizes(large)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Read one image and its degraded versions."""
        name = self.names[position]
        height, width = self._low_sizes[name]
        gt, digest = self._ground_truth(name)
        lq, hashes = {}, {"gt": digest}
        for degradation, files in self._lq.items():
            image, hashes[f"lq {degradation}"] = read_hashed(files[name], **self._reading)
            lq[degradation] = image[:, :height, :width].contiguous()
        return {"lq": lq, "gt": gt, "name": name, "sha256": hashes}


class DegradedFolder(_ImageFolder):
    """Ground truth from a folder, degraded by recipe.

    Parameters
    ----------
    gt : path-like
        Folder of ground-truth images (PNG, JPEG, BMP, WebP, TIFF, PPM or AVIF, any size).
    degradations : mapping of str to Degradation, str or callable
        Degradation name to `faigfast.data.degradations.Degradation`; to the text of a recipe, as
        "blur=2+jpeg=40"; to a function (image [C, H, W] in [0, 1], generator) -> image, as among
        the steps of a `Degradation`; or to any callable (gt [N, C, H, W], seed=int) ->
        [N, C, H/scale, W/scale] with an attribute `scale`.
    seed : int
        Random numbers of a recipe follow from the seed, the image's name and the recipe. Recipes of
        blur and noise alone, and callables with a scale, get a seed that follows from this one and
        the image's position among sorted names. Both differ from image to image, and are the same
        on every reading.
    scale : int, optional
        Down-sampling factor, which texts and functions need; by default that of the degradations.
    recursive, crop_to, channels, alpha
        As in `PairedFolders`; images are cropped before they are degraded.

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
        If the folder has no images or two of one name, an image cannot be read, has transparent
        pixels or is smaller than the scale, the degradations are none or differ in scale, or the
        seed is negative; when an item is read, if it cannot be degraded.

    Notes
    -----
    Items are as in `PairedFolders`.
    """

    def __init__(
        self,
        gt: PathLike,
        degradations: Mapping[str, Degradation | str | Callable[..., Tensor]],
        seed: int = 0,
        *,
        scale: int | None = None,
        recursive: bool = False,
        crop_to: int = 1,
        channels: int = 3,
        alpha: str = "refuse",
    ) -> None:
        super().__init__(gt, recursive, crop_to, channels, alpha)
        scales = {name: getattr(d, "scale", scale) for name, d in degradations.items()}
        if len(set(scales.values())) != 1 or scale not in (None, *scales.values()):
            raise ValueError(f"degradations have the scales {scales}; expected one for all")
        self.scale = _checked_integer("scale", next(iter(scales.values())))
        self.degradations: dict[str, Callable[..., Tensor]] = {
            name: recipe
            if hasattr(recipe, "scale") and callable(recipe)
            else Degradation.of(recipe, self.scale)
            for name, recipe in degradations.items()
        }
        self.seed = _checked_integer("seed", seed, least=0)
        self._set_sizes({name: self._size(path) for name, path in self._gt.items()})

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Read one image and degrade it."""
        name = self.names[position]
        gt, digest = self._ground_truth(name)
        index = position % len(self)  # -1 is the last image, with the last image's noise
        seed = int(np.random.SeedSequence((self.seed, index)).generate_state(1)[0])
        lq = {}
        for key, degrade in self.degradations.items():
            with _naming(f"image {shown(self._gt[name])}, degradation {key!r}"):
                if isinstance(degrade, Degradation):
                    lq[key] = degrade(gt[None], degrade.seed_of(self.seed, name, seed))[0]
                else:
                    lq[key] = degrade(gt[None], seed=seed)[0]
                size = (len(gt), *self._low_sizes[name])
                if lq[key].shape != size or not lq[key].isfinite().all():
                    raise ValueError(
                        f"it gives {list(lq[key].shape)}; expected finite values {list(size)}"
                    )
        return {"lq": lq, "gt": gt, "name": name, "sha256": {"gt": digest}}


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put the name of an image before any error about it."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of any callable
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{what}: {error}") from error


def _checked_integer(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; expected an integer from {least} up")
    return value
