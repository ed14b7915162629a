"""Weights of a `.bin` file: one array after another, some with a flag that names their storage."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from faigfast.io.atomic import atomic_write
from faigfast.io.regular_file import regular_file, shown

FLOAT16 = 0x01306B47
FLOAT32 = 0x00000000
FLOAT32_SCALED = 0x0002C056  # float32 as well; a mark for layers with scales of their own
INT8 = 0x000D4B38
MAX_BYTES = 2**31  # of a file
LARGEST_FLOAT16 = 65504.0

log = logging.getLogger("faigfast")


@dataclass(frozen=True)
class Stored:
    """One array of a `.bin` file.

    Attributes
    ----------
    key : str
        Name of its tensor in the network's state dict.
    flag : int or None
        The four bytes before it; None for an array that is always plain float32.
    in_file : callable
        Gives the tensor in the order of the file.
    """

    key: str
    flag: int | None
    in_file: Callable[[Tensor], Tensor]


@dataclass
class WeightReader:
    """Read the arrays of a `.bin` file in order.

    An array that is longer than the rest of the file is refused before it takes memory.

    Parameters
    ----------
    path : Path
        The file.
    declared_by : Path
        Its `.param` file, for messages.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no regular file or too large.
    """

    path: Path
    declared_by: Path
    size: int = field(init=False)
    place: int = field(init=False, default=0)  # bytes read

    def __post_init__(self) -> None:
        expected = f"the weights of {shown(self.declared_by)} beside it"
        regular_file(self.path, "file", expected)
        self.size = os.stat(self.path).st_size
        if self.size > MAX_BYTES:
            raise ValueError(
                f"{shown(self.path)} has {self.size} bytes; expected at most {MAX_BYTES}"
            )

    def __enter__(self) -> "WeightReader":
        try:
            self._file = open(self.path, "rb")
        except OSError as error:
            raise ValueError(
                f"{shown(self.path)} cannot be read: {error.strerror}; expected the weights of "
                f"{shown(self.declared_by)}"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def flagged(self, count: int, layer: str) -> tuple[Tensor, int]:
        """Read a flag, then `count` values in the storage that the flag names.

        Returns
        -------
        values : Tensor
            [count], float32.
        flag : int
            Its four bytes.
        """
        self._check(4 + 2 * count, layer)
        flag = int.from_bytes(self._file.read(4), "little")
        self.place += 4
        if flag == FLOAT16:
            values = self._read(count, "<f2", layer).astype(np.float32)
            padding = 2 * (count % 2)
            self._check(padding, layer)
            self._file.seek(padding, os.SEEK_CUR)
            self.place += padding
            return torch.from_numpy(values), flag
        if flag in (FLOAT32, FLOAT32_SCALED):
            return self.plain(count, layer), flag
        kind = "int8" if flag == INT8 else "a table of 256 values, or damaged"
        raise ValueError(
            f"{shown(self.path)} stores {layer} as {kind} (flag 0x{flag:08X}); expected float32 or "
            "float16"
        )

    def plain(self, count: int, layer: str) -> Tensor:
        """Read `count` float32 values without a flag, [count]."""
        values = self._read(count, "<f4", layer)
        return torch.from_numpy(values.astype(np.float32, copy=False))

    def check_at_end(self) -> None:
        """Refuse bytes after the last array."""
        if self.place != self.size:
            raise ValueError(
                f"{shown(self.path)} has {self.size} bytes, {self.size - self.place} more than "
                f"{shown(self.declared_by)} declares; expected the two files of one network"
            )

    def _read(self, count: int, kind: str, layer: str) -> np.ndarray:
        size = count * np.dtype(kind).itemsize
        self._check(size, layer)
        values = np.fromfile(self._file, kind, count)
        if len(values) < count:  # the file has become shorter
            raise ValueError(f"{shown(self.path)} ends inside {layer}; expected an unchanged file")
        self.place += size
        return values

    def _check(self, size: int, layer: str) -> None:
        """Refuse an array that is longer than the rest of the file."""
        if size > self.size - self.place:
            raise ValueError(
                f"{shown(self.path)} is truncated or of another network: {layer} needs {size} "
                f"bytes from byte {self.place} on; the file has {self.size}"
            )


def write_weights(path: Path, arrays: Sequence[tuple[Stored, Tensor]]) -> None:
    """Write arrays in their storage, whole or not at all.

    Raises
    ------
    ValueError
        If a value is too large for float16, or the file cannot be written.
    """
    largest = 0.0  # relative change by rounding
    parts: list[bytes] = []
    for stored, value in arrays:
        exact = stored.in_file(value.detach().cpu()).contiguous().to(torch.float32)
        if stored.flag is not None:
            parts.append(stored.flag.to_bytes(4, "little"))
        if stored.flag != FLOAT16:
            parts.append(exact.numpy().astype("<f4", copy=False).tobytes())
            continue
        too_large = exact.abs() > LARGEST_FLOAT16
        if (too_large & exact.isfinite()).any():
            raise ValueError(
                f"model holds {exact[too_large][0]:g} in {stored.key!r}, which `like` stores as "
                f"float16; expected values up to {LARGEST_FLOAT16:g}"
            )
        rounded = exact.half()
        change = (rounded.float() - exact).norm() / exact.norm().clamp(min=1e-30)
        largest = max(largest, float(change))
        parts += (
            rounded.numpy().astype("<f2", copy=False).tobytes(),
            bytes(2 * (rounded.numel() % 2)),
        )
    if largest > 0:
        log.warning(
            "%s: weights were rounded to float16, the storage of `like`: a tensor changed by up to "
            "%.1g of its norm",
            shown(path),
            largest,
        )
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.writelines(parts)
