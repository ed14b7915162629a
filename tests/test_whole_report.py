import html
import json
import re
import shlex
import shutil
import subprocess

import cli_helpers
import pandas
import pytest
import torch
from cli_helpers import one_line
from test_report import Checker

from faigfast.cli import main
from faigfast.data import Degradation, write_image
from faigfast.findings.report import Page

one_thread, files = cli_helpers.one_thread, cli_helpers.files
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SMALL = ["--learned", "4", "--predicted", "4", "--iterations", "2", "--quiet"]


@pytest.fixture(scope="module")
def folder(files, tmp_path_factory):
    """A report on two photographs of six crops of 60×60, interrupted once."""
    generator = torch.Generator().manual_seed(6)
    for source in ("larger", "teaching"):
        for name in ("first", "second"):
            image = torch.rand(3, 120, 180, generator=generator)
            write_image(files / source / f"{name}.png", image)
    folder = tmp_path_factory.mktemp("report")
    patch = pytest.MonkeyPatch()
    patch.chdir(files)
    argv = ["report", "a.pth", "b.safetensors", "--gt", "larger", "--train", "teaching"]
    argv += ["--output", str(folder), "--crop", "60", "--steps", "2", *SMALL]
    try:
        with patch.context() as inner:

            def stopped(*_):
                raise KeyboardInterrupt

            inner.setattr("faigfast.findings.sections.filters.channel_importance", stopped)
            assert main(argv) == 130
        assert not (folder / "report.html").exists()
        states = {p: p.stat().st_mtime_ns for p in folder.rglob("state.pth")}
        parts = {p: p.stat().st_mtime_ns for p in (folder / "parts").iterdir()}
        assert states and len(parts) > 40
        assert main(argv) == 0
        for path, changed in {**states, **parts}.items():
            if path.name != "findings.json":
                assert path.stat().st_mtime_ns == changed, f"{path.name} was computed again"
    finally:
        patch.undo()
    return folder


def test_one_page_that_needs_nothing_else(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    checker = Checker(text)
    allowed = re.compile(r"data:image/png;base64,|#")
    assert all(allowed.match(address) for address in checker.addresses)
    assert len(text) < 10_000_000 and checker.tags.count("svg") >= 9
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", text)
    for word in ("Masking", "locations", "Modulation", "prediction", "Retraining", "levels", "lie"):
        assert any(word in heading for heading in headings), word
    assert "Left out" not in text
    assert all(f'href="#part-{n}"' in text for n in range(1, len(headings) + 1))
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_every_part_has_its_command(folder):
    from faigfast.cli import build_parser

    text = (folder / "report.html").read_text(encoding="utf-8")
    commands = re.findall(r'<p class="command"><code>(.*?)</code>', text)
    names = {c.split()[1] for c in commands}
    wanted = "mask locations modulate predict retrain overlap distribution prune report"
    assert names == set(wanted.split())
    for command in commands:
        words = command.replace("&#x27;", "").split()[1:]
        options = build_parser().parse_args(words)[words[0]]
        assert (options.baseline, options.target) == ("a.pth", "b.safetensors")
        assert options.crop == 60


def test_tables_stand_beside_the_page(folder):
    names = {path.stem for path in folder.glob("*.csv")}
    assert names == {path.stem for path in folder.glob("*.parquet")}
    wanted = "masking masking-areas masking-units locations modulation retraining levels overlap"
    assert set(wanted.split()) | {"distribution", "changes", "channels", "pair"} <= names
    masking = pandas.read_csv(folder / "masking.csv")
    assert {"faig", "input", "signed", "random"} <= set(masking.method)
    assert {"SSIM of Y", "output difference, authors' form"} <= set(masking.columns)
    content = json.loads((folder / "report.json").read_text())
    assert content["command"].startswith("faigfast report a.pth") and content["seconds"] > 0


# The section's command and one of its tables.
GIVES = {
    "mask": "masking",
    "locations": "locations",
    "modulate": "modulation",
    "predict": "prediction-by-correlation",
    "retrain": "retraining",
    "overlap": "overlap",
    "distribution": "distribution",
    "prune": "channels",
}


def gives_its_numbers(folder, name, output):
    """Run a command as the page prints it, and compare its table with the report's."""
    text = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    commands = re.findall(r'<p class="command"><code>(.*?)</code>', text)
    command = next(c for c in commands if c.split()[1] == name)
    assert main([*shlex.split(command)[1:], "--output", str(output), "--quiet"]) == 0
    one, other = (pandas.read_csv(f / f"{GIVES[name]}.csv") for f in (output, folder))
    pandas.testing.assert_frame_equal(one, other, rtol=1e-3)


@pytest.mark.parametrize("name", GIVES)
def test_a_command_of_the_page_gives_its_numbers(folder, files, tmp_path, monkeypatch, name):
    monkeypatch.chdir(files)
    gives_its_numbers(folder, name, tmp_path / "x")


def browse(page, tmp_path, *more):
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    flags += " --disable-background-networking --disable-component-update --disable-sync"
    return subprocess.run(
        [BROWSER, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}",
         "--enable-logging=stderr", *more, f"file://{page}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="no headless browser here: the page is parsed alone")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page(folder, tmp_path, width):
    page = tmp_path / "page.html"
    # What a reader may do: sort a table; then measure whether anything sticks out.
    probe = """<script>
      const table = document.querySelectorAll("table")[2], head = table.tHead.rows[0].cells;
      head[head.length - 1].click(); head[2].click();
      const sorted = [...table.tBodies[0].rows].map((r) => parseFloat(r.cells[2].textContent));
      const root = document.documentElement;
      root.dataset.sorted = sorted.every((v, n) => !n || !(v > sorted[n - 1]));
      root.dataset.wide = document.body.scrollWidth > window.innerWidth;
      root.dataset.empty = [...document.images].filter((i) => i.complete && !i.naturalWidth).length;
    </script></body>"""
    text = (folder / "report.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", probe), encoding="utf-8")
    run = browse(page, tmp_path, f"--window-size={width},2000", "--dump-dom")
    root = re.search(r"<html[^>]*>", run.stdout)[0]
    assert 'data-ready="yes"' in root and "data-error" not in root
    assert 'data-sorted="true"' in root and 'data-wide="false"' in root, root
    assert 'data-empty="0"' in root
    assert "CONSOLE" not in run.stderr, run.stderr


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
    assert list(rows.truth) == ["all", "weak", "strong"]
    assert "--lq weak=weak strong=strong" in text
    for name in GIVES.keys() - {"retrain"}:
        gives_its_numbers(tmp_path, name, tmp_path / name)


def test_a_table_knows_words_from_numbers(tmp_path):
    page = Page("t")
    page.table(["a", "b", "c"], [["x", "word", "1"], ["y", "other", "–"]])
    page.save(tmp_path / "t.html")
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert '<th class="words">b</th><th>c</th>' in text and '<td class="words">word</td>' in text
