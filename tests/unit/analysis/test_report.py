import json
import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch

import faigfast.analysis.demo as demo
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import write_csv
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.report.charts import matrix_chart
from faigfast.analysis.report.drawing import COLOURS, colours, data_uri, panels
from faigfast.analysis.report.figures import AXIS_LIMITS, method_curves, methods_beyond_axis
from faigfast.analysis.report.filter_figures import channel_bars, layer_distribution, matrix
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.palette import GRAY
from faigfast.analysis.report.paper import FigureFiles, svg
from faigfast.analysis.report.scenes import Scene, Shot
from faigfast.analysis.report.tables import undone_share
from faigfast.data import KEPT_OUT, photographs
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.result import Attribution


class Checker(HTMLParser):
    VOID = ("meta", "img", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.tags = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_escapes_and_closes_everything(tmp_path):
    page = Page("a < b & c")
    page.heading("<h>")
    page.text("<script>alert(1)</script>", note=True)
    page.code('"quoted"')
    page.badge("<b>", "a < b")
    page.table(["<x>", "y"], [["1 < 2", "3"]])
    page.scene(Scene('"title" > 1', [Shot("<i>", data_uri(torch.rand(3, 4, 4)), '"caption"')], 4))
    page.chart(matrix_chart("m", torch.eye(2), ["</script>", "b"], ["a", "b"], "t", ("r", "c")))
    page.save(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;" in text and "1 &lt; 2" in text
    assert "</script>" not in text.split('application/json">')[1].split("</figure>")[0][:-10]
    assert Checker(text).tags.count("td") == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "page.html"]


def test_colours_are_apart_and_random_is_gray():
    chosen = colours(["a", "random", "b"])
    assert len(set(chosen.values())) == 3 and chosen["random"] not in COLOURS


def test_many_names_have_safe_colours_and_panels_wrap():
    names = [f"degradation {n}" for n in range(12)]
    assert set(colours(names).values()) == {*COLOURS, GRAY}
    figure, axes = panels(5, 6.9, 1.0)
    assert len(axes) == 5 and tuple(figure.get_size_inches()) == (6.9, 2.0)
    assert [axis.get_visible() for axis in figure.axes] == 5 * [True] + [False]


ODD_NAMES = ["$a_b$", "_hidden", "<b>&\"'", "100%", "line\nbreak", "\u202eright to left", "\x01"]


def test_names_with_any_characters_are_drawn():
    scores = {name: torch.tensor([1.0, 3.0]) for name in ODD_NAMES}
    index = FilterIndex(tuple(ODD_NAMES), ((2, 2, 1, 1),) * len(ODD_NAMES))
    sets = {name: FilterSet(torch.tensor([0, 5])) for name in ODD_NAMES}
    square = torch.rand(len(ODD_NAMES), len(ODD_NAMES))
    for figure in (
        channel_bars(scores),
        layer_distribution(sets, index),
        matrix(square, ODD_NAMES, ODD_NAMES, ("of", "also in")),
    ):
        drawn = svg(figure)
        ElementTree.fromstring(drawn)
        from matplotlib.text import Text

        texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
        assert any("$a_b$" in text for text in texts)
        assert any("\N{ZERO WIDTH SPACE}_hidden" in text for text in texts)


def test_cells_of_a_csv_are_no_formulas(tmp_path):
    pandas = pytest.importorskip("pandas")
    names = ["=1+1", "@SUM(A1)", "-2", "fine", *ODD_NAMES]
    frame = pandas.DataFrame({"layer": names, "+score": [-1.5] * len(names)})
    write_csv(tmp_path / "a.csv", frame)
    again = pandas.read_csv(tmp_path / "a.csv")
    assert list(again.columns) == ["layer", "'+score"] and (again["'+score"] == -1.5).all()
    assert list(again["layer"][:4]) == ["'=1+1", "'@SUM(A1)", "'-2", "fine"]
    assert list(again["layer"][4:]) == ODD_NAMES


def test_bars_of_channels_are_sorted_within_their_layer():
    scores = {"thin": torch.tensor([1.0, 3.0]), "wide": torch.tensor([0.5, 0.1, 2.0, 9.0])}
    axis = channel_bars(scores).axes[0]
    heights = [patch.get_data().values.tolist() for patch in axis.patches]
    torch.testing.assert_close(torch.tensor(heights[1]), torch.tensor([9.0, 2.0, 0.5, 0.1]))
    assert heights[0] == [3.0, 1.0] and axis.get_yscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["thin", "wide"]
    assert channel_bars({"one": torch.tensor([0.0, 2.0])}).axes[0].get_yscale() == "log"
    assert channel_bars({"one": torch.tensor([-1.0, 2.0])}).axes[0].get_yscale() == "symlog"
    assert svg(channel_bars({"zero": torch.zeros(3)})).startswith("<svg")


def test_curves_that_leave_the_picture_are_named():
    pair_values = {
        "baseline": {"psnr": {"a": torch.zeros(2)}},
        "target": {"psnr": {"a": torch.ones(2)}},
    }
    lost = {"faig": 1.0, "signed": 2.5, "change": -0.3, "input": 1.9}
    masked = tuple(
        Measurement("a", 0.1, 0.1, {"psnr": {"a": torch.ones(2) - loss}}, method)
        for method, loss in lost.items()
    )
    masking = Masking(pair_values, masked, (Contrast("a", "a"),), ("p", "q"))
    assert methods_beyond_axis(masking) == {"a": ["signed", "change"]}
    (axis,) = method_curves(masking).axes
    assert axis.get_ylim() == (AXIS_LIMITS[0], AXIS_LIMITS[1])
    assert axis.texts[0].get_text().endswith(": signed, change")
    masking.pair_values["target"]["psnr"]["a"] -= 2
    assert methods_beyond_axis(masking) == {}


def test_the_interval_of_an_undone_share_is_the_bootstraps():
    generator = torch.Generator().manual_seed(1)
    gain = 3 + torch.randn(40, generator=generator).double()
    lost = 0.7 * gain + 0.4 * torch.randn(40, generator=generator).double()
    share, half = undone_share(lost, gain)
    assert share == pytest.approx(float(lost.sum() / gain.sum()))
    draws = torch.randint(40, (4000, 40), generator=generator)
    shares = lost[draws].sum(1) / gain[draws].sum(1)
    assert half == pytest.approx(1.96 * float(shares.std()), rel=0.1)
    assert undone_share(0.5 * gain, gain) == pytest.approx((0.5, 0.0))
    assert all(map(math.isnan, undone_share(lost, -gain)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Output of the demonstration on pieces of the photographs."""
    patch = pytest.MonkeyPatch()
    pieces = {name: image[:, 100:196, 150:246] for name, image in photographs(KEPT_OUT).items()}
    patch.setattr(demo, "photographs", lambda names: pieces if names == KEPT_OUT else {})
    patch.setattr(demo, "CROP", 48)
    patch.setattr(demo, "SHOWN_CROP", 64)
    folder = tmp_path_factory.mktemp("demo")
    try:
        figures = FigureFiles(("png",), command="faigfast demo")
        report = demo.run_demo(folder, steps=3, progress=False, figures=figures)
        assert report == folder / "report.html"
    finally:
        patch.undo()
    return folder


def test_demo_writes_a_page_that_needs_nothing_else(folder, capsys):
    text = (folder / "report.html").read_text(encoding="utf-8")
    checker = Checker(text)
    assert all(re.match(r"data:image/png;base64,|#", address) for address in checker.addresses)
    # A row of six images for each degradation and photograph, and the strip on top.
    assert checker.tags.count("img") == 6 * (2 * 4 + 1)
    assert re.findall('data-kind="(.*?)"', text) == ["curves", "layers"]
    assert 'class="browser"' in text and 'class="conclusion"' in text
    assert len(text) < 10_000_000
    for content in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
        json.loads(content)


def test_demo_writes_figures_and_attribution(folder):
    numbers = json.loads((folder / "figures.json").read_text())
    assert len(numbers["masked"]) == 4 * (3 + 2)
    methods = [one["method"] for one in numbers["masked"][:5]]
    assert methods == ["faig", "faig", "random", SAME_LAYERS, SAME_LAYERS]
    first = numbers["masked"][0]
    base, full, now = (
        part["blur"][0] for part in (numbers["baseline"], numbers["target"], first["psnr"])
    )
    assert first["undone"]["blur"] == pytest.approx((full - now) / (full - base))
    result = Attribution.load(folder / "attribution.safetensors")
    assert result.degradations == ("blur", "noise") and result.evaluations == 3
    assert (folder / "masking.png").stat().st_size > 10_000


def test_demo_writes_figures_for_papers(folder):
    names = {path.name for path in (folder / "figures").iterdir()}
    ends = ("-column.png", "-page.png", ".txt")
    assert names == {n + end for n in ("photographs", "masking-curves", "layers") for end in ends}
    for name in names:
        content = (folder / "figures" / name).read_bytes()
        assert content.endswith(b"Command: faigfast demo\n") or content.startswith(b"\x89PNG")


def test_layer_distribution_counts_every_filter(folder):
    result = Attribution.load(folder / "attribution.safetensors")
    tops = {name: result.top(name, 0.05) for name in result.degradations}
    figure = layer_distribution(tops, result.index)
    for axis, name in zip(figure.axes, result.degradations, strict=True):
        heights = [round(bar.get_height()) for bar in axis.patches]
        assert sum(heights) == len(result.top(name, 0.05))
        located = [result.index.locate(k)[0] for k in result.top(name, 0.05).indices.tolist()]
        assert heights == [located.count(layer) for layer in result.index.layers]
    assert svg(figure).startswith("<svg")
