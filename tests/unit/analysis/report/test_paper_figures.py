"""Figures for papers: width, size of text, fonts, letters, captions and style."""

import itertools
import re
from dataclasses import replace
from functools import cache

import pytest
import torch

pytest.importorskip("matplotlib")
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.dial_result import DIAL, INTERPOLATION, Candidate, DialResult
from faigfast.analysis.locations import EXPERIMENTS, Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.prediction_trials import PredictionTrial
from faigfast.analysis.report import captioned
from faigfast.analysis.report.drawing import COLOURS, colours
from faigfast.analysis.report.paper import (
    STYLE,
    FigureFiles,
    PaperFigure,
    content,
    paper_style,
    read_style,
    svg,
)
from faigfast.analysis.retraining import Retraining
from faigfast.filters.dial import Dial
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex

CROPS = torch.tensor([-0.3, 0.0, 0.1, 0.2])
INPUTS = ("blur", "noise", "jpeg-30")
METHODS = ("faig", "input", "change", "relative", "gradient", "magnitude", "signed")
LAYERS = [
    "conv_first",
    *(f"body.{n}.residual_group.conv{k}" for n in range(12) for k in (1, 2)),
    "upsampler.conv_last",
]
ABOUT = "4 crops of 48×48 from one photograph."


def psnrs(level):
    return {name: level + n + CROPS for n, name in enumerate(INPUTS)}


def masking_result():
    """Seven methods and the controls on three contrasts, with a network that is broken."""
    fractions = (0.01, 0.03, 0.1)
    masked = [
        Measurement(name, f, f, {"psnr": psnrs(29.5 - 20 * f - 0.1 * n)}, method, 10)
        for name in INPUTS
        for n, method in enumerate(("gradient", *METHODS, SAME_LAYERS))
        for f in fractions
    ]
    masked += [
        Measurement("random", f, f, {"psnr": psnrs(29.9 - 5 * f)}, "random", 10) for f in fractions
    ]
    masked += [  # curves that leave the axis
        Measurement("noise", 0.2, 0.2, {"psnr": psnrs(15.0)}, method, 10) for method in METHODS
    ]
    broken = Measurement("blur", 0.2, 0.2, {"psnr": psnrs(10.0)}, "faig", 10)
    pair = {"baseline": {"psnr": psnrs(27.0)}, "target": {"psnr": psnrs(30.0)}}
    contrasts = tuple(Contrast(name, name) for name in INPUTS)
    return Masking(pair, (*masked, broken), contrasts, ("a", "a", "b", "b"))


def location_results():
    levels = [29.0, 28.0, 33.0, 10.0, 27.5, 20.0, 26.8, 29.9, 28.2]
    values = dict(zip(EXPERIMENTS, levels, strict=True)) | {"baseline": 27.0, "target": 30.0}
    by_name = {name: {"psnr": psnrs(level)} for name, level in values.items()}
    return [Locations(name, name, 216, by_name) for name in INPUTS]


def retraining_results():
    levels = {
        "baseline": 27, "target": 30, "discovered": 29, "random": 28, SAME_LAYERS: 28.4, "all": 29.8
    }  # fmt: skip
    values = {name: {"psnr": psnrs(level)} for name, level in levels.items()}
    return [Retraining(name, 10, values, ("a",) * 4, {}) for name in INPUTS]


def dial_results():
    strengths = (0.0, 0.5, 1.0)
    curve = {s: {"psnr": psnrs(27 + 3 * s)} for s in strengths}
    filters = FilterSet(torch.tensor([0, 5]))
    chosen = Candidate(0.1, filters, None, 0.0)
    dial = object.__new__(Dial)
    object.__setattr__(dial, "name", "noise")
    contrast = Contrast("noise", "noise")
    ways = {DIAL: curve, INTERPOLATION: curve, SAME_LAYERS: curve}
    return [DialResult(dial, contrast, "blur", (), chosen, 0.6, ways, ("a", "a", "b", "b"))]


def all_figures():
    """A figure of every kind, with many names and long ones."""
    generator = torch.Generator().manual_seed(0)
    index = FilterIndex(tuple(f"{name}.weight" for name in LAYERS), ((4, 4, 3, 3),) * len(LAYERS))
    sets = {
        name: FilterSet(torch.randperm(len(index), generator=generator)[:40]) for name in INPUTS
    }
    image = torch.rand(3, 12, 12, generator=generator)
    kernels = [
        (f"body.{n}.conv 1,2", *torch.randn(2, 3, 3, generator=generator)) for n in range(12)
    ]
    labels = tuple(f"{name}-{level}" for name in ("blur", "noise", "both") for level in (1, 2, 30))
    trial = PredictionTrial(labels, labels, labels[::-1], (0.1,) * 9, ("a",) * 9, "overlap")
    many = [f"degradation {n}" for n in range(16)]
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    curves = Modulation(
        INPUTS[:2],
        tuple((s, 1.0) for s in strengths) + tuple((1.0, s) for s in strengths[:-1]),
        tuple({"psnr": psnrs(28 + s)} for s in (*strengths, *strengths[:-1])),
    )
    masking = masking_result()
    differing = replace(
        masking,
        masked=tuple(
            replace(m, values=m.values | {"difference": m.values["psnr"]}) for m in masking.masked
        ),
    )
    strips = [
        {f"{name} input": image, **{f"{name} × {s:g}": image for s in strengths}}
        for name in INPUTS[:2]
    ]
    scores = {name: torch.rand(16, generator=generator) for name in LAYERS}
    grid = {name: [[image] * 7] * 7 for name in INPUTS[:2]}
    return {
        "masking": captioned.masking_figure(masking, ABOUT),
        "differences": captioned.masking_figure(differing, ABOUT, "difference"),
        "demo": captioned.demo_figure(masking, ABOUT),
        "modulation": captioned.modulation_figure(curves, ABOUT),
        "strengths": captioned.strengths_figure(strips, ABOUT),
        "grid": captioned.grid_figure(grid, strengths, ("blur", "noise"), ABOUT),
        "locations": captioned.location_figure(location_results(), ABOUT),
        "retraining": captioned.retraining_figure(retraining_results(), ABOUT),
        "confusion": captioned.confusion_figure(trial, ABOUT),
        "overlap": captioned.overlap_figure(torch.rand(16, 16), many, 0.01, ABOUT),
        "layers": captioned.layers_figure(sets, index, ABOUT),
        "kernels": captioned.kernels_figure("blur", kernels, ABOUT),
        "channels": captioned.channels_figure(scores, ABOUT),
        "dial": captioned.dial_figure(dial_results(), ABOUT),
    }


FIGURES = all_figures()
ONE_PANEL = ("confusion", "overlap", "kernels", "channels")


def drawn(figure, width, style=None):
    with paper_style(style):
        result = figure.draw(width)
        result.draw_without_rendering()
        result.draw_without_rendering()  # the layout has settled
    return result


@cache
def drawn_once(name, width):
    return drawn(FIGURES[name], width)


def visible_texts(figure):
    """Texts that are drawn: not of hidden axes or of ticks outside the limits."""
    ticks = set()
    for axes in figure.axes:
        for axis, (low, high) in (
            (axes.xaxis, sorted(axes.get_xlim())),
            (axes.yaxis, sorted(axes.get_ylim())),
        ):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high or not axes.axison:
                    ticks |= {tick.label1, tick.label2}
            if not axes.axison:
                ticks.add(axis.label)
    hidden = {t for axes in figure.axes if not axes.get_visible() for t in axes.findobj(Text)}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in ticks | hidden
    ]


@pytest.mark.parametrize("width", [3.3, 6.9])
@pytest.mark.parametrize("name", FIGURES)
def test_texts_have_their_size_and_lie_apart_on_the_canvas(name, width):
    figure = drawn_once(name, width)
    assert figure.get_figwidth() == width and figure.get_figheight() < 9.5
    texts = visible_texts(figure)
    assert len(texts) > 3
    boxes = {text: text.get_window_extent() for text in texts}
    canvas = figure.bbox
    for text, box in boxes.items():
        assert 7 <= text.get_fontsize() <= 9, text
        assert canvas.x0 - 1 <= box.x0 and box.x1 <= canvas.x1 + 1, text
        assert canvas.y0 - 1 <= box.y0 and box.y1 <= canvas.y1 + 1, text
    straight = [text for text in texts if text.get_rotation() % 90 == 0]
    for one, other in itertools.combinations(straight, 2):
        a, b = boxes[one], boxes[other]
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, down) <= 2, (one, other)  # pixels of 1/100 inch
    for legend in figure.legends:
        assert not any(
            legend.get_window_extent().overlaps(axes.get_window_extent())
            for axes in figure.axes
            if axes.get_visible()
        )


@pytest.mark.parametrize("name", FIGURES)
def test_several_panels_have_bold_letters(name):
    figure = drawn_once(name, 6.9)
    letters = [text for text in figure.findobj(Text) if text.get_gid() == "letter"]
    assert all(text.get_fontweight() == "bold" for text in letters)
    marks = [text.get_text() for text in letters]
    assert marks == ([] if name in ONE_PANEL else list("abc")[: max(2, len(marks))])


@pytest.mark.parametrize("name", FIGURES)
def test_captions_are_sentences_that_hold_the_data(name):
    caption = FIGURES[name].caption
    assert ABOUT in caption and caption.endswith(".") and len(caption) > 100
    if name in ("masking", "modulation", "retraining"):
        assert "4 crops" in caption.removesuffix(ABOUT) and "95 % confidence" in caption


def test_files_have_the_widths_fonts_and_captions(tmp_path):
    files = FigureFiles(("pdf", "svg", "png", "pdf"), command="faigfast mask --crop 48")
    names = files.write(tmp_path, "masking curves", FIGURES["retraining"])
    assert names == [
        *(f"masking-curves-{w}.{f}" for w in ("column", "page") for f in ("pdf", "svg", "png")),
        "masking-curves.txt",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    for label, inches in (("column", 3.3), ("page", 6.9)):
        pdf = (tmp_path / f"masking-curves-{label}.pdf").read_bytes()
        box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
        assert float(box[1]) / 72 == pytest.approx(inches, abs=0.005)
        assert b"/FontFile2" in pdf and b"/Type3" not in pdf
        drawing = (tmp_path / f"masking-curves-{label}.svg").read_text()
        assert re.search(r'width="([\d.]+)pt"', drawing)[1] == f"{72 * inches:.1f}".rstrip("0")
        assert "<text" not in drawing and "font-family" not in drawing  # outlines
        png = (tmp_path / f"masking-curves-{label}.png").read_bytes()
        assert int.from_bytes(png[16:20], "big") == pytest.approx(300 * inches, abs=1)
    text = (tmp_path / "masking-curves.txt").read_text()
    assert text == f"{FIGURES['retraining'].caption}\n\nCommand: faigfast mask --crop 48\n"


def test_the_same_figure_has_the_same_bytes():
    with paper_style():
        one, other = (
            [content(FIGURES["overlap"].draw(3.3), suffix) for suffix in ("pdf", "svg", "png")]
            for _ in range(2)
        )
    assert one == other


def test_without_formats_nothing_is_drawn(tmp_path):
    assert FigureFiles(()).write(tmp_path, "a", PaperFigure(pytest.fail, "")) == []
    assert not list(tmp_path.iterdir())


def test_a_style_file_goes_over_ours(tmp_path):
    style = tmp_path / "mine.mplstyle"
    style.write_text(
        "font.size: 9\naxes.labelsize: 9\nsvg.fonttype: none\nfont.family: serif\n"
        "axes.prop_cycle: cycler('color', ['112233', '445566'])\n"
    )
    axes = drawn(FIGURES["modulation"], 3.3, style).axes[0]
    assert axes.xaxis.label.get_fontsize() == 9 and axes.title.get_fontsize() == 8
    assert axes.xaxis.label.get_fontfamily() == ["serif"]
    assert axes.lines[0].get_color() == "#112233"
    FigureFiles(("svg",), style=style).write(tmp_path, "own", FIGURES["modulation"])
    assert "<text" in (tmp_path / "own-page.svg").read_text()
    assert colours(["a", "b"])["a"] == COLOURS[0]  # outside, as before


def test_the_style_of_the_caller_does_not_matter():
    from matplotlib import rc_context, rcParams

    with rc_context({"font.size": 20, "axes.grid": True}):
        with paper_style():
            assert rcParams["font.size"] == 8 and not rcParams["axes.grid"]
        assert rcParams["font.size"] == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("font.sise: 8\n", "Bad key font.sise"),
        ("font.size: large enough\n", "Bad value"),
        ("font.size 8\n", "Missing colon"),
        (b"\xff\xfe\x00", "is no text"),
        (None, "is missing; expected a matplotlib style file"),
    ],
)
def test_wrong_style_files_are_refused(tmp_path, text, message):
    style = tmp_path / "wrong.mplstyle"
    if text is not None:
        style.write_bytes(text if isinstance(text, bytes) else text.encode())
    error = FileNotFoundError if text is None else ValueError
    with pytest.raises(error, match=message) as caught:
        FigureFiles(style=style)
    assert "\n" not in str(caught.value) and str(style) in str(caught.value)


@pytest.mark.parametrize("widths", [(1.0, 6.9), (3.3, 400.0), (float("nan"), 6.9)])
def test_absurd_widths_are_refused(widths):
    with pytest.raises(ValueError, match="expected 2 to 20 inches"):
        FigureFiles(widths=widths)


def test_our_own_style_asks_for_sizes_that_papers_take():
    style = read_style(STYLE)
    sizes = [value for name, value in style.items() if name.endswith("size") and "." in name]
    assert style["pdf.fonttype"] == 42 and style["savefig.dpi"] == 300
    assert {8, 7} <= set(sizes)
    assert "DejaVu" in FontProperties(family=style["font.family"]).get_name()  # in every matplotlib


def test_powers_of_ten_are_drawn_and_dollars_are_kept():
    drawing = svg(drawn(FIGURES["channels"], 6.9))
    assert "mathdefault" not in re.sub("<!--.*?-->", "", drawing)
    odd = captioned.channels_figure({"$a$": torch.tensor([1.0, 1e3])}, ABOUT).draw(3.3)
    labels = svg(odd) and [text for text in odd.findobj(Text) if text.get_text() == "$a$"]
    assert [text.get_parse_math() for text in labels] == [False] * len(labels)
    ticks = [
        text
        for text in odd.findobj(Text)
        if text.get_visible() and "mathdefault" in text.get_text()
    ]
    assert ticks and all(text.get_parse_math() for text in ticks)
