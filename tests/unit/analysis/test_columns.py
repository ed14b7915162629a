"""Columns: entries, the page of the documentation, cells and sidecars."""

import json
import math
import re

import pytest
import torch
from cases.tables import PAGE, SNAKE_CASE, rows, value

from faigfast.analysis.columns import COLUMNS, METRICS, described
from faigfast.analysis.data_frames import (
    brief_names,
    data_frame,
    measured,
    text_table,
    write_data_frame,
)
from faigfast.analysis.evaluation import METRICS as IMAGE_METRICS
from faigfast.analysis.modulation import Modulation, strength_columns

pandas = pytest.importorskip("pandas")


@pytest.mark.parametrize(("title", "entries"), [("Columns", COLUMNS), ("Metrics", METRICS)])
def test_the_page_has_unit_and_meaning_of_each(title, entries):
    section = PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    listed = re.findall(r"(?m)^\| `(\w+)` \| (.*?) \| (.*?) \|$", section)
    assert listed == [(n, c.unit or "words", c.meaning) for n, c in entries.items()]
    assert all(SNAKE_CASE.fullmatch(name) for name in entries)
    assert all(c.meaning and not c.meaning.endswith(".") and c.head for c in entries.values())


def test_every_image_metric_has_an_entry():
    for name in IMAGE_METRICS:
        assert METRICS[name].unit and METRICS[f"{name}_change"].unit


def made():
    return data_frame(
        [
            {"degradation": "blur", "network": "a", **measured("psnr", 27.314, 0.118)},
            {"degradation": "blur", "network": "a", **measured("undone", 0.5, 0.25)},
            {"degradation": "noise", "network": "a", **measured("psnr", math.inf)},
            {"degradation": "noise", "network": "a", "outcome": "broken"}
            | measured("undone", math.nan, math.nan),
        ]
    )


def test_the_printed_form_is_a_pivot():
    head, cells = text_table(made())
    assert head == ["network", "input", "PSNR, dB", "undone, %"]
    assert cells == [
        ["a", "blur", "27.31 ± 0.12", "50.00 ± 25.00"],
        ["a", "noise", "inf", "broken"],
    ]


def test_words_go_across():
    data = made()
    data.attrs["across"] = ["degradation"]
    head, cells = text_table(data)
    assert head == [
        "network", "blur, PSNR, dB", "blur, undone, %", "noise, PSNR, dB", "noise, undone, %",
    ]  # fmt: skip
    assert cells == [["a", "27.31 ± 0.12", "50.00 ± 25.00", "inf", "broken"]]


def test_counts_stay_integers_beside_missing_ones():
    data = data_frame([{"network": "a", "filter_count": 3}, {"network": "b", "filter_count": None}])
    assert str(data["filter_count"].dtype) == "Int64"
    assert [row[1] for row in text_table(data)[1]] == ["3", "–"]


def test_files_have_numbers_and_units(tmp_path):
    data = made()
    parquet = pytest.importorskip("pyarrow.parquet")
    written = write_data_frame(tmp_path / "x", data)
    assert written == [f"x.{end}" for end in ("csv", "rows.json", "columns.json", "parquet")]
    records = json.loads((tmp_path / "x.rows.json").read_text())
    assert records[0]["value"] == 27.314 and records[2]["value"] is None
    assert records[3]["value"] is None and records[3]["outcome"] == "broken"
    sidecar = json.loads((tmp_path / "x.columns.json").read_text())
    assert sidecar == described(data)
    assert sidecar["metrics"]["undone"]["unit"] == "fraction"
    field = parquet.read_schema(tmp_path / "x.parquet").field("value")
    assert field.metadata == {b"unit": b"of the metric", b"meaning": b"Mean, or the only value"}
    again = pandas.read_csv(tmp_path / "x.csv")
    assert value(again, "psnr", degradation="blur") == 27.314
    assert rows(again, "undone", degradation="noise")["value"].isna().all()


def test_files_of_a_table_are_named_once():
    files = ["a.csv", "a.rows.json", "a.columns.json", "b.csv", "b.svg", "a.svg"]
    assert brief_names(files) == "a.{csv,rows.json,columns.json}, b.csv, b.svg, a.svg"


def test_strengths_of_names_that_are_no_columns():
    names = ("blur:noise", "blur-noise", "…")
    assert list(strength_columns(names)) == [
        "strength_blur_noise", "strength_blur_noise_2", "strength_filters",
    ]  # fmt: skip
    data = Modulation(names, ((0.0, 0.5, 1.0),), ({"psnr": {"blur": torch.ones(2)}},)).to_frame()
    strengths = [f"strength of {name}" for name in names]
    assert text_table(data)[0] == ["input", *strengths, "PSNR, dB"]
    assert described(data)["columns"]["strength_blur_noise"]["meaning"].startswith(
        "Strength of the blur:noise filters"
    )
