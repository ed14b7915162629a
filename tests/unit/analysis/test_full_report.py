import base64
import html
import io
import json
import re
import shlex
import sys
from collections import defaultdict
from functools import cache

import pandas
import pytest
import torch
from cases import command_line
from cases.analysis import small_pair
from cases.command_line import one_line
from cases.tables import check_files
from PIL import Image
from test_report import Checker

from faigfast import attribute
from faigfast.analysis.contrasts import one_against_rest
from faigfast.analysis.data_frames import NO_PARQUET
from faigfast.analysis.evaluation import crops
from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.prediction_trials import LEVELS
from faigfast.analysis.report import builder, full_report
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections import ability, use
from faigfast.analysis.report.sections.material import Material
from faigfast.analysis.study import Study
from faigfast.cli.main import build_parser, main
from faigfast.data import Degradation, write_image

one_thread, files = command_line.one_thread, command_line.files
SMALL = ["--learned", "4", "--predicted", "4", "--iterations", "2", "--quiet"]


@pytest.fixture(scope="module", autouse=True)
def quick_commands():
    """One parser, and files of figures without content: `report/test_paper_figures.py` draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faigfast.cli.main.build_parser", cache(build_parser))
        patch.setattr(
            "faigfast.analysis.report.paper.content", lambda figure, suffix: suffix.encode()
        )
        yield


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    """A report on two photographs of six crops of 24×24, interrupted once."""
    generator = torch.Generator().manual_seed(6)
    for source in ("larger", "teaching"):
        for name in ("first", "second"):
            image = torch.rand(3, 48, 72, generator=generator)
            write_image(files / source / f"{name}.png", image)
    folder = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.chdir(files)
    argv = ["report", "a.pth", "b.safetensors", "--gt", "larger", "--train", "teaching"]
    argv += ["--output", str(folder), "--crop", "24", "--steps", "2", *SMALL]
    argv += ["--figures", "pdf", "png"]
    try:
        with patch.context() as inner:

            def stopped(*_):
                raise KeyboardInterrupt

            inner.setattr("faigfast.analysis.report.sections.filters.channel_importance", stopped)
            assert main(argv) == 130
        assert not (folder / "report.html").exists()
        states = {p: p.stat().st_mtime_ns for p in folder.rglob("state.part")}
        parts = {p: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()}
        assert states and len(parts) > 40
        assert main(argv) == 0
        for path, changed in {**states, **parts}.items():
            if path.name != "run.json":
                assert path.stat().st_mtime_ns == changed, f"{path.name} was computed again"
    finally:
        patch.undo()
    return folder


def test_one_page_that_needs_nothing_else(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    checker = Checker(text)
    allowed = re.compile(r"data:image/png;base64,|#")
    assert all(allowed.match(address) for address in checker.addresses)
    assert len(text) < 10_000_000
    kinds = re.findall('data-kind="(.*?)"', text)
    assert len(kinds) >= 8 and set(kinds) == {"curves", "bars", "matrix", "layers", "channels"}
    assert 'class="conclusion"' in text and 'class="browser"' in text and 'class="dial"' in text
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    for word in ("Masking", "locations", "Modulation", "prediction", "Retraining", "levels", "lie"):
        assert any(word in heading for heading in headings), word
    assert "Left out" not in text
    assert all(f'href="#part-{n}"' in text for n in range(1, len(headings) + 1))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_every_part_has_its_command(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    commands = re.findall(r'<p class="command"><code>(.*?)</code>', text)
    names = {c.split()[1] for c in commands}
    wanted = "mask locations modulate predict retrain overlap distribution prune report"
    assert names == set(wanted.split())
    parser = build_parser()
    for command in commands:
        words = command.replace("&#x27;", "").split()[1:]
        options = parser.parse_args(words)[words[0]]
        assert (options.baseline, options.target) == ("a.pth", "b.safetensors")
        assert options.crop == 24


def test_figures_for_papers_stand_in_their_folder(folder):
    words = (
        "losses photographs masking-curves masking-differences locations modulation-curves "
        "modulation-images modulation-grid confusion-by-overlap confusion-by-correlation "
        "confusion-by-neighbour retraining overlap layers kernels-blur kernels-noise channels"
    )
    wanted = words.split()
    names = {path.name for path in (folder / "figures").iterdir()}
    ends = ("-column.pdf", "-column.png", "-page.pdf", "-page.png", ".txt")
    assert names == {stem + end for stem in wanted for end in ends}
    listed = json.loads((folder / "report.json").read_text())["files"]
    assert {f"figures/{name}" for name in names} <= set(listed)
    for stem in wanted:
        caption = (folder / "figures" / f"{stem}.txt").read_text()
        assert "Command: faigfast report a.pth" in caption and len(caption) > 200, stem
        assert "crops" in caption or "images" in caption, stem


def test_tables_stand_beside_the_page(folder):
    names = {path.stem for path in folder.glob("*.csv")}
    for name in names:
        check_files(folder / name)
    assert names == {path.stem for path in folder.glob("*.parquet")}
    wanted = "masking masking-areas masking-units locations modulation retraining levels overlap"
    assert set(wanted.split()) | {"distribution", "changes", "channels", "pair"} <= names
    masking = pandas.read_csv(folder / "masking.csv")
    assert {"faig", "input", "signed", "random"} <= set(masking.method)
    assert {"ssim_y", "difference_authors", "undone"} <= set(masking.metric)
    content = json.loads((folder / "report.json").read_text())
    ends = ("csv", "parquet", "rows.json", "columns.json")
    data_files = {f"{name}.{end}" for name in names for end in ends}
    files = {file for file in content["files"] if not file.startswith("figures/")}
    assert files == data_files | {"report.html"} and content["notes"] == []
    assert content["command"].startswith("faigfast report a.pth") and content["seconds"] > 0


MATCHES = ("overlap", "correlation", "neighbour")
# "begin … end" of a command on the page → tables it writes, as name or (name in report, name).
GIVES = {
    "mask": ["masking", "masking-areas", "completeness"],
    "mask … channel": ["units"],
    "mask … layer": ["units"],
    "locations": ["locations"],
    "modulate": ["modulation"],
    "modulate … 1.5": [("modulation", "modulation-grid")],
    "predict": [f"{what}-by-{m}" for m in MATCHES for what in ("prediction", "confusion")],
    "retrain": ["retraining"],
    "overlap": ["overlap", "levels"],
    "distribution": ["distribution", "changes"],
    "prune": ["channels"],
}


def command_of(folder, which):
    """Words of the page's first command with this begin and end."""
    text = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    commands = re.findall(r'<p class="command"><code>(.*?)</code>', text)
    start, _, end = which.partition(" … ")
    return next(w for w in map(shlex.split, commands) if w[1] == start and w[-1].endswith(end))[1:]


def gives_its_numbers(folder, which, output):
    """Run a command from the page and compare its tables with the report's."""
    words = command_of(folder, which)
    assert main([*words, "--output", str(output), "--quiet"]) == 0
    for names in GIVES[which]:
        here, there = (names, names) if isinstance(names, str) else names
        if here == "units":
            same_units(output, folder, words[-1])
            continue
        one, other = (pandas.read_csv(f / f"{n}.csv") for f, n in ((output, here), (folder, there)))
        # Margins are differences of scores: without AVX they differ by rounding, up to 3e-3.
        margin = one["metric"] == "mean_margin" if "metric" in one else []
        rtol = 5e-3 if any(margin) else 1e-3
        pandas.testing.assert_frame_equal(one, other, rtol=rtol)


def same_units(output, folder, by):
    """The report has a row for each row of the command's table."""
    unit_rows = pandas.read_csv(folder / "masking-units.csv")
    masked = pandas.read_csv(output / "masking.csv")
    rows = unit_rows[unit_rows.by == by].to_dict("records")
    control = set() if by == "layer" else {SAME_LAYERS}
    assert {row["method"] for row in rows} == {"faig", "random", *control}
    for row in rows:
        filters = (
            masked.contrast.isna()
            if row["method"] == "random"
            else (masked.contrast == row["contrast"])
        )
        same = masked[(masked.method == row["method"]) & filters & (masked.metric == "undone")]
        same = same[(same.fraction == row["fraction"]) & (same.degradation == row["degradation"])]
        (one,) = same.to_dict("records")
        for name in ("masked_fraction", "value", "ci95_low", "ci95_high"):
            assert one[name] == pytest.approx(row[name], rel=1e-3, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", GIVES)
def test_a_command_of_the_page_gives_its_numbers(folder, files, tmp_path, monkeypatch, name):
    monkeypatch.chdir(files)
    gives_its_numbers(folder, name, tmp_path / "x")


def test_sections_that_cannot_be_are_left_out_and_say_so(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files)
    generator = torch.Generator().manual_seed(8)
    write_image(files / "single" / "one.png", torch.rand(3, 72, 72, generator=generator))
    argv = ["report", "a.pth", "b.safetensors", "--gt", "single", "--degrade", "noise=0.1"]
    argv += ["--output", str(tmp_path / "x"), "--crop", "36", "--steps", "2", *SMALL]
    assert main(argv) == 0
    text = (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    assert "Left out: it needs photographs to train on" in text
    assert "Left out: it needs two photographs" in text
    capsys.readouterr()
    assert main([*argv, "--predicted", "1"]) == 1
    assert "predicted is 1" in one_line(capsys)
    assert main([*argv, "--crop", "12", "--output", str(tmp_path / "y")]) == 1
    assert "border 2 leaves less than 11 pixels of crops of 12×12" in one_line(capsys)


def test_a_report_on_folders_of_degraded_images(files, tmp_path, monkeypatch):
    monkeypatch.chdir(files)
    generator = torch.Generator().manual_seed(9)
    for name in ("one", "two"):
        gt = torch.rand(3, 40, 60, generator=generator)
        write_image(files / "truth" / f"{name}.png", gt)
        for folder, sigma in (("weak", 0.05), ("strong", 0.2)):
            write_image(files / folder / f"{name}.png", Degradation(noise=sigma)(gt[None])[0])
    argv = ["report", "a.pth", "b.safetensors", "--gt", "truth", "--lq", "weak=weak"]
    argv += ["strong=strong", "--output", str(tmp_path), "--crop", "20", "--steps", "2", *SMALL]
    argv += ["--contrast", "mine=strong:"]
    assert main(argv) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Left out: it needs photographs to train on" in text
    rows = pandas.read_csv(tmp_path / "prediction-by-neighbour.csv")
    assert list(rows.degradation.unique()) == ["all", "weak", "strong"]
    assert "--lq weak=weak strong=strong" in text
    for name in ("mask", "locations", "modulate", "predict", "distribution", "prune"):
        gives_its_numbers(tmp_path, name, tmp_path / name)


@pytest.mark.slow
def test_recipes_and_contrasts_of_ones_own_go_through_all_parts(
    files, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(files)
    argv = ["report", "a.pth", "b.safetensors", "--gt", "larger", "--train", "teaching"]
    argv += ["--output", str(tmp_path), "--crop", "24", "--steps", "2", *SMALL]
    argv += ["--degrade", "mist-1=blur=1", "mist-4=blur=4", "fog=noise=0.3"]
    argv += ["--contrast", "fog", "mist-4", "sharp=mist-4:mist-1"]
    assert main(argv) == 0
    text = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "blur-2" not in text and "Left out" not in text
    names = ["mist-1", "mist-4", "fog"]
    predicted = pandas.read_csv(tmp_path / "prediction-by-overlap.csv")
    assert list(predicted.degradation.unique()) == ["all", *names]
    levels = pandas.read_csv(tmp_path / "levels.csv")
    assert levels[["degradation", "level", "other_level"]].values.tolist() == [["mist", 1, 4]]
    overlap = pandas.read_csv(tmp_path / "overlap.csv")
    assert overlap[["contrast", "other_contrast"]].values.tolist() == [
        names[:2],
        names[::2],
        names[1:],
    ]
    contrast_overlap = pandas.read_csv(tmp_path / "overlap-of-contrasts.csv")
    pairs = [["fog", "mist-4"], ["fog", "sharp"], ["mist-4", "sharp"]]
    assert contrast_overlap[["contrast", "other_contrast"]].values.tolist() == pairs
    assert "not retrained: sharp" in text
    assert set(pandas.read_csv(tmp_path / "retraining.csv").degradation) == {"fog", "mist-4"}
    for name in ("modulate … 1.5", "predict", "retrain", "overlap"):
        gives_its_numbers(tmp_path, name, tmp_path / name)
    words = command_of(tmp_path, "overlap … mist-1")
    assert main([*words, "--output", str(tmp_path / "y"), "--quiet"]) == 0
    one = pandas.read_csv(tmp_path / "y" / "overlap.csv")
    pandas.testing.assert_frame_equal(one, contrast_overlap, rtol=1e-3)


# Size of the page, and notes about missing parts


def many_degradations(folder, size=144):
    """Material of a report with ten degradations and incompressible crops."""
    nets = small_pair()
    generator = torch.Generator().manual_seed(5)
    images = {f"p{n}": torch.rand(3, size, size, generator=generator) for n in range(3)}
    data = crops(images, {name: Degradation.parse(r, 2) for name, r in LEVELS.items()}, size)
    part = {name: x[:1, :, :8, :8] for name, x in data.lq.items()}
    given = attribute(*nets, {"lq": part, "gt": data.gt[:1, :, :16, :16]}, steps=1)
    contrasts = one_against_rest(list(LEVELS))[:5]  # contrasts cost most, and five are enough
    study = Study(*nets, data, data, 2, contrasts, given=given)
    return Material(study, folder, defaultdict(str), data, data)


@pytest.mark.slow
def test_a_page_of_ten_degradations_stays_small(tmp_path, one_thread):
    material, page = many_degradations(tmp_path), Page("t")
    ability.restored_photographs(page, material)
    # Input, pair, three masked sets, random ones, ground truth.
    assert page.html().count("<img") == 3 * 3 * 8
    use.modulation(page, material)
    text = page.html()
    assert len(text) < 7_500_000
    assert text.count("not shown: blur-3, noise-0.05.") == 2
    side = material.shown_side
    assert 100 < side < 144 and f"the middle {side}×{side} pixels of crops of 144×144" in text
    png = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", text)[1])
    assert Image.open(io.BytesIO(png)).size == (side, side)


def test_long_tables_are_shown_in_part(tmp_path):
    page, material = Page("t"), many_degradations(tmp_path, 16)
    material.put(page, "long", pandas.DataFrame({"a": range(1500)}))
    text = page.html()
    assert text.count("<tr>") == 1001 and "first 1000 of 1500 rows" in text
    (saved,) = re.findall(r'</table><script type="application/json">(.*?)</script>', text)
    assert json.loads(saved).splitlines() == ["a", *map(str, range(1500))]  # for machines, all rows
    assert len(pandas.read_csv(tmp_path / "long.csv")) == 1500


def test_a_page_says_what_it_lacks(tmp_path, monkeypatch):
    def section(page, material):
        material.put(page, "numbers", pandas.DataFrame({"a": [1]}))

    monkeypatch.setattr(full_report, "SECTIONS", {"one": section})
    material = many_degradations(tmp_path, 16)
    assert full_report.write_full_report(material, "t", "c")[1] == []
    monkeypatch.setattr(builder, "MOST_BYTES", 2000)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "numbers.parquet").unlink()
    material.files.clear()
    _, notes = full_report.write_full_report(material, "t", "c")
    assert notes[0] == NO_PARQUET and "more than 0.002" in notes[1]
    text = html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "pip install 'faigfast[report]'" in text and "more than 0.002" in text
    assert material.files == [f"numbers.{end}" for end in ("csv", "rows.json", "columns.json")]


def test_a_table_knows_words_from_numbers(tmp_path):
    page = Page("t")
    page.table(["a", "b", "c"], [["x", "word", "1"], ["y", "other", "–"]])
    page.save(tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert (
        '<th scope="col" class="words">b</th><th scope="col">c</th>' in text
        and '<td class="words">word</td>' in text
    )
