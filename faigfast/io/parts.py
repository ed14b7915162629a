"""Parts: finished parts of a long run in one folder, so that the same run resumes from them."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from faigfast.io.atomic import write_json
from faigfast.io.differences import difference
from faigfast.io.tensor_file import load_tensors, save_tensors

T = TypeVar("T")
IDENTITY = "run.json"
SUFFIX = ".part"
STAMP = "part"  # metadata: digest of the run's identity and the part's name
REMEDY = "choose another folder, or add --overwrite"


class Parts:
    """Finished parts by name, with the identity of the run that made them.

    Each part is a tensor file that is stamped with its name and its run, so that a part of another
    run, or one that was renamed, counts as missing. A new object changes nothing on disk until the
    first part is saved.

    Parameters
    ----------
    folder : path-like
        Holds one file for each part, and `run.json`; made when the first part is saved.
    identity : mapping
        Everything that all parts depend on, in JSON types.
    overwrite : bool
        Remove parts of another run instead of refusing them.

    Raises
    ------
    ValueError
        If the folder is a link, or holds parts of another run, or parts without `run.json`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: Mapping[str, Any],
        overwrite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        if self.folder.is_symlink():
            raise ValueError(f"{self.folder} is a link; expected a folder, or none yet")
        self._identity = json.loads(json.dumps(dict(identity)))
        self._begun = False
        self._foreign = False
        if not self._files():  # a run that failed before its first part does not block the folder
            return
        try:
            refuse_other_run(self.folder, self._identity)
        except ValueError:
            if not overwrite:
                raise
            self._foreign = True

    def path(self, name: str) -> Path:
        """Path of a part."""
        return self.folder / f"{name}{SUFFIX}"

    def load(self, name: str, read: Callable[[dict[str, Tensor], dict[str, Any]], T]) -> T | None:
        """Read a part; None if it is missing, damaged or of another run.

        Parameters
        ----------
        name : str
            As given to `save`.
        read : callable
            (tensors, metadata) -> T; raises ValueError if they are not what the caller saved.
        """
        if self._foreign or not self.path(name).is_file():
            return None
        try:
            tensors, metadata = load_tensors(self.path(name))
            return read(tensors, metadata) if metadata.pop(STAMP, "") == self._stamp(name) else None
        except ValueError:
            return None

    def save(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Write a part; the first one removes parts of another run.

        Parameters
        ----------
        name : str
            The file is named after it.
        tensors : mapping of str to Tensor
            Of any shapes.
        metadata : mapping of str to Any
            In JSON types, without the key "part".

        Raises
        ------
        ValueError
            If the part cannot be written, or the folder was removed since the last part.
        """
        file = self.folder / IDENTITY
        if not self._begun:
            if self._foreign:
                self.clear()
            write_json(file, self._identity)
            self._begun = True
        elif not file.is_file():
            raise ValueError(f"{self.folder} was removed or emptied by another program; run again")
        save_tensors(self.path(name), tensors, {**(metadata or {}), STAMP: self._stamp(name)})

    def clear(self) -> None:
        """Remove all parts, and the folder unless it holds other files."""
        for file in [*self._files(), self.folder / IDENTITY]:
            file.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()
        self._begun = self._foreign = False

    def discard(self) -> None:
        """Ignore all parts, of this run too; the first part that is saved removes them."""
        self._foreign = True

    @property
    def discarded(self) -> bool:
        """Whether the parts on disk count as none."""
        return self._foreign

    def _stamp(self, name: str) -> str:
        return hashlib.sha256(json.dumps([self._identity, name]).encode()).hexdigest()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{SUFFIX}"))


def refuse_other_run(
    folder: str | os.PathLike[str], identity: Mapping[str, Any], partly: bool = False
) -> None:
    """Refuse the parts of a run of another identity.

    Parameters
    ----------
    folder : path-like
        Of `Parts`; it may be missing.
    identity : mapping
        As in `Parts`.
    partly : bool
        Compare the given keys alone.

    Raises
    ------
    ValueError
        If the folder holds such parts; the message names the difference.
    """
    file = Path(folder) / IDENTITY
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        kept = {key: kept.get(key) for key in (identity if partly else kept.keys())}
    except FileNotFoundError:
        if partly:
            return
        raise ValueError(f"{folder} holds files without their {IDENTITY}; {REMEDY}") from None
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"{file} is damaged or of another program; {REMEDY}") from None
    if change := difference(kept, json.loads(json.dumps(dict(identity)))):
        raise ValueError(f"{folder} holds the results of another run: {change}; {REMEDY}")
