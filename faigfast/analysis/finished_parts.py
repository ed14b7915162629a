"""FinishedParts: parts of an analysis that are read from disk, or computed and kept."""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from faigfast.io.parts import Parts
from faigfast.result import Attribution

T = TypeVar("T")
PARTS = "parts"


def options_text(options: Mapping[str, Any]) -> str:
    """Write options for the name of a part; a function by its name, since its address changes."""

    def text(value: Any) -> Any:
        return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__code__") else value

    return str(sorted((name, text(value)) for name, value in options.items()))


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
        self._parts = None
        if folder is not None:
            self._parts = Parts(Path(folder) / PARTS, made_from or {}, overwrite)
            if overwrite:
                self._parts.discard()

    def tensors(
        self,
        name: str,
        compute: Callable[[], dict[str, Tensor]],
        keys: Collection[str] | None = None,
    ) -> dict[str, Tensor]:
        """Read the tensors of a part, or compute and keep them; a part has exactly `keys`."""

        def read(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> dict[str, Tensor]:
            if keys is not None and tensors.keys() != set(keys):
                raise ValueError(f"a part holds {', '.join(tensors)}; expected {', '.join(keys)}")
            return tensors

        return self._kept(name, compute, read, lambda tensors: (tensors, {}))

    def attribution(self, name: str, compute: Callable[[], Attribution]) -> Attribution:
        """Read an attribution, or compute and keep it."""
        return self._kept(name, compute, Attribution.from_tensors, Attribution.to_tensors)

    def _kept(
        self,
        name: str,
        compute: Callable[[], T],
        read: Callable[[dict[str, Tensor], dict[str, Any]], T],
        content: Callable[[T], tuple[dict[str, Tensor], dict[str, Any]]],
    ) -> T:
        if self._parts is None:
            return compute()
        readable = "".join(c if c.isalnum() or c in ".-" else "-" for c in name)[:60]
        file = f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        result = self._parts.load(file, read)
        if result is None:
            result = compute()
            self._parts.save(file, *content(result))
        return result
