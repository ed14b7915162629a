"""FinishedParts: finished parts of a long run on disk, so that an interrupted run goes on."""

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


class FinishedParts:
    """Keeps parts by name below a folder; without a folder it computes every part again.

    Parameters
    ----------
    folder : path-like, optional
        Parts are kept in its folder `parts`; None keeps nothing.
    made_from : mapping
        Identity that all parts depend on, in JSON types; a folder with parts of another identity
        is refused.
    overwrite : bool
        Remove all parts in the folder instead.

    Raises
    ------
    ValueError
        If the folder holds parts of another run; the message names the difference.
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
        identity = json.loads(json.dumps(dict(made_from or {})))
        file = self.parts / IDENTITY
        if file.exists():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                kept = {}
            change = difference(kept, identity)
            if change and not overwrite:
                raise ValueError(
                    f"{self.parts} holds parts of another run: {change}; choose another --output "
                    "or add --overwrite"
                )
            self.stale = bool(change or overwrite)
        self.identity: dict[str, Any] | None = identity

    def tensors(
        self,
        name: str,
        compute: Callable[[], dict[str, Tensor]],
        keys: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Read the tensors of a part, or compute and keep them; a part has exactly `keys`."""
        path = self._path(name)
        if path is not None and path.exists():
            try:
                tensors = load_file(path)
                if keys is None or tensors.keys() == set(keys):
                    return tensors
            except SafetensorError:
                pass
            path.unlink()  # damaged, so computed again
        tensors = compute()
        if path is not None:
            with atomic_write(path) as temporary:
                save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
        return tensors

    def attribution(self, name: str, compute: Callable[[], Attribution]) -> Attribution:
        """Read an attribution, or compute and keep it."""
        path = self._path(name)
        if path is not None and path.exists():
            try:
                return Attribution.load(path)
            except ValueError:
                path.unlink()
        result = compute()
        if path is not None:
            result.save(path)
        return result

    def _path(self, name: str) -> Path | None:
        if self.parts is None:
            return None
        if self.identity is not None:  # late, so that refused options change nothing
            if self.stale:
                for file in self.parts.glob("*.safetensors"):
                    file.unlink()
            write_json(self.parts / IDENTITY, self.identity)
            self.identity = None
        readable = "".join(c if c.isalnum() or c in ".-" else "-" for c in name)[:60]
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.parts / f"{readable}-{digest}.safetensors"
