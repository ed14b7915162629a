"""Networks of ncnn: a text `.param` file of layers and a `.bin` file of weights."""

import os
import stat
from pathlib import Path

from faigfast.io.regular_file import regular_file, shown
from faigfast.zoo.ncnn.network import (
    NcnnNetwork,
    check_same_graph,
    read_network,
    write_network,
)
from faigfast.zoo.ncnn.param_file import BINARY_MAGIC, EXPECTED, MAGIC

__all__ = ["NcnnNetwork", "check_same_graph", "is_ncnn", "read_network", "write_network"]

SUFFIX = ".param"
FLAGS = (b"Gk0\x01", b"\0\0\0\0", b"\x56\xc0\x02\0", b"8K\r\0")  # first bytes of a .bin file


def is_ncnn(path: Path) -> bool:
    """Whether a file is the `.param` file of an ncnn network, by its suffix or its first bytes.

    Raises
    ------
    FileNotFoundError
        If there is no such `.param` file.
    ValueError
        If the file holds the weights alone or is a binary `.param.bin`, or if a `.param` file is
        no regular file.
    """
    if path.suffix.lower() == SUFFIX:
        regular_file(path, "file", EXPECTED)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(8)
    except (OSError, ValueError):  # the reader of checkpoints names the fault
        return path.suffix.lower() == SUFFIX
    if head.startswith(BINARY_MAGIC):
        raise ValueError(
            f"{shown(path)} is a binary .param.bin file of ncnn, which lacks the layers' names; "
            f"expected {EXPECTED}"
        )
    if path.suffix.lower() == ".bin" and head.startswith(FLAGS):
        raise ValueError(
            f"{shown(path)} holds weights of ncnn without the layers; expected {EXPECTED}, such as "
            f"{shown(path.with_suffix(SUFFIX))}"
        )
    return path.suffix.lower() == SUFFIX or head.startswith(str(MAGIC).encode())
