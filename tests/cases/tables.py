"""Look-ups in tables of metrics, and what every table promises."""

import json
import re
from pathlib import Path

import pandas

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tables.md"
SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def rows(data, metric, **where):
    """Rows of a metric in which these columns have these values; an empty word matches NaN."""
    chosen = data["metric"] == metric
    for name, wanted in where.items():
        chosen &= (
            data[name].fillna("") == wanted if isinstance(wanted, str) else data[name] == wanted
        )
    return data[chosen]


def value(data, metric, **where):
    """The only value."""
    return float(rows(data, metric, **where)["value"].item())


def half(data, metric, **where):
    """Half width of the only interval."""
    row = rows(data, metric, **where)
    return float((row["ci95_high"] - row["ci95_low"]).item()) / 2


def documented(name):
    """Columns of a table on the page of the documentation; those in brackets may be missing."""
    listed = dict(re.findall(r"(?m)^\| `([\w…-]+)` \| (.*) \|$", PAGE.read_text()))
    name = re.sub(r"-by-\w+$", "-by-…", name)
    text = listed[name]
    text = listed[text.removeprefix("as ").strip("`")] if text.startswith("as ") else text
    optional = re.findall(r"`([\w…]+)`", " ".join(re.findall(r"\(.*?\)", text)))
    return re.findall(r"`([\w…]+)`", text), optional


def check_documented(name, columns):
    """The page lists the columns of a table, in their order."""
    wanted, optional = documented(name)
    seen = dict.fromkeys("strength_…" if c.startswith("strength_") else c for c in columns)
    assert list(seen) == [c for c in wanted if c in seen or c not in optional], name


def check_files(stem: Path):
    """Read CSV, Parquet and JSON of a table with its sidecar; give the data frame of the CSV."""
    one = pandas.read_csv(f"{stem}.csv")
    other = pandas.read_parquet(f"{stem}.parquet")
    content = json.loads(
        Path(f"{stem}.rows.json").read_text(),
        parse_constant=lambda word: 1 / 0,  # NaN is no JSON
    )
    sidecar = json.loads(Path(f"{stem}.columns.json").read_text())
    names = list(one.columns)
    assert list(other.columns) == names == list(sidecar["columns"])
    assert len(one) == len(other) == len(content)
    assert all(SNAKE_CASE.fullmatch(name) for name in names)
    assert all(entry["meaning"] for entry in sidecar["columns"].values())
    check_documented(stem.name, names)
    numbers = [n for n in one.select_dtypes("number") if one[n].notna().any()]
    for row in content[:20]:
        assert list(row) == names
        assert all(isinstance(row[n], int | float | None) for n in numbers)
    for name in numbers:
        assert sidecar["columns"][name]["unit"], name
    for name in (n for n in names if n.endswith("fraction")):
        assert one[name].dropna().between(0, 1).all()
    if "metric" in names:
        metrics = sidecar["metrics"]
        assert set(metrics) == set(one["metric"])
        assert all(entry["unit"] and entry["meaning"] for entry in metrics.values())
        known = one.dropna(subset=["value", "ci95_low", "ci95_high"])
        slack = 1e-9 * known["value"].abs().clip(lower=1)
        assert (known["ci95_low"] <= known["value"] + slack).all()
        assert (known["value"] <= known["ci95_high"] + slack).all()
        keys = [n for n in names if n not in ("value", "ci95_low", "ci95_high", "outcome")]
        assert not one.duplicated(keys).any()
    return one
