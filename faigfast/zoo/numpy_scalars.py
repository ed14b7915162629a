"""Numbers of numpy in PyTorch files, read without numpy's own unpickling."""

from contextlib import AbstractContextManager
from typing import Any

import numpy
import torch

KINDS = "biufc"  # boolean, signed, unsigned, floating and complex numbers
MAX_BYTES = 32  # of a number


class NumberType:
    """Replaces `numpy.dtype` while a file is read: a kind of number, a size and a byte order."""

    def __init__(self, text: str, align: bool = False, copy: bool = True) -> None:
        if not (isinstance(text, str) and text[:1] in KINDS and text[1:].isdecimal()):
            raise ValueError(f"its numpy.dtype is {str(text)[:20]!r}; expected a number's")
        if len(text) > 3 or not 0 < int(text[1:]) <= MAX_BYTES:
            raise ValueError(
                f"its numpy.dtype is {text[:20]!r}; expected at most {MAX_BYTES} bytes"
            )
        self.text, self.order = text, "="

    def __setstate__(self, state: Any) -> None:
        """Take the byte order, the second item of what numpy stores."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise ValueError("its numpy.dtype has no byte order")
        self.order = order


def number(kind: NumberType, content: bytes) -> Any:
    """Give a number of numpy, in place of numpy's function `scalar` while a file is read.

    Raises
    ------
    ValueError
        If the kind is unknown, or the content does not have its size.
    """
    if not isinstance(kind, NumberType) or not isinstance(content, bytes):
        raise ValueError("its number of numpy is no number")
    return numpy.frombuffer(content, numpy.dtype(kind.order + kind.text), 1)[0]


def numbers_allowed() -> AbstractContextManager[Any]:
    """Let `torch.load` read numbers of numpy inside, in the pickles of numpy 1 and 2."""
    stands_for: list[Any] = [
        (number, "numpy.core.multiarray.scalar"),
        (number, "numpy._core.multiarray.scalar"),
        (NumberType, "numpy.dtype"),
    ]
    return torch.serialization.safe_globals(stands_for)
