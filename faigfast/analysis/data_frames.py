"""Data frames, and how they are printed and written."""

import math
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faigfast.analysis.columns import COUNT, FRACTION, LABEL, METRICS, Column, column, described
from faigfast.io.atomic import atomic_write, write_json
from faigfast.io.pandas_module import pandas_module

if TYPE_CHECKING:
    import pandas

# Head and rows, every cell as text.
TextTable = tuple[list[str], list[list[str]]]

MEASURED = ("metric", "value", "ci95_low", "ci95_high", "outcome")  # the last columns
CROPS, PHOTOGRAPHS = "crops", "photographs"  # what an interval is over
TABLE_FILES = ("csv", "rows.json", "columns.json", "parquet")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is computed
NO_PARQUET = "tables are CSV and JSON alone; Parquet needs pyarrow: pip install 'faigfast[report]'"


def data_frame(
    rows: Sequence[dict[str, Any]],
    *,
    across: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> "pandas.DataFrame":
    """Make a data frame, one row a dict, with columns and metrics of `faigfast.analysis.columns`.

    Parameters
    ----------
    rows : sequence of dict
        In a table of metrics each row has one metric; see `measured`.
    across : sequence of str
        Columns that become columns of their own for each word in them, where it is printed.
    names : mapping of str to str, optional
        Column to the name that it is called by where it is printed.

    Raises
    ------
    ImportError
        If pandas is not installed.
    """
    pandas = pandas_module()
    data = pandas.DataFrame(list(rows))
    for name in data.columns:
        if column(name).unit == COUNT and data[name].isna().any():
            data[name] = data[name].astype("Int64")  # else pandas makes floats of its integers
    if "outcome" in data:
        data["outcome"] = data["outcome"].fillna("")
    last = [name for name in MEASURED if name in data]
    data = data[[*(name for name in data.columns if name not in last), *last]]
    data.attrs = {"across": list(across), "names": dict(names or {})}
    return data


def measured(metric: str, value: float, half: float = math.nan) -> dict[str, Any]:
    """Cells of a metric: its value, and the ends of the interval of this half width around it."""
    return {
        "metric": metric,
        "value": float(value),
        "ci95_low": value - half,
        "ci95_high": value + half,
    }


def text_table(data: "pandas.DataFrame") -> TextTable:
    """Write a data frame as it is printed: fractions in %, a column a metric, values ± half widths.

    Numbers have three digits of a column's largest. A share that is left open is its outcome.
    """
    if "metric" not in data:
        cells = {name: data[name].tolist() for name in map(str, data.columns)}
        columns = [_words(values, column(name, data)) for name, values in cells.items()]
        heads = [column(name, data).head for name in cells]
        return heads, [list(row) for row in zip(*columns, strict=True)]
    across = [name for name in data.attrs.get("across", ()) if name in data]
    keys = [name for name in map(str, data.columns) if name not in (*MEASURED, *across)]
    rows: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[str, Any]]] = {}
    for record in data.to_dict("records"):
        key = tuple(None if _missing(record[name]) else record[name] for name in keys)
        place = (*(record[name] for name in across), record["metric"])
        rows.setdefault(key, {})[place] = record
    if keys[0] == "degradation" and ("contrast" in keys or _changes_fastest(list(rows))):
        keys = [*keys[1:], keys[0]]
        rows = {(*key[1:], key[0]): values for key, values in rows.items()}
    places = list(dict.fromkeys(place for values in rows.values() for place in values))
    if across:  # metrics of one word stand together
        order = list(dict.fromkeys(place[:-1] for place in places))
        places.sort(key=lambda place: order.index(place[:-1]))
    columns = [_words([key[n] for key in rows], column(name, data)) for n, name in enumerate(keys)]
    digits = {name: _metric_digits(data, name) for name in dict.fromkeys(data["metric"])}
    columns += [
        _values([values.get(place) for values in rows.values()], place[-1], digits[place[-1]])
        for place in places
    ]
    heads = [column(name, data).head for name in keys]
    heads += [_head(dict(zip(across, place, strict=False)), place[-1]) for place in places]
    return heads, [list(row) for row in zip(*columns, strict=True)]


def _changes_fastest(keys: Sequence[tuple[Any, ...]]) -> bool:
    """Whether the second row differs from the first in the first cell alone."""
    return len(keys) > 1 and keys[0][0] != keys[1][0] and keys[0][1:] == keys[1][1:]


def _head(words: Mapping[str, str], metric: str) -> str:
    """Head of a metric, with the words of the columns that are printed across."""
    head = METRICS[metric].head
    for name, word in words.items():
        if name == "interval":
            head += "" if word == CROPS or METRICS[metric].unit == COUNT else f", over {word}"
        elif name == "predicted_degradation":
            head = f"taken for {word}, {head}"
        else:
            head = f"{word}, {head}"
    return head


def _words(values: Sequence[Any], of: Column) -> list[str]:
    """Write cells that are no measurements."""
    if of.unit == LABEL:
        return ["–" if _missing(value) else f"{value:g}" for value in values]
    scale = 100 if of.unit == FRACTION else 1
    values = [scale * v if isinstance(v, float) else v for v in values]
    digits = _digits(values)
    return [_cell(value, digits) for value in values]


def _metric_digits(data: "pandas.DataFrame", metric: str) -> int:
    """Decimals of a metric, the same in all columns."""
    unit, values = METRICS[metric].unit, data["value"][data["metric"] == metric]
    return 0 if unit == COUNT else _digits((values * (100 if unit == FRACTION else 1)).tolist())


def _values(records: Sequence[Mapping[str, Any] | None], metric: str, digits: int) -> list[str]:
    """Write measurements with their intervals, or their outcomes."""
    scale = 100 if METRICS[metric].unit == FRACTION else 1
    numbers = [
        [scale * (record or {}).get(name, math.nan) for name in ("value", "ci95_low", "ci95_high")]
        for record in records
    ]
    known = [(value - low, high - value) for value, low, high in numbers if math.isfinite(low)]
    even = all(math.isclose(down, up, rel_tol=1e-3, abs_tol=1e-9) for down, up in known)
    cells = []
    for record, (value, low, high) in zip(records, numbers, strict=True):
        outcome = (record or {}).get("outcome")
        named = math.isnan(value) and isinstance(outcome, str) and outcome
        text = named or _cell(value, digits)
        if math.isfinite(low):
            half = (high - low) / 2
            rounded = f"{half:.{digits}f}"
            shown = rounded if float(rounded) or not half else f"{half:.1g}"
            ends = f" ({_cell(low, digits)} to {_cell(high, digits)})"
            text += f" ± {shown}" if even else ends
        cells.append(text)
    return cells


def _digits(values: Sequence[Any]) -> int:
    """Decimals that show three digits of the largest number."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v)]
    largest = max(map(abs, floats), default=0.0)
    return 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 1 else 3


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or value != value


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if _missing(value):
        return "–"
    if not isinstance(value, float):
        return str(value)
    if value and abs(value) < 10**-digits:
        return f"{value:.1g}" if abs(value) >= 1e-4 else f"{value:.1e}"
    return f"{value:.{digits}f}"


def csv_text(data: "pandas.DataFrame") -> str:
    """Write a data frame as CSV; no cell is a formula to a spreadsheet."""

    def literal(cell: Any) -> Any:
        formula = isinstance(cell, str) and cell.startswith(FORMULAS)
        return f"'{cell}" if formula else cell

    data = data.rename(columns=literal)
    for name in data.select_dtypes(exclude="number"):
        cells = [literal(cell) for cell in data[name]]
        if any(map(operator.is_not, cells, data[name])):  # else its integers stay integers
            data[name] = cells
    return str(data.to_csv(index=False))


def write_csv(path: Path, data: "pandas.DataFrame") -> None:
    """Write a file of `csv_text`."""
    path.write_text(csv_text(data), encoding="utf-8", newline="")


def write_columns(path: Path, data: "pandas.DataFrame") -> None:
    """Write units and meanings of a table's columns and metrics as JSON."""
    write_json(path, described(data))


def write_data_frame(stem: Path, data: "pandas.DataFrame") -> list[str]:
    """Write a data frame as CSV, JSON and, with pyarrow, Parquet; return the file names.

    Units and meanings of the columns stand in NAME.columns.json, and in the fields of Parquet.
    NAME.rows.json has one object a row; missing numbers are null. `without_parquet` words the note
    for a missing Parquet file.
    """
    with atomic_write(stem.with_name(f"{stem.name}.csv")) as path:
        write_csv(path, data)
    write_json(stem.with_name(f"{stem.name}.rows.json"), _records(data))
    write_columns(stem.with_name(f"{stem.name}.columns.json"), data)
    files = [f"{stem.name}.{end}" for end in TABLE_FILES[:-1]]
    try:
        with atomic_write(stem.with_name(f"{stem.name}.parquet")) as path:
            _write_parquet(path, data)
    except ImportError:
        return files
    return [*files, f"{stem.name}.parquet"]


def _records(data: "pandas.DataFrame") -> list[dict[str, Any]]:
    """One dict a row in JSON types; numbers that are missing or infinite are None."""

    def plain(value: Any) -> Any:
        no_number = _missing(value) or (isinstance(value, float) and math.isinf(value))
        return None if no_number else value

    columns = [[plain(v) for v in data[name].tolist()] for name in data.columns]
    names = list(map(str, data.columns))
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _write_parquet(path: Path, data: "pandas.DataFrame") -> None:
    """Write Parquet; each field has its unit and meaning in its metadata."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pandas(data, preserve_index=False)
    fields = []
    for field in table.schema:
        of = column(field.name, data)
        fields.append(field.with_metadata({"unit": of.unit, "meaning": of.meaning}))
    schema = pyarrow.schema(fields, metadata=table.schema.metadata)
    parquet.write_table(table.cast(schema), path)


def without_parquet(files: Sequence[str]) -> list[str]:
    """Note that `write_data_frame` left Parquet out; empty where it did not."""
    names = set(files)
    missing = [n for n in files if n.endswith(".csv") and n[:-4] + ".parquet" not in names]
    return [NO_PARQUET] if missing else []


def brief_names(files: Sequence[str]) -> str:
    """List file names, those of one table together.

    Examples
    --------
    >>> brief_names(["a.csv", "a.rows.json", "a.columns.json", "a.svg"])
    'a.{csv,rows.json,columns.json}, a.svg'
    """
    names: dict[str, list[str]] = {}
    for file in files:
        stem, _, end = file.partition(".")
        of_table = end in TABLE_FILES and f"{stem}.columns.json" in files
        names.setdefault(stem if of_table else file, []).append(end)
    return ", ".join(
        name if name in files else f"{name}.{{{','.join(ends)}}}" for name, ends in names.items()
    )
