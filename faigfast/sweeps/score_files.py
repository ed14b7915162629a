"""Files of scores: one for each unit, written whole or not at all, the first one wins."""

import errno
import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from faigfast.io.atomic import TEMPORARY
from faigfast.io.tensor_file import load_tensors, save_tensors

FOLDER = "scores"
SUFFIX = ".safetensors"
UNIT = "unit"  # metadata: the identity of the unit
BLOCK = 2**20
# File systems without hard links.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def score_file(folder: Path, unit: str) -> Path:
    """Path of the scores of a unit; 256 folders share the files."""
    return folder / FOLDER / unit[:2] / f"{unit}{SUFFIX}"


def write_once(
    folder: Path, unit: str, tensors: dict[str, Tensor], metadata: dict[str, Any]
) -> tuple[int, bytes]:
    """Write the scores of a unit, unless another process has written them.

    Returns
    -------
    size : int
        Bytes of the file.
    digest : bytes
        Its SHA-256.

    Raises
    ------
    ValueError
        If the file cannot be written.
    """
    file = score_file(folder, unit)
    temporary = file.with_name(f"{TEMPORARY}{os.getpid()}-{file.name}")
    try:
        save_tensors(temporary, tensors, {**metadata, UNIT: unit})
        try:
            os.link(temporary, file)
        except FileExistsError:
            if not is_whole(folder, unit):
                os.replace(temporary, file)
        except OSError as problem:
            if problem.errno not in NO_LINKS:
                raise
            os.replace(temporary, file)
        return size_and_digest(file)
    except OSError as problem:
        raise ValueError(f"{file} cannot be written: {problem.strerror}") from problem
    finally:
        with suppress(OSError):
            temporary.unlink()


def is_whole(folder: Path, unit: str) -> bool:
    """Whether the scores of a unit are there and have the digest in their file."""
    try:
        return load_tensors(score_file(folder, unit))[1].get(UNIT) == unit
    except (FileNotFoundError, ValueError):
        return False


def size_and_digest(file: Path) -> tuple[int, bytes]:
    """Bytes and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with open(file, "rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
            size += len(block)
    return size, digest.digest()
