"""Ledger: the units that are finished, as records of one size that are only ever appended."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from faigfast.io.atomic import atomic_write
from faigfast.sweeps.catalogue import KINDS, Catalogue
from faigfast.sweeps.score_files import is_whole, score_file, size_and_digest
from faigfast.sweeps.units import Unit

NAME = "finished.bin"
DONE, SPLIT = 1, 2
MAGIC = 0xFA16FA57
RECORD = np.dtype(
    [
        ("id", "V32"),
        ("pair", "<u4"),
        ("degradation", "<u4"),
        ("setting", "<u4"),
        ("shard", "<u4"),
        ("size", "<u8"),  # bytes of the file
        ("sha256", "V32"),  # of the file
        ("state", "<u4"),
        ("check", "<u4"),  # makes the exclusive or of all words `MAGIC`
    ]
)


def read_records(folder: Path) -> np.ndarray:
    """Read the records of a sweep, without damaged ones and half a record at the end.

    Returns
    -------
    ndarray
        Of `RECORD`, in the order in which units were finished; the last one of a unit counts.
    """
    file = folder / NAME
    if not file.is_file():
        return np.empty(0, RECORD)
    content = np.fromfile(file, np.uint8)
    records = content[: len(content) // RECORD.itemsize * RECORD.itemsize].view(RECORD)
    words = records.view("<u4").reshape(-1, RECORD.itemsize // 4)
    whole = np.bitwise_xor.reduce(words, axis=1) == MAGIC
    return records if whole.all() else records[whole]


def forget_unknown(folder: Path, catalogue: Catalogue) -> None:
    """Remove the records where the catalogue lost what their numbers stand for.

    The files of scores stay, and are recorded again when they are met.
    """
    records = read_records(folder)
    for kind in KINDS:
        if len(records) and int(records[kind].max()) >= catalogue.count(kind):
            (folder / NAME).unlink()
            return


class Ledger:
    """The finished units of a sweep, held by the one process that may add to them.

    A unit counts as finished if its record is here and its file has the recorded size.

    Parameters
    ----------
    folder : path
        Of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        records = read_records(folder)
        sizes, states = records["size"].tolist(), records["state"].tolist()
        # Bytes of the file; −1 for a unit that was split.
        self._sizes = {
            key: size if state == DONE else -1
            for key, size, state in zip(_keys(records), sizes, states, strict=True)
        }
        self._compact(records)
        self._handle: int | None = None

    def __len__(self) -> int:
        """Count the finished and the split units."""
        return len(self._sizes)

    def is_done(self, unit: Unit) -> bool:
        """Whether a unit has a record as finished; its file is not looked at."""
        return self._sizes.get(unit.key, -1) >= 0

    def is_split(self, unit: Unit) -> bool:
        """Whether the images of a unit are computed in smaller units."""
        return self._sizes.get(unit.key) == -1

    def check(self, unit: Unit, read: bool = False) -> bool:
        """Whether a unit is finished and its file is there; forget it otherwise.

        Parameters
        ----------
        unit : Unit
            Any unit.
        read : bool
            Compare the file's digest too, not its size alone.
        """
        if not self.is_done(unit):
            return False
        file = score_file(self.folder, unit.id)
        try:
            whole = os.stat(file).st_size == self._sizes[unit.key]
            if whole and read:
                whole = self._digest_of(unit) == size_and_digest(file)[1]
        except OSError:
            whole = False
        if not whole:
            del self._sizes[unit.key]
            with suppress(OSError):
                file.unlink()
        return whole

    def adopt(self, unit: Unit) -> bool:
        """Record a whole file that a killed process left without a record; say if there is one."""
        file = score_file(self.folder, unit.id)
        if self.is_done(unit) or not file.exists() or not is_whole(self.folder, unit.id):
            return False
        self.add(unit, DONE, *size_and_digest(file))
        return True

    def add(self, unit: Unit, state: int, size: int = 0, digest: bytes = bytes(32)) -> None:
        """Append the record of a unit; a second record of a finished unit is left out.

        Raises
        ------
        ValueError
            If the file cannot be written.
        """
        if self.is_done(unit):
            return
        record = np.zeros(1, RECORD)
        record["id"] = np.void(unit.key)
        for name in ("pair", "degradation", "setting", "shard"):
            record[name] = getattr(unit, name)
        record["size"], record["sha256"], record["state"] = size, np.void(digest), state
        record["check"] = np.bitwise_xor.reduce(record.view("<u4")) ^ MAGIC
        self._append(record.tobytes())
        self._sizes[unit.key] = size if state == DONE else -1

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _append(self, content: bytes) -> None:
        file = self.folder / NAME
        try:
            if self._handle is None:
                self._handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            before = os.fstat(self._handle).st_size
            if os.write(self._handle, content) != len(content):  # a full disk takes a part
                os.ftruncate(self._handle, before)
                raise OSError(28, os.strerror(28))
        except OSError as problem:
            raise ValueError(
                f"{file} cannot be written: {problem.strerror}; units that were finished before "
                "are kept"
            ) from problem

    def _digest_of(self, unit: Unit) -> bytes:
        if not hasattr(self, "_digests"):
            records = read_records(self.folder)
            self._digests = {
                record["id"].tobytes(): record["sha256"].tobytes() for record in records
            }
        return self._digests[unit.key]

    def _compact(self, records: np.ndarray) -> None:
        """Write the file again where it holds damaged records, or several of one unit."""
        file = self.folder / NAME
        if not file.is_file():
            return
        if file.stat().st_size == len(self._sizes) * RECORD.itemsize:
            return
        with atomic_write(file) as temporary:
            temporary.write_bytes(newest(records).tobytes())


def newest(records: np.ndarray) -> np.ndarray:
    """Keep the last record of every unit."""
    starts = np.sort(records.view("<u8").reshape(-1, RECORD.itemsize // 8)[:, 0])
    if not (starts[1:] == starts[:-1]).any():
        return records
    last = {key: n for n, key in enumerate(_keys(records))}
    return records[sorted(last.values())]


def _keys(records: np.ndarray) -> Iterator[bytes]:
    content = records["id"].tobytes()
    return (content[n : n + 32] for n in range(0, len(content), 32))
