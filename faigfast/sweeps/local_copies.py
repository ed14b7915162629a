"""Files by path or by URL: URLs are read by fsspec, where it is installed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faigfast.data.image_files import SUFFIXES


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a URL such as s3://bucket/photos."""
    return isinstance(place, str) and "://" in place


def file_system(url: str) -> tuple[Any, str]:
    """Give the file system of a URL, and the path on it.

    Raises
    ------
    ImportError
        If fsspec, or its part for this kind of URL, is not installed.
    ValueError
        If the kind of URL is unknown.
    """
    try:
        import fsspec
    except ImportError:
        raise ImportError(f"{url} needs fsspec: pip install fsspec; expected a path") from None
    return fsspec.core.url_to_fs(url)


@contextmanager
def local_copy(place: str) -> Iterator[Path]:
    """Give the path of a file; of a URL, the path of a copy that is removed afterwards.

    Raises
    ------
    FileNotFoundError
        If there is no such file behind a URL.
    ImportError, ValueError
        As `file_system`.
    """
    if not is_url(place):
        yield Path(place)
        return
    files, path = file_system(place)
    with tempfile.TemporaryDirectory(prefix="faigfast-") as folder:
        copy = Path(folder, path.rpartition("/")[2])
        with files.open(path, "rb") as source:
            copy.write_bytes(source.read())
        yield copy


def state_of_file(place: str) -> list[Any]:
    """Identify the present content of a file without reading it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    if is_url(place):
        files, path = file_system(place)
        known = files.info(path)
        stamps = [str(known.get(key)) for key in ("mtime", "LastModified", "ETag", "created")]
        return [place, known["size"], *stamps]
    status = os.stat(place)
    # A change of the content changes ctime, even where a program sets mtime back.
    return [
        os.path.abspath(place), status.st_size, status.st_mtime_ns,
        status.st_ctime_ns, status.st_ino,
    ]  # fmt: skip


def images_behind(url: str, recursive: bool) -> dict[str, str]:
    """List the images of a folder behind a URL: URL by name without suffix, sorted.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it has no image.
    """
    files, folder = file_system(url)
    listed = files.find(folder) if recursive else files.ls(folder, detail=False)
    start = folder.rstrip("/") + "/"
    images = {
        path.removeprefix(start).rpartition(".")[0]: files.unstrip_protocol(path)
        for path in sorted(listed)
        if path.lower().endswith(SUFFIXES) and not path.rpartition("/")[2].startswith(".")
    }
    if not images:
        raise ValueError(f"{url} has no image; expected any of {', '.join(SUFFIXES)}")
    return images
