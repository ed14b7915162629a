"""`--objective`: losses by name, the user's own, and what belongs to the identity of a run."""

import importlib
import json
import linecache
import sys

import pytest
from cases import command_line, findings
from cases.command_line import attribute, expected, load, one_line, recipes, same
from cases.findings import words

from faigfast.cli.main import main
from faigfast.cli.own_code import chosen_objective, objective_identity
from faigfast.integration.objective import OBJECTIVES

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here
photographs = findings.photographs
DEGRADE = ("--degrade", "blur=1", "noise=0.1")
OWN = "def weighted(output, gt):\n    return {factor} * (output - gt).abs().flatten(1).sum(1)\n"


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "squared_error"])
def test_every_name_reaches_the_library(here, name):
    assert main(attribute(here, "--objective", name, *DEGRADE)) == 0
    result = load(here)
    assert result.setting.objective == name
    same(result, expected(recipes(), objective=name))


@pytest.fixture
def own(files, monkeypatch):
    """Write a module with a function of the user; give the function's name as an option."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(factor):
        (files / "own_losses.py").write_text(OWN.format(factor=factor))
        monkeypatch.delitem(sys.modules, "own_losses", raising=False)
        importlib.invalidate_caches()
        linecache.clearcache()
        return "own_losses:weighted"

    return write


def test_a_function_of_the_user(here, own, capsys):
    argv = attribute(here, "--objective", own(2), *DEGRADE)
    assert main(argv) == 0
    result = load(here)
    assert result.setting.objective == "own_losses.weighted"
    same(result, expected(recipes(), objective=chosen_objective("own_losses:weighted")))
    made_from = json.loads((here / "manifest.json").read_text())["made_from"]
    assert made_from["objective"].startswith("own_losses.weighted@")
    capsys.readouterr()
    own(3)  # the name alone would not tell
    assert main(argv) == 1
    assert "--objective was own_losses" in one_line(capsys)


def test_another_objective_is_another_run(here, capsys):
    argv = attribute(here, "--objective", "charbonnier", *DEGRADE)
    assert main(argv) == 0
    capsys.readouterr()
    assert main(attribute(here, "--objective", "gradient", *DEGRADE)) == 1
    assert "--objective was charbonnier, is gradient" in one_line(capsys)
    assert main(attribute(here, *DEGRADE)) == 1
    assert "is squared_error" in one_line(capsys)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lpips", "objective is 'lpips'; expected one of squared_error, absolute_error, charbonn"),
        ("mine:nothing", "objective is 'mine:nothing': module 'mine' has no attribute 'nothing'"),
        ("absent:loss", "expected MODULE:FUNCTION, importable from here"),
        ("mine:network", "objective is a function, but not of (output, gt)"),
        ("mine:nn", "objective is a module; expected a name or a function"),
    ],
)
def test_objectives_that_are_refused(here, capsys, name, message):
    assert main(attribute(here, "--objective", name, *DEGRADE)) in (1, 2)
    assert message in one_line(capsys)
    assert not here.exists()


def test_commands_on_crops_take_it_too(here, own, capsys, undrawn):
    argv = words("mask", here, "--fractions", "0.2", "--methods", "faig", "--metrics", "psnr")
    argv += ["--objective", own(2)]
    assert main(argv) == 0
    parts = {p.name: p.stat().st_mtime_ns for p in (here / "parts").iterdir()}
    assert main(argv) == 0  # a function's parts are found again
    assert {p.name: p.stat().st_mtime_ns for p in (here / "parts").iterdir()} == parts
    capsys.readouterr()
    assert main([*argv[:-1], "absolute_error"]) == 1
    assert "--objective was own_losses" in one_line(capsys)


def test_the_identity_of_an_objective(files, own, monkeypatch):
    monkeypatch.chdir(files)
    assert objective_identity("ssim") == "ssim"
    assert objective_identity(own(5)).startswith("own_losses.weighted@")
