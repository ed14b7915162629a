"""Charts hold their data without NaN, name what an axis cuts, and keep one meaning a colour."""

import json

import torch
from cases.analysis import study_parts  # noqa: F401
from cases.report_page import masked

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.locations import Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.report.charts import degradation_series, matrix_chart, method_series
from faigfast.analysis.report.effect_charts import location_chart, masking_chart, method_chart
from faigfast.analysis.report.figures import AXIS_LIMITS, KEPT_LIMITS, location_bars
from faigfast.analysis.report.filter_charts import channel_chart


def test_a_chart_is_json_without_nan():
    shares = torch.tensor([[1.0, torch.nan], [0.5, 1.0]])
    content = matrix_chart("m", shares, ["a", "b"], ["a", "_b"], "t", ("r", "c")).content()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    percents = [row["percent"] for row in content["panels"][0]["rows"]]
    assert percents == [100.0, None, 50.0, 100.0]


def test_no_method_has_the_colour_of_a_degradation():
    methods = ("faig", "input", "signed", "random", SAME_LAYERS)
    of_methods = {one.colour for one in method_series(methods)}
    of_degradations = {one.colour for one in degradation_series(["a", "b"]).values()}
    assert len(of_methods) == 5 and not of_methods & of_degradations


def test_curves_start_at_nothing_and_have_intervals(study_parts):  # noqa: F811
    chart = method_chart(masked(study_parts))
    assert chart.panels[0].title == "blur filters masked, blur input"
    rows = [row for row in chart.panels[0].rows if row["series"] == "faig"]
    assert rows[0]["x"] == 0 and len(rows) == 3
    assert rows[0]["y"] == 0 and all(row["low"] <= row["y"] <= row["high"] for row in rows)
    names = {series.name for series in chart.series}
    assert names == {row["series"] for panel in chart.panels for row in panel.rows}


def test_the_curves_of_the_demo_name_their_filters(study_parts):  # noqa: F811
    chart = masking_chart(masked(study_parts))
    names = [series.name for series in chart.series]
    assert names[0] == "blur filters" and "random of the layers of noise" in names
    assert [line["label"] for line in chart.panels[0].lines] == ["target", "baseline"]


def cut_masking(loss):
    pair = {"baseline": {"psnr": {"a": torch.zeros(2)}}, "target": {"psnr": {"a": torch.ones(2)}}}
    m = Measurement("a", 0.1, 0.1, {"psnr": {"a": torch.ones(2) - loss}}, "signed")
    return Masking(pair, (m,), (Contrast("a", "a"),), ("p", "q"))


def test_a_cut_axis_says_so():
    (panel,) = method_chart(cut_masking(5.0)).panels
    assert panel.domain == AXIS_LIMITS and "signed goes beyond" in panel.note
    (panel,) = method_chart(cut_masking(1.5)).panels
    assert panel.domain is None and panel.note == ""


def kept(share):
    crops = torch.tensor([0.0, 0.4])
    psnr = {"baseline": 20 + crops, "target": 21 + crops, "masked": 20 + share + crops}
    return Locations("a", "a", 3, {n: {"psnr": {"a": v}} for n, v in psnr.items()})


def test_cut_bars_say_so_and_others_have_intervals():
    (panel,) = location_chart([kept(4.0)]).panels
    assert panel.domain == KEPT_LIMITS and "beyond: masked" in panel.note
    (axis,) = location_bars([kept(4.0)]).axes
    assert axis.texts[0].get_text() == "400 % →"
    (panel,) = location_chart([kept(0.5)]).panels
    assert panel.domain is None and panel.rows[0]["low"] <= 50.1
    (axis,) = location_bars([kept(0.5)]).axes
    assert len(axis.containers) == 2 and not axis.texts  # a bar and its interval


def test_channels_are_summed_up_by_quartiles():
    (panel,) = channel_chart({"layer": torch.tensor([4.0, 1.0, 2.0, 3.0, 5.0])}).panels
    row = panel.rows[0]
    assert (row["least"], row["lower quartile"], row["median"], row["most"]) == (1, 2, 3, 5)
