"""Files of flat filter indices: the authors' text format, with a header of faigfast's own."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faigfast.filters.index import FilterIndex
from faigfast.io.atomic import checked_path, write_text

MOST_BYTES = 2**28  # of a file of indices: some 25 million filters
LAYER = re.compile(r'# layer ("(?:[^"\\]|\\.)*") (\d{1,9}(?:x\d{1,9})+)')


@dataclass(frozen=True)
class IndexFile:
    """Content of a file of indices.

    Parameters
    ----------
    indices : list of int
        Flat indices, best first, without repetition.
    header : dict of str to str
        Known entries of filters (their number F), index, baseline and target (fingerprints).
    filter_index : FilterIndex, optional
        Layers and shapes of the network; None if the file does not list them.
    """

    indices: list[int]
    header: dict[str, str] = field(default_factory=dict)
    filter_index: FilterIndex | None = None

    @property
    def total(self) -> int | None:
        """Number F of filters of the network."""
        return int(self.header["filters"]) if self.header.get("filters") else None


def write_index_file(path: str | os.PathLike[str], content: IndexFile) -> None:
    """Write one index a line below `#` lines: fingerprints, then the layers where they are known.

    `numpy.loadtxt` and the authors' reader skip the `#` lines.
    """
    words = " ".join(f"{key}={value}" for key, value in content.header.items() if value)
    lines = [f"# faigfast {words}".rstrip()]
    if content.filter_index is not None:
        layers, shapes = content.filter_index.layers, content.filter_index.shapes
        for layer, shape in zip(layers, shapes, strict=True):
            lines.append(f"# layer {json.dumps(layer)} {'x'.join(map(str, shape))}")
    lines += map(str, content.indices)
    write_text(path, "\n".join(lines) + "\n")


def read_index_file(path: str | os.PathLike[str], total: int | None = None) -> IndexFile:
    """Read a file of indices, with or without a header.

    Parameters
    ----------
    path : path-like
        The file.
    total : int, optional
        Number F of filters of the network, for files whose header does not state it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a line repeats an index or holds none within range; the message gives its number.
    """
    path = checked_path(path)
    if not os.path.isfile(path):  # unlike Path.is_file, takes names of any length
        raise FileNotFoundError(f"{path} is not a file; expected filter indices, one a line")
    header = {} if total is None else {"filters": str(total)}
    layers: list[tuple[str, tuple[int, ...]]] = []
    line_of_filter: dict[int, int] = {}
    for number, raw in enumerate(_read_text(path).splitlines(), 1):
        line = raw.strip()
        if line.startswith("# faigfast"):
            header.update(re.findall(r"(filters|index|baseline|target)=(\S*)", line))
            if not re.fullmatch(r"\d{1,18}", header.get("filters", "0")):
                raise ValueError(
                    f"{path}, line {number}: filters={header['filters'][:40]} in the header; "
                    "expected their number"
                )
        elif match := LAYER.fullmatch(line):
            layers.append((json.loads(match[1]), tuple(map(int, match[2].split("x")))))
        elif line and not line.startswith("#"):
            most = int(header["filters"]) if "filters" in header else 2**63
            if not re.fullmatch(r"[0-9]{1,18}", line) or int(line) >= most:
                raise ValueError(
                    f"{path}, line {number}: {line[:40]!r} is not a filter; expected an "
                    f"integer from 0 to {header.get('filters', 'F')} - 1"
                )
            if int(line) in line_of_filter:
                raise ValueError(
                    f"{path}, line {number}: filter {line} stands on line "
                    f"{line_of_filter[int(line)]} already"
                )
            line_of_filter[int(line)] = number
    if not line_of_filter:
        raise ValueError(f"{path} holds no filter index")
    return IndexFile(list(line_of_filter), header, _listed_index(layers))


def _listed_index(layers: Sequence[tuple[str, tuple[int, ...]]]) -> FilterIndex | None:
    if not layers:
        return None
    return FilterIndex(tuple(name for name, _ in layers), tuple(shape for _, shape in layers))


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise ValueError(
                f"{path} has {size} bytes; expected filter indices of at most {MOST_BYTES} bytes"
            )
        return path.read_text()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file of filter indices") from None
    except OSError as problem:
        raise ValueError(f"{path} cannot be read: {problem.strerror or problem}") from None
