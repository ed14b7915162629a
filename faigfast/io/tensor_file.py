"""Tensor files: tensors and metadata in one safetensors file, with a digest of both."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from faigfast.io.atomic import atomic_write, checked_path
from faigfast.models.fingerprint import digest_of

DIGEST = "sha256"


def save_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write tensors and metadata, whole or not at all.

    Parameters
    ----------
    path : path-like
        A safetensors file.
    tensors : mapping of str to Tensor
        Of any shapes.
    metadata : mapping of str to Any
        In JSON types.

    Raises
    ------
    ValueError
        If the file cannot be written.
    """
    entries = {key: json.dumps(value) for key, value in (metadata or {}).items()}
    content = {key: value.contiguous() for key, value in tensors.items()}
    entries[DIGEST] = json.dumps(_digest(content, entries))
    write_safetensors(path, content, entries)


def write_safetensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a plain safetensors file, whole or not at all.

    Raises
    ------
    ValueError
        If the file cannot be written.
    """
    with atomic_write(path) as temporary:
        try:
            save_file(dict(tensors), temporary, dict(metadata) if metadata else None)
        except SafetensorError as problem:
            number = re.search(r"os error (\d+)", str(problem))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from problem


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata of a file; files without a digest are read too.

    Raises
    ------
    TypeError
        If `path` is no path.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or its content is not that of its digest.
    """
    if not os.path.isfile(checked_path(path)):  # unlike Path.is_file, takes names of any length
        raise FileNotFoundError(f"{path} is not a file; expected a safetensors file")
    try:
        with safe_open(path, "pt") as file:
            entries: dict[str, str] = dict(file.metadata() or {})
            # Copies, since memory-mapped tensors would change with the file.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = {key: json.loads(value) for key, value in entries.items()}
    except (SafetensorError, ValueError, OSError, RecursionError) as problem:
        raise ValueError(f"{path} is truncated, damaged or of another kind: {problem}") from None
    if DIGEST in metadata and metadata.pop(DIGEST) != _digest(tensors, entries):
        raise ValueError(f"{path} is damaged: its content does not have the digest in it")
    return tensors, metadata


def _digest(tensors: Mapping[str, Tensor], entries: Mapping[str, str]) -> str:
    metadata = sorted((key, text) for key, text in entries.items() if key != DIGEST)
    return hashlib.sha256(f"{digest_of(tensors)} {json.dumps(metadata)}".encode()).hexdigest()
