"""A lock against other processes in one folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faigfast.io.atomic import remove_unfinished


@contextmanager
def alone_in(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lock an existing folder; the lock ends with the process at the latest.

    Temporary files of killed processes below it are removed.

    Raises
    ------
    ValueError
        If another process holds the lock.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_unfinished(Path(path))
        yield
    except BlockingIOError:
        raise ValueError(f"{path} is in use by another faigfast command") from None
    finally:
        os.close(handle)
