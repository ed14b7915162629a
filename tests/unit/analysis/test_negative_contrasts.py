"""Contrasts that are each other's negatives are no finding, and are left out of comparisons."""

import pandas
import torch
from cases import command_line
from cases.analysis import study_parts  # noqa: F401

from faigfast.analysis.contrasts import negatives, overlap_data_frame, without_subtraction
from faigfast.cli.main import main

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


def test_the_contrasts_of_two_degradations_are_left_out(study_parts):  # noqa: F811
    result = study_parts[-1]
    scores = {"a": result.contrast("blur", "noise"), "b": result.contrast("noise", "blur")}
    sets = {"a": result.top("blur", 0.1, "noise"), "b": result.top("noise", 0.1, "blur")}
    assert negatives(scores) == [("a", "b")]
    rows = overlap_data_frame(sets, scores)
    assert not len(rows) and "correlation" in rows.columns


def test_own_scores_are_compared_instead(study_parts):  # noqa: F811
    result = study_parts[-1]
    contrasts = without_subtraction(("blur", "noise"))
    scores = {c.name: c.scores(result) for c in contrasts}
    assert torch.equal(scores["blur"], result.mean("blur"))
    assert negatives(scores) == []
    rows = overlap_data_frame({c.name: c.top(result, 0.1) for c in contrasts}, scores)
    assert rows["common_fraction"].item() > 0 and rows["correlation"].item() > -0.5


def test_the_command_compares_own_scores_unless_contrasts_are_named(here, files, capsys):
    argv = ["overlap", "a.pth", "b.safetensors", "--gt", "gt", "--crop", "12", "--steps", "2"]
    argv += ["--degrade", "blur=1", "noise=0.1", "--quiet", "--output", str(here)]
    assert main(argv) == 0
    assert "own scores" in capsys.readouterr().out
    assert pandas.read_csv(here / "overlap.csv")["correlation"].item() > -1
    assert main([*argv, "--contrast", "blur", "mine=noise", "--overwrite"]) == 0
    assert "negative by construction: blur and mine" in capsys.readouterr().out
    assert not len(pandas.read_csv(here / "overlap.csv"))
