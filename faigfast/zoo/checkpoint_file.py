"""Content of a checkpoint file, in either of its formats, as stored."""

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from faigfast.io.regular_file import regular_file, shown
from faigfast.zoo.checkpoint_limits import MarkedFile, check_header, check_zip
from faigfast.zoo.numpy_scalars import numbers_allowed

SAFETENSORS_HEADER_LIMIT = 100_000_000  # of the format itself, in bytes
EXPECTED = "a PyTorch or safetensors file"


def read_content(path: Path) -> tuple[Mapping[str, Any], dict[str, str] | None]:
    """Read a file without running code in it; the metadata of a safetensors file comes second.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no regular file, empty, damaged, of another kind, holds too much or asks for code
        to be run.
    """
    return _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)


def _is_safetensors(path: Path) -> bool:
    """Tell the two formats apart by their first bytes; refuse other files."""
    regular_file(path, "file", EXPECTED)
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ValueError(
            f"{shown(path)} cannot be read: {error.strerror}; expected {EXPECTED}"
        ) from None
    if not head:
        raise ValueError(f"{shown(path)} is empty; expected {EXPECTED}")
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < SAFETENSORS_HEADER_LIMIT:
        return True
    if head[:2] == b"PK" or head[:1] == b"\x80":  # a zip archive, or a pickle of old torch
        return False
    raise ValueError(
        f"{shown(path)} begins with {head!r}, as neither a PyTorch nor a safetensors file does"
    )


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, str] | None]:
    from safetensors import SafetensorError, safe_open

    check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return content, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{shown(path)} cannot be read as safetensors, truncated or damaged: {_one_line(error)}"
        ) from error


def _read_torch(path: Path) -> tuple[Mapping[str, Any], None]:
    with open(path, "rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        check_zip(path)
    try:
        # torch would judge a path by its suffix; a file without zip is one pickle after another.
        with (
            open(path, "rb") if is_zip else MarkedFile(io.FileIO(path)) as file,
            numbers_allowed(),
        ):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        wanted = re.search(r"GLOBAL (\w+(?:\.\w+)+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and wanted:
            raise ValueError(
                f"{shown(path)} asks for {wanted[1][:200]}, which could run code and was "
                "refused; expected weights only, as torch.save(model.state_dict(), path) writes "
                "them"
            ) from error
        raise ValueError(
            f"{shown(path)} cannot be read as a PyTorch file of weights, truncated, damaged or of "
            f"another kind: {_one_line(error)}"
        ) from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ValueError(f"{shown(path)} holds a {kind}; expected a dict of tensors")
    return content, None


def _one_line(error: Exception) -> str:
    """Give the first sentence of an error, shortened."""
    reason = re.split(r"\. |\n", str(error)[:1000])[0] or type(error).__name__
    return reason if len(reason) <= 300 else f"{reason[:300]}..."
