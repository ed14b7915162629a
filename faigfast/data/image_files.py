"""The images of a folder by name, and degraded images by names that follow a pattern."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from faigfast.data.images import PathLike
from faigfast.io.regular_file import regular_file, shown

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".avif",
)  # fmt: skip
SHOWN = 3  # names in a message before "and N more"
# Names of degraded images in published data sets, {} for the name of the ground truth.
PATTERNS = (
    "{}x{scale}", "{}_x{scale}", "{}-x{scale}", "{}X{scale}", "{}_X{scale}", "{}_LR", "{}_lr",
    "{}-LR", "{}LR", "{}_LRx{scale}", "{}_LR_x{scale}", "{}_LQ", "{}_lq", "{}_LRBI_x{scale}",
    "{}x{scale}_LR", "{}_x{scale}_LR", "{}x{scale}d", "{}x{scale}m", "{}x{scale}w",
)  # fmt: skip
SCALES = (2, 3, 4, 8, 1)


def image_files(
    folder: PathLike, what: str = "folder", *, recursive: bool = False
) -> dict[str, Path]:
    """Find the images of a folder.

    Parameters
    ----------
    folder : path-like
        Folder with PNG, JPEG, BMP, WebP, TIFF, PPM, PGM or AVIF files. Other files and names that
        begin with a dot are skipped.
    what : str
        Name of the folder in error messages.
    recursive : bool
        Include subfolders, whose images are named "subfolder/name"; links to folders are followed.

    Returns
    -------
    dict of str to pathlib.Path
        File by name without suffix, sorted. Names are in Unicode's composed form (NFC).

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If it is a file, has no images or two of one name, an image's name belongs to a broken
        link, a named pipe, a socket or a device, or a link leads back to a folder above it.
    """
    folder = Path(folder)
    if folder.is_symlink() and not folder.exists():
        raise FileNotFoundError(
            f"{what} {shown(folder)} is a link to {shown(folder.readlink())}, where nothing is"
        )
    if not folder.exists():
        raise FileNotFoundError(f"there is no {what} {shown(folder)}")
    if not folder.is_dir():
        raise ValueError(f"{what} {shown(folder)} is a file; expected a folder of images")
    paths: dict[str, Path] = {}
    for path in _images(folder, what, recursive, (os.path.realpath(folder),)):
        name = composed(path.relative_to(folder).with_suffix("").as_posix())
        if name in paths:
            raise ValueError(
                f"{what} {shown(folder)} has both {shown(paths[name].name)} and "
                f"{shown(path.name)}; expected one image of a name"
            )
        paths[name] = path
    if not paths:
        subfolders = "" if recursive else " (subfolders are read with recursive)"
        raise ValueError(
            f"{what} {shown(folder)} has no image; expected any of {', '.join(SUFFIXES)}"
            f"{subfolders if any(path.is_dir() for path in folder.iterdir()) else ''}"
        )
    return {name: _image_file(paths[name], what) for name in sorted(paths)}


def composed(name: str) -> str:
    """Give a name in Unicode's composed form: file systems may store é as e and an accent."""
    return unicodedata.normalize("NFC", name)


def _images(folder: Path, what: str, recursive: bool, above: tuple[str, ...]) -> Iterator[Path]:
    """Yield the paths of a folder that have an image's name."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.name != path.name.encode(errors="ignore").decode():
            raise ValueError(
                f"{what} {shown(folder)}: {path.name!r} is not valid UTF-8; rename the file"
            )
        if not path.is_dir():
            if path.suffix.lower() in SUFFIXES:
                yield path
        elif recursive:
            place = os.path.realpath(path)
            if place in above:
                raise ValueError(
                    f"{what} {shown(path)} is a link to a folder above it; expected none"
                )
            yield from _images(path, what, recursive, (*above, place))


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


def checked_pattern(pattern: str) -> str:
    """Check a pattern of names, and give it without an image's suffix.

    Raises
    ------
    TypeError, ValueError
        If it is no text, does not hold {} exactly once, or names a folder.
    """
    if not isinstance(pattern, str):
        raise TypeError(f"lq_name is {pattern!r}; expected a pattern such as '{{}}x2'")
    if pattern.count("{}") != 1 or "/" in pattern:
        raise ValueError(
            f"lq_name is {pattern!r}; expected {{}} once, for the name of the ground truth, such "
            "as '{}x2', and no folder"
        )
    stem, suffix = os.path.splitext(pattern)
    return composed(stem if suffix.lower() in SUFFIXES else pattern)


def match_names(
    names: Iterable[str],
    files: Mapping[str, Path],
    where: str,
    pattern: str | None = None,
    scale: int | None = None,
) -> tuple[dict[str, Path], str]:
    """Find the degraded image of every ground truth.

    Parameters
    ----------
    names : iterable of str
        Names of the ground truths.
    files : mapping of str to pathlib.Path
        Degraded images, from `image_files`.
    where : str
        Their folder in error messages.
    pattern : str, optional
        Their names, {} for the ground truth's name and {scale} for the scale; other images are left
        out. None: the same names, or else any of `PATTERNS` that all images follow.
    scale : int, optional
        Enlargement from degraded image to ground truth, if it is known.

    Returns
    -------
    matched : dict of str to pathlib.Path
        By the names of the ground truths.
    pattern : str
        The pattern that they follow, "{}" for the same names.

    Raises
    ------
    ValueError
        Naming images without a partner, and the file whose name comes closest.
    """
    names = list(names)
    scales = SCALES if scale is None else (scale,)
    tried = ["{}", *PATTERNS] if pattern is None else [checked_pattern(pattern)]
    for template in tried:
        for number in scales if "{scale}" in template else (0,):
            own = template.replace("{scale}", str(number))
            stems = {name: _filled(own, name) for name in names}
            adds = files.keys() - set(stems.values())
            if pattern is not None:
                adds = {stem for stem in adds if _follows(stem, own)}
            if not adds and all(stem in files for stem in stems.values()):
                return {name: files[stem] for name, stem in stems.items()}, own
    own = tried[0].replace("{scale}", str(scales[0]))
    raise _mismatch(names, files, where, own)


def _mismatch(names: list[str], files: Mapping[str, Path], where: str, pattern: str) -> ValueError:
    """Say which images have no partner under a pattern."""
    stems = {name: _filled(pattern, name) for name in names}
    as_named = "" if pattern == "{}" else f" as {pattern!r}"
    expected = f"expected the names of the gt folder{as_named}"
    if missing := [name for name, stem in stems.items() if stem not in files]:
        close = get_close_matches(stems[missing[0]], files, n=1, cutoff=0)
        hint = f"; the closest to {shown(missing[0])} is {shown(files[close[0]].name)}"
        likely = close[0].replace(missing[0], "{}", 1)
        example = likely if "{}" in likely and likely != pattern else "{}x2"
        return ValueError(
            f"{where} lacks {first_names([stems[name] for name in missing])}{hint}; {expected}, or "
            f"lq_name such as {example!r}"
        )
    adds = [stem for stem in files if stem not in set(stems.values())]
    adds = [stem for stem in adds if _follows(stem, pattern)]
    return ValueError(f"{where} adds {first_names(adds)}; {expected}")


def _filled(pattern: str, name: str) -> str:
    """Put a name into a pattern; a subfolder stays in front."""
    folder, slash, stem = name.rpartition("/")
    return f"{folder}{slash}{pattern.replace('{}', stem)}"


def _follows(stem: str, pattern: str) -> bool:
    """Whether a name is the pattern's for some ground truth."""
    before, _, after = pattern.partition("{}")
    own = stem.rpartition("/")[2]
    fixed = len(before) + len(after)
    return len(own) > fixed and own.startswith(before) and own.endswith(after)


def first_names(names: list[str]) -> str:
    """List the first names and count the rest."""
    rest = len(names) - SHOWN
    return ", ".join(map(shown, names[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")
