"""Tables of numbers, and how they are written."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faigfast.io.atomic import atomic_write

if TYPE_CHECKING:
    import pandas

Table = tuple[list[str], list[list[str]]]

NO_PARQUET = "tables are CSV alone; Parquet needs pyarrow: pip install 'faigfast[report]'"


def frame(rows: Sequence[dict[str, Any]]) -> "pandas.DataFrame":
    """Make a table of numbers.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("a table needs pandas: pip install 'faigfast[report]'") from None
    return pandas.DataFrame(list(rows))


def shown(table: "pandas.DataFrame") -> Table:
    """Write a table's numbers as one reads them: three digits beside the largest of a column."""
    columns = []
    for name in table.columns:
        values = table[name].tolist()
        floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
        largest = max(map(abs, floats), default=0.0)
        digits = 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 1 else 3
        columns.append([_cell(value, digits) for value in values])
    return list(map(str, table.columns)), [list(row) for row in zip(*columns, strict=True)]


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def write_table(stem: Path, frame: "pandas.DataFrame") -> list[str]:
    """Write a table as CSV and, where pyarrow is, as Parquet; the names of both.

    `without_parquet` tells what to say where the second is missing.
    """
    with atomic_write(stem.with_name(f"{stem.name}.csv")) as path:
        frame.to_csv(path, index=False)
    files = [f"{stem.name}.csv"]
    try:
        with atomic_write(stem.with_name(f"{stem.name}.parquet")) as path:
            frame.to_parquet(path, index=False)
    except ImportError:
        return files
    return [*files, f"{stem.name}.parquet"]


def without_parquet(files: Sequence[str]) -> list[str]:
    """Say that Parquet was left out, of what `write_table` wrote; nothing where it was not."""
    names = set(files)
    missing = [n for n in files if n.endswith(".csv") and n[:-4] + ".parquet" not in names]
    return [NO_PARQUET] if missing else []
