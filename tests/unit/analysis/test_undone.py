"""Shares of the target's gain, left open where the network is broken or there was no gain."""

import json
import math

import pytest
import torch
from cases.tables import check_files

from faigfast.analysis import demo
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import text_table, write_data_frame
from faigfast.analysis.locations import Locations, locations_data_frame
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.report.figures import location_bars, masking_curves, method_curves
from faigfast.analysis.report.marks import RED
from faigfast.analysis.report.paper import svg
from faigfast.analysis.report.tables import (
    area_sentences,
    masked_networks,
    masked_sets,
    masking_table,
    verdicts,
)
from faigfast.analysis.undone import BROKEN, NEGLIGIBLE, NO_GAIN, gains, undone
from faigfast.io.atomic import write_json

CROPS = torch.tensor([-0.3, 0.0, 0.1, 0.2])
# Baseline and target: a gain on noise, a loss on clean input; PSNR as on the pair.
PAIR = {
    "baseline": {"noise": 26.96 + CROPS, "clean": 33.31 + CROPS},
    "target": {"noise": 29.89 + CROPS, "clean": 31.43 + CROPS},
}
MASKED = {
    ("noise", "faig"): {"noise": 12.37 + CROPS, "clean": 12.59 + CROPS},
    ("clean", "faig"): {"noise": 28.82 + CROPS, "clean": 31.73 + CROPS},
    ("random", "random"): {"noise": 29.86 + CROPS, "clean": 31.40 + CROPS},
    ("noise", SAME_LAYERS): {"noise": 29.3 + CROPS, "clean": 31.5 + CROPS},
    ("clean", SAME_LAYERS): {"noise": 29.8 + CROPS, "clean": 20.0 + CROPS},
}


@pytest.fixture
def masking():
    masked = tuple(
        Measurement(filters, 0.01, 0.01, {"psnr": values}, method, 10)
        for (filters, method), values in MASKED.items()
    )
    contrasts = tuple(Contrast(name, name) for name in ("noise", "clean"))
    pair_values = {name: {"psnr": values} for name, values in PAIR.items()}
    return Masking(pair_values, masked, contrasts, ("a", "a", "b", "b"))


def test_a_share_lies_between_the_two_networks():
    baseline, target = (PAIR[name]["noise"] for name in PAIR)
    assert undone(target, baseline, target).share == pytest.approx(0, abs=1e-6)
    assert undone(baseline, baseline, target).share == pytest.approx(1)
    half = undone((baseline + target) / 2, baseline, target)
    assert (half.share, half.outcome) == (pytest.approx(0.5, abs=1e-4), "")
    assert half.half == pytest.approx(0, abs=1e-3) and half.kept == pytest.approx(0.5, abs=1e-4)
    assert half.text() == "50" and half.text(".1f", " %") == "50.0 %"
    better = undone(target + 0.5, baseline, target)
    assert better.share < 0 and better.outcome == ""


@pytest.mark.parametrize(("below", "outcome"), [(0.5, ""), (1.5, BROKEN), (30.0, BROKEN)])
@pytest.mark.parametrize("gain", [2.0, -2.0])
def test_a_network_below_both_is_broken(below, outcome, gain):
    baseline = 30.0 + CROPS.double()
    worse = min(30.0, 30.0 + gain) - below * NEGLIGIBLE
    one = undone(worse + CROPS.double(), baseline, baseline + gain)
    assert one.outcome == (outcome or ("" if gain > 0 else NO_GAIN))
    assert math.isnan(one.share) == bool(one.outcome)
    if one.outcome:
        assert one.text(".1f") == one.outcome and math.isnan(one.half) and math.isnan(one.kept)


@pytest.mark.parametrize(
    ("gain", "expected"), [(-1.0, False), (0.0, False), (0.05, False), (0.2, True)]
)
def test_a_gain_is_more_than_nothing(gain, expected):
    baseline = torch.full((3,), 30.0)
    assert gains(baseline, baseline + gain) is expected
    one = undone(baseline, baseline, baseline + gain)
    assert one.outcome == ("" if expected else NO_GAIN)


def test_one_crop_has_a_share_without_interval():
    one = undone(*(torch.tensor([value]) for value in (28.0, 27.0, 29.0)))
    assert one.share == 0.5 and math.isnan(one.half)


def test_tables_leave_shares_open_and_say_why(masking, tmp_path):
    pandas = pytest.importorskip("pandas")
    data = masked_networks(masking)
    shares = data[data.metric == "undone"]
    rows = {(r["method"], r["contrast"], r["degradation"]): r for r in shares.to_dict("records")}
    broken = rows["faig", "noise", "noise"]
    assert math.isnan(broken["value"]) and math.isnan(broken["ci95_low"])
    assert broken["outcome"] == BROKEN
    assert rows["faig", "noise", "clean"]["outcome"] == BROKEN
    assert rows["faig", "clean", "clean"]["outcome"] == NO_GAIN
    assert rows["random", "", "noise"]["value"] == pytest.approx(0.03 / 2.93, abs=0.001)
    assert rows["random", "", "noise"]["outcome"] == ""
    assert rows[SAME_LAYERS, "clean", "clean"]["outcome"] == BROKEN
    assert rows["baseline", "", "noise"]["value"] == pytest.approx(1)
    head, cells = text_table(data)
    column = [row[head.index("undone, %")] for row in cells]
    assert column.count(BROKEN) + column.count(NO_GAIN) == shares["value"].isna().sum()
    assert column.count(BROKEN) == 3 and "–" not in column
    write_data_frame(tmp_path / "masking", data)
    read = [check_files(tmp_path / "masking"), pandas.read_parquet(tmp_path / "masking.parquet")]
    read.append(pandas.read_json(tmp_path / "masking.rows.json"))
    for again in read:
        assert again["value"].isna().tolist() == data["value"].isna().tolist()
        assert (again["outcome"] == BROKEN).sum() == 3


def test_given_sets_have_outcomes_too(masking):
    values = {**masking.pair_values, "mine": masking.masked[0].values}
    data = masked_sets(values)
    data = data[data.metric == "undone"]
    assert data[data.network == "mine"]["outcome"].tolist() == [BROKEN, BROKEN]
    assert data[data.network == "target"]["outcome"].tolist() == ["", NO_GAIN]


def test_the_text_table_has_words_for_shares(masking):
    head, rows = masking_table(masking)
    places = [n for n, title in enumerate(head) if title == "undone, %"]
    cells = {row[0]: [row[n] for n in places] for row in rows}
    assert cells["baseline"] == ["100.0", NO_GAIN]
    assert cells["1 % noise masked"] == [BROKEN, BROKEN]
    assert cells["1 % random of the layers of clean masked"] == ["3.1", BROKEN]


def test_verdicts_name_broken_networks_and_both_controls(masking):
    first, second = verdicts(masking)
    assert first == (
        "Masking the top 1 % noise filters breaks the network on noise: 12.37 dB, 14.59 dB below "
        "the worse of baseline and target (random ones: 1 %, random ones of the same layers: "
        "20 %), and it breaks the network on clean: 12.59 dB, 18.84 dB below the worse of "
        "baseline and target."
    )
    assert second == "The target gains nothing over the baseline on clean."
    assert not any("%" in text and "nan" in text for text in (first, second))
    (named,) = [text for text in area_sentences(masking) if text.startswith("clean")]
    assert named.endswith("; but the target gains nothing over the baseline on clean.")


def test_verdicts_leave_out_inputs_without_gain(masking):
    mild = Measurement("noise", 0.01, 0.01, {"psnr": MASKED["clean", "faig"]}, "faig", 10)
    masked = Masking(
        masking.pair_values, (mild, *masking.masked[2:4]), masking.contrasts, ("a",) * 4
    )
    assert verdicts(masked) == [
        "Masking the top 1 % noise filters undoes 37 % of the target's gain on noise (random ones: "
        "1 %, random ones of the same layers: 20 %)."
    ]


def test_figures_cross_broken_networks_out(masking):
    curves = masking_curves(masking)
    crosses = [line for axis in curves.axes for line in axis.lines if line.get_color() == RED]
    assert [len(line.get_xdata()) for line in crosses] == [1, 1, 1]
    labels = [text.get_text() for text in curves.legends[0].get_texts()]
    assert labels.count(BROKEN) == 1
    assert "random of the layers of noise" in labels and "noise filters" in labels
    methods = method_curves(masking)
    crosses = [line for axis in methods.axes for line in axis.lines if line.get_color() == RED]
    assert len(crosses) == 2  # FAIG's on noise, and the control's on clean
    (legend,) = methods.legends
    assert SAME_LAYERS in [text.get_text() for text in legend.get_texts()]
    assert svg(curves).startswith("<svg") and svg(methods).startswith("<svg")


def test_location_experiments_have_outcomes():
    values = {name: {"psnr": psnr} for name, psnr in PAIR.items()}
    values["masked"] = {"psnr": MASKED["noise", "faig"]}
    values["masked, other places"] = {"psnr": MASKED["noise", SAME_LAYERS]}
    part = Locations("noise", "noise", 10, values)
    rows = {(r["network"], r["degradation"]): r for r in part.rows() if r["metric"] == "kept"}
    assert rows["masked", "noise"]["outcome"] == rows["masked", "clean"]["outcome"] == BROKEN
    assert math.isnan(rows["masked", "noise"]["value"])
    kept = rows["masked, other places", "noise"]["value"]
    assert kept == pytest.approx(2.34 / 2.93, abs=0.001)
    assert rows["target", "clean"]["outcome"] == NO_GAIN
    assert len(locations_data_frame([part])) == 4 * 2 * 3
    (axis,) = location_bars([part]).axes
    assert [bar.get_width() > 0 for bar in axis.patches] == [False, True]
    assert BROKEN in [text.get_text() for text in axis.texts]


def test_the_demonstrations_figures_are_json_without_nan(masking, tmp_path):
    figures = demo._figures(masking)
    write_json(tmp_path / "figures.json", figures)
    text = (tmp_path / "figures.json").read_text()
    assert "NaN" not in text
    first, *_, last = json.loads(text)["masked"]
    assert first["undone"] == {"noise": None, "clean": None}
    assert first["outcome"] == {"noise": BROKEN, "clean": BROKEN}
    assert last["method"] == SAME_LAYERS and last["outcome"] == {"clean": BROKEN}
