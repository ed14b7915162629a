"""Finished parts of a long run on disk, so that a run that was killed goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from faigfast.io.atomic import atomic_write, write_json
from faigfast.io.differences import difference
from faigfast.result import Attribution

PARTS = "parts"
IDENTITY = "findings.json"


class Store:
    """Keeps parts by name below a folder, or nothing where there is none.

    Parameters
    ----------
    folder : path-like, optional
        Parts are kept in its folder `parts`; None: everything is computed each time.
    made_from : mapping
        What every part follows from, in JSON's types; a folder with parts of something else is
        refused.
    overwrite : bool
        Remove those parts instead.

    Raises
    ------
    ValueError
        If the folder holds parts of another run, saying what differs.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        made_from: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.parts = None if folder is None else Path(folder) / PARTS
        self.stale = False
        if self.parts is None:
            return
        wanted = json.loads(json.dumps(dict(made_from or {})))
        identity = self.parts / IDENTITY
        if identity.exists():
            try:
                found = json.loads(identity.read_text(encoding="utf-8"))
            except ValueError:
                found = {}
            change = difference(found, wanted)
            if change and not overwrite:
                raise ValueError(
                    f"{self.parts} holds parts of another run: {change}; choose another --output "
                    "or add --overwrite"
                )
            self.stale = bool(change or overwrite)
        self.wanted: dict[str, Any] | None = wanted

    def tensors(
        self,
        name: str,
        compute: Callable[[], dict[str, Tensor]],
        keys: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Read the tensors of a part, or compute and keep them; others than `keys` are no part."""
        path = self._path(name)
        if path is not None and path.exists():
            try:
                found = load_file(path)
                if keys is None or found.keys() == set(keys):
                    return found
            except SafetensorError:
                pass
            path.unlink()  # damaged: computed again
        found = compute()
        if path is not None:
            with atomic_write(path) as temporary:
                save_file({key: value.contiguous() for key, value in found.items()}, temporary)
        return found

    def attribution(self, name: str, compute: Callable[[], Attribution]) -> Attribution:
        """Read an attribution, or compute and keep it."""
        path = self._path(name)
        if path is not None and path.exists():
            try:
                return Attribution.load(path)
            except ValueError:
                path.unlink()
        found = compute()
        if path is not None:
            found.save(path)
        return found

    def _path(self, name: str) -> Path | None:
        if self.parts is None:
            return None
        if self.wanted is not None:  # not before: what is refused until then leaves all as it was
            if self.stale:
                for file in self.parts.glob("*.safetensors"):
                    file.unlink()
            write_json(self.parts / IDENTITY, self.wanted)
            self.wanted = None
        readable = "".join(c if c.isalnum() or c in ".-" else "-" for c in name)[:60]
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.parts / f"{readable}-{digest}.safetensors"
