"""Options of figures: every command takes them, and wrong ones are refused early."""

import json

import pytest
from cases import command_line
from cases.command_line import attribute

from faigfast.analysis.report.paper import STYLE
from faigfast.cli.main import main

pytest.importorskip("matplotlib")
one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

SHIPPED = (
    "mask", "modulate", "predict", "retrain", "locations", "overlap", "distribution", "prune",
    "dial", "report", "demo",
)  # fmt: skip
REQUIRED = {"attribute": ["a", "b", "--gt", "g", "--output", "o"]}
NONE_BY_DEFAULT = ("report", "demo", "attribute")


@pytest.mark.parametrize("command", [*SHIPPED, "attribute"])
def test_every_command_with_figures_takes_the_options(parser, command):
    argv = [command, *REQUIRED.get(command, [])]
    default = parser.parse_args(argv)[command]
    assert default.figures == ([] if command in NONE_BY_DEFAULT else ["svg"])
    assert default.figure_widths == [3.3, 6.9] and default.style is None
    given = ["--figures", "pdf", "svg", "png", "--figure-widths", "3.25", "6.875", "--style", "s"]
    options = parser.parse_args([*argv, *given])[command]
    assert options.figures == ["pdf", "svg", "png"] and options.figure_widths == [3.25, 6.875]
    assert options.style == "s"


def test_an_unknown_format_is_refused(parser, capsys):
    with pytest.raises(SystemExit):
        main(["mask", "--figures", "jpg"])
    assert "jpg" in capsys.readouterr().err


@pytest.mark.parametrize("command", [*SHIPPED, "attribute"])
def test_a_missing_style_is_refused_before_anything_is_computed(command, here, files, capsys):
    argv = (
        [command, "--output", str(here)]
        if command in SHIPPED
        else attribute(here, "--degrade", "blur=1")
    )
    assert main([*argv, "--style", "missing.mplstyle", "--quiet"]) == 1
    message = "missing.mplstyle is missing; expected a matplotlib style file"
    assert message in capsys.readouterr().err
    assert not list(here.rglob("*"))


def test_style_prints_the_style(capsys):
    assert main(["style"]) == 0
    assert capsys.readouterr().out == STYLE.read_text()


def test_attribute_draws_layers_kernels_and_losses(here, files, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(
        "faigfast.analysis.report.paper.content",
        lambda figure, suffix: drawn.append(figure.get_figwidth()) or suffix.encode(),
    )
    argv = attribute(here, "--degrade", "blur=blur=1", "noise=noise=0.1")
    assert main([*argv, "--figures", "pdf", "--figure-widths", "3", "7"]) == 0
    stems = ("kernels-blur", "kernels-noise", "layers", "losses")
    expected = {f"{s}{end}" for s in stems for end in ("-column.pdf", "-page.pdf", ".txt")}
    assert {path.name for path in (here / "figures").iterdir()} == expected
    assert drawn == 4 * [3.0, 7.0]
    listed = json.loads((here / "manifest.json").read_text())["files"]
    assert {f"figures/{name}" for name in expected} <= set(listed)
    caption = (here / "figures" / "layers.txt").read_text()
    assert "images" in caption and "--figure-widths 3 7" in caption
