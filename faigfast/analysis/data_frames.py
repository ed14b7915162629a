"""Data frames, and how they are printed and written."""

import math
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faigfast.io.atomic import atomic_write

if TYPE_CHECKING:
    import pandas

# Head and rows, every cell as text.
TextTable = tuple[list[str], list[list[str]]]

FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is computed
NO_PARQUET = "tables are CSV alone; Parquet needs pyarrow: pip install 'faigfast[report]'"


def data_frame(rows: Sequence[dict[str, Any]]) -> "pandas.DataFrame":
    """Make a data frame, one row a dict.

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


def text_table(data: "pandas.DataFrame") -> TextTable:
    """Write every cell as text, with three digits of a column's largest number."""
    columns = []
    for name in data.columns:
        values = data[name].tolist()
        floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
        largest = max(map(abs, floats), default=0.0)
        digits = 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 1 else 3
        columns.append([_cell(value, digits) for value in values])
    return list(map(str, data.columns)), [list(row) for row in zip(*columns, strict=True)]


def _cell(value: Any, digits: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 10**-digits:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def write_csv(path: Path, data: "pandas.DataFrame") -> None:
    """Write a data frame as CSV; no cell is a formula to a spreadsheet."""

    def literal(cell: Any) -> Any:
        formula = isinstance(cell, str) and cell.startswith(FORMULAS)
        return f"'{cell}" if formula else cell

    data = data.rename(columns=literal)
    for name in data.select_dtypes(exclude="number"):
        cells = [literal(cell) for cell in data[name]]
        if any(map(operator.is_not, cells, data[name])):  # else its integers stay integers
            data[name] = cells
    data.to_csv(path, index=False)


def write_data_frame(stem: Path, data: "pandas.DataFrame") -> list[str]:
    """Write a data frame as CSV and, with pyarrow, as Parquet; return the file names.

    `without_parquet` words the note for a missing Parquet file.
    """
    with atomic_write(stem.with_name(f"{stem.name}.csv")) as path:
        write_csv(path, data)
    files = [f"{stem.name}.csv"]
    try:
        with atomic_write(stem.with_name(f"{stem.name}.parquet")) as path:
            data.to_parquet(path, index=False)
    except ImportError:
        return files
    return [*files, f"{stem.name}.parquet"]


def without_parquet(files: Sequence[str]) -> list[str]:
    """Note that `write_data_frame` left Parquet out; empty where it did not."""
    names = set(files)
    missing = [n for n in files if n.endswith(".csv") and n[:-4] + ".parquet" not in names]
    return [NO_PARQUET] if missing else []
