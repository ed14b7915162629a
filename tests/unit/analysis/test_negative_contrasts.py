"""Contrasts that are each other's negatives are no finding, and are left out of comparisons."""

from functools import partial

import pandas
import pytest
import torch
from cases import command_line
from cases.analysis import study_parts  # noqa: F401

import faigfast
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
    assert main([*argv, "--contrast", "blur", "mine=noise", "--overwrite"]) == 1
    text = capsys.readouterr().err
    assert "contrasts 'blur' and 'mine' are each other's negative" in text
    assert "(blur: and noise:)" in text and text.count("\n") == 1
    third = ["--contrast", "blur", "mine=noise", "own=noise:", "--overwrite"]
    assert main([*argv, *third]) == 0
    assert "negative by construction: blur and mine" in capsys.readouterr().out
    assert len(pandas.read_csv(here / "overlap.csv")) == 2


def test_python_refuses_to_compare_negatives_alone(study_parts):  # noqa: F811
    pair, result = study_parts[0], study_parts[-1]
    compare = partial(faigfast.overlap, *pair, result=result, fraction=0.1)
    with pytest.raises(ValueError, match="'blur:noise' and 'noise:blur' are each other's neg"):
        compare(contrasts=["blur:noise", "noise:blur"])
    assert len(compare(contrasts=["blur:", "noise:"])) == 1
