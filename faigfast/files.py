"""Files that are either whole or absent."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, moved onto it once the block has ended well.

    An exception or an interrupt inside the block leaves `path` as it was and removes the
    temporary file.

    Parameters
    ----------
    path : path-like
        Where the finished file belongs; missing folders are made.

    Yields
    ------
    pathlib.Path
        A temporary name in the same folder, to be written by the caller.

    Raises
    ------
    ValueError
        If the folder cannot be made or written, or `path` is a folder.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        handle, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent
        )
    except OSError as problem:
        raise ValueError(f"{path} cannot be written: {problem.strerror}") from problem
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes private files; a result gets the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
