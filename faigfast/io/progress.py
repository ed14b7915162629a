"""Progress bars on stderr that a lost terminal does not stop."""

import sys
from contextlib import suppress
from typing import Any

from tqdm import tqdm


class _Patient:
    """stderr, or nothing where there is none; what cannot be written is dropped.

    An error of a write would leave tqdm's lock held, and the next bar would wait for it.
    """

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def progress_bar(*items: Any, **options: Any) -> tqdm:
    """Make a bar of tqdm; arguments are tqdm's."""
    return tqdm(*items, file=_Patient(), **options)
