"""Paths of regular files: all others are refused before they are opened."""

import errno
import os
import stat
from pathlib import Path

SHOWN_LENGTH = 80  # characters of a name in a message
PATH_LENGTH = 400  # longer paths are shortened in messages
KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def regular_file(path: str | os.PathLike[str], what: str, expected: str = "a regular file") -> Path:
    """Refuse a path that names no regular file, without opening it.

    Parameters
    ----------
    path : path-like
        The path; links are followed.
    what : str
        Noun for the file in the message of a missing one, such as "image".
    expected : str
        The files that would do, for the messages.

    Returns
    -------
    Path
        The path.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or its folder is a file.
    ValueError
        If it is a folder, named pipe, socket, device or a link to itself, or the path is too
        long, has a NUL character or cannot be reached.
    """
    name = shown(path)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no {what} {name}; expected {expected}") from None
    except NotADirectoryError:
        raise FileNotFoundError(
            f"there is no {what} {name}, since a folder of the path is a file; expected {expected}"
        ) from None
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            reason = "is a link that leads to itself"
        elif problem.errno == errno.ENAMETOOLONG:
            reason = f"is too long for a path, {len(os.fspath(path))} characters"
        else:
            reason = f"cannot be reached: {problem.strerror}"
        raise ValueError(f"{name} {reason}; expected {expected}") from None
    except ValueError:  # also names that cannot be encoded
        reason = "a NUL character" if "\0" in str(path) else "characters no file name can have"
        raise ValueError(f"the path {name} has {reason}; expected {expected}") from None
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "special file")
        raise ValueError(f"{name} is a {kind}; expected {expected}")
    return Path(path)


def shown(path: str | os.PathLike[str]) -> str:
    """Give a path for a message: on one line, and shortened where it is very long."""
    text = str(path)
    if not text.isprintable():
        return shortened(text, PATH_LENGTH)
    return text if len(text) <= PATH_LENGTH else shortened(text)


def shortened(name: object, length: int = SHOWN_LENGTH) -> str:
    """Give the repr of a name for a message, cut to a length; only the type of other objects."""
    if isinstance(name, str):
        return repr(name) if len(name) <= length else f"{name[:length]!r}... ({len(name)} long)"
    if name is None or type(name) in (bool, float):
        return repr(name)
    if type(name) is int and name.bit_length() < 256:
        return repr(name)
    return f"a key of type {type(name).__name__}"
