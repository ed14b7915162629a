"""Limits of checkpoint files, checked before and after their tensors are read."""

import io
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from faigfast.io.regular_file import shortened, shown

MAX_TENSORS = 50_000  # of a file
MAX_KNOWN_TENSORS = 5_000  # of a network of the zoo; the deepest published one has 1,630
MAX_NAME = 1_000  # characters of a tensor's name
MAX_PICKLE = 64 * 2**20  # bytes of the description of the tensors
MAX_MARKS = 125_000  # of a pickle; a tensor has two
MAX_TEXTS = 150_000  # of a pickle; a tensor has two: its name and that of its storage
END_OF_ZIP = 2**16 + 2**8  # bytes that hold its last records, a comment included
CHUNK = 2**22  # bytes read at once


class MarkedFile(io.BufferedReader):
    """A file that refuses to give more than `MAX_MARKS` marks of a pickle, byte by byte."""

    marks = 0

    def read(self, size: int | None = -1) -> bytes:
        """Read as a file does; the unpickler asks for every opcode alone."""
        content = io.BufferedReader.read(self, size)  # super() takes twice as long
        if content == b"(":
            self.marks += 1
            if self.marks > MAX_MARKS:
                raise ValueError(f"its pickle has more than {MAX_MARKS} marks")
        return content


def check_zip(path: Path) -> None:
    """Refuse a zip archive that torch did not write or that was damaged since.

    Compares the CRC32 of every member, which torch does not do itself.

    Raises
    ------
    ValueError
        If the archive is damaged, a member is compressed, larger than the file or has another
        CRC32 (as torch writes with `set_crc32_options(False)`), or a limit is exceeded.
    """
    start = f"{shown(path)} cannot be read as a PyTorch file of weights"
    try:
        _check_count(_claimed_members(path), start)  # listing a million members takes seconds
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_count(len(members), start)
            room = size = os.stat(path).st_size
            for member in members:
                name = shortened(member.filename)
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(
                        f"{start}: its member {name} is compressed; expected stored members alone, "
                        "as torch.save writes them"
                    )
                room -= member.file_size
                if room < 0:
                    raise ValueError(
                        f"{start}: its members up to {name} claim {size - room} bytes; expected at "
                        f"most the file's {size}"
                    )
            for member in members:
                _check_member(archive, member, start)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{start}, truncated, damaged or of another kind: {error}") from error


def _claimed_members(path: Path) -> int:
    """Read the number of members at the end of an archive; 0 if the end lacks it."""
    with open(path, "rb") as file:
        file.seek(max(0, os.stat(path).st_size - END_OF_ZIP))
        tail = file.read()
    short, long = tail.rfind(b"PK\x05\x06"), tail.rfind(b"PK\x06\x06")
    count = int.from_bytes(tail[short + 10 : short + 12], "little") if short >= 0 else 0
    if count < 0xFFFF or long < 0:
        return count
    return int.from_bytes(tail[long + 32 : long + 40], "little")


def _check_count(members: int, start: str) -> None:
    if members > MAX_TENSORS:
        raise ValueError(f"{start}: it has {members} members; expected at most {MAX_TENSORS}")


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, start: str) -> None:
    """Read a member, which compares its CRC32; refuse a pickle that takes long to read."""
    is_pickle = member.filename.endswith("data.pkl")
    if is_pickle and member.file_size > MAX_PICKLE:
        raise ValueError(
            f"{start}: its data.pkl has {member.file_size} bytes; expected at most {MAX_PICKLE}"
        )
    marks = texts = 0
    try:
        with archive.open(member) as content:
            while chunk := content.read(CHUNK):
                marks += chunk.count(b"(") if is_pickle else 0
                texts += chunk.count(b"X") if is_pickle else 0
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{start}, truncated or damaged: its member {shortened(member.filename)} does not have "
            "the CRC32 stored with it; expected an undamaged copy of the file"
        ) from error
    for count, most, what in ((marks, MAX_MARKS, "marks"), (texts, MAX_TEXTS, "texts")):
        if count > most:
            raise ValueError(
                f"{start}: its data.pkl has {count} {what}; expected at most {most}, enough for "
                f"{MAX_TENSORS} tensors"
            )


def check_header(path: Path) -> None:
    """Refuse a safetensors file of too many tensors by its header alone."""
    with open(path, "rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    if len(header) > MAX_PICKLE:
        raise ValueError(
            f"{shown(path)} has a header of {len(header)} bytes; expected at most {MAX_PICKLE}"
        )
    _check_number(header.count(b'"data_offsets"'), shown(path), MAX_TENSORS)


def _check_number(number: int, place: str, limit: int) -> None:
    if number > limit:
        raise ValueError(f"{place} holds {number} tensors; expected at most {limit}")


def check_tensors(stored: Mapping[Any, Any], place: str, wrappers: tuple[str, ...]) -> None:
    """Refuse a dict that holds more than dense tensors with a value for every element."""
    _check_number(len(stored), place, MAX_TENSORS)
    for name, value in stored.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ValueError(
                f"{place} holds {shortened(name)}, a {type(value).__name__}; expected a dict of "
                f"tensors, plain or under one of {', '.join(wrappers)}"
            )
        if len(name) > MAX_NAME:
            raise ValueError(
                f"{place} holds the name {shortened(name)}; expected at most {MAX_NAME} characters"
            )
        if value.is_nested or value.is_meta or value.layout != torch.strided:
            kind = "a nested tensor" if value.is_nested else f"{value.layout} on {value.device}"
            raise ValueError(
                f"{place} holds {shortened(name)} as {kind}; expected dense tensors with their "
                "values"
            )
        bytes_held = value.untyped_storage().nbytes()
        repeats = any(n > 1 and s == 0 for n, s in zip(value.shape, value.stride(), strict=True))
        if value.nbytes > bytes_held or (repeats and value.numel()):
            raise ValueError(
                f"{place} holds {shortened(name)} of {value.nbytes} bytes in a storage of "
                f"{bytes_held}, its values repeated; expected one stored value for every element"
            )


class _ShapesOnly(TorchFunctionMode):
    """Give parameters without memory or values; stop at more of them than a file has."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            self.limit -= 1
            if self.limit < 0:
                raise ValueError("its network has more tensors than the file")
            return func(*args, **{**kwargs, "device": "meta"})
        name = func.__name__
        if name.endswith("_") and not name.endswith("__"):  # it writes values
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return func(*args, **kwargs)


def check_size(state: Mapping[str, Tensor], size: int) -> None:
    """Refuse a state dict that is too large to build a network of.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors of the file.
    size : int
        Bytes of the file.

    Raises
    ------
    ValueError
        If there are too many tensors, or they are far larger than the file, as views of one
        storage.
    """
    _check_number(len(state), "the file", MAX_KNOWN_TENSORS)
    # Some files share a few small buffers.
    room = 4 * size + 2**26
    claimed = max(sum(value.nbytes for value in state.values()), _window_bytes(state))
    if claimed > room:
        raise ValueError(
            f"its tensors claim {claimed} bytes of a file of {size}; expected a stored value for "
            "every element"
        )


def outline(
    state: Mapping[str, Tensor], infer: Callable[[Mapping[str, Tensor]], nn.Module]
) -> nn.Module:
    """Build the network of a state dict without memory, so that one too large is never allocated.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors of the file, after `check_size`.
    infer : callable
        Builds the network of a state dict.

    Returns
    -------
    nn.Module
        The network, its parameters on the device "meta".

    Raises
    ------
    ValueError
        If no network fits.
    """
    with _ShapesOnly(3 * len(state)):  # several families are tried
        return infer(state)


def with_memory(outlined: nn.Module) -> nn.Module:
    """Give the parameters of an outlined network memory on the CPU, without values."""
    return outlined._apply(lambda t: torch.empty_like(t, device="cpu") if t.is_meta else t)


def _window_bytes(state: Mapping[str, Tensor]) -> int:
    """Give the bytes of the buffers that SwinIR computes for its windows before a comparison."""
    tables = [v for k, v in state.items() if k.endswith(".relative_position_bias_table")]
    rows = max((len(table) for table in tables if table.ndim == 2), default=0)
    pairs = ((math.isqrt(rows) + 1) // 2) ** 4  # of pixels of a window
    masks = (len(v) for k, v in state.items() if k.endswith(".attn_mask") and v.ndim)
    return len(tables) * pairs * max(8, 4 * max(masks, default=4) // 2)
