"""The commands that find something out, `mask` aside: what they write and what they refuse."""

from pathlib import Path

import pytest
import torch
from cases import command_line, findings
from cases.command_line import one_line
from cases.findings import finished, table, words
from safetensors.torch import load_file

import faigfast
from faigfast.cli.main import main

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here
photographs = findings.photographs


def test_modulate_measures_and_saves_under_the_users_keys(here, files, capsys):
    saved = here.parent / "half.safetensors"
    more = ["--strengths", "0", "0.5", "1", "1.5", "--fraction", "0.2"]
    argv = words("modulate", here, *more, "--set", "blur=0.5", "noise=1", "--save", str(saved))
    assert main(argv) == 0
    rows = table(here, "modulation")
    assert len(rows) == 7 * 2 and set(rows["strength_blur"]) == {0, 0.5, 1, 1.5}
    half, target = faigfast.load_model(saved), faigfast.load_model("b.safetensors")
    assert half.state_dict().keys() == target.state_dict().keys()
    changed = [
        k for k, v in half.state_dict().items() if not torch.equal(v, target.state_dict()[k])
    ]
    assert changed and all(key.endswith("weight") for key in changed)
    finished(here, "modulate")
    assert main(words("modulate", here.parent / "grid", *more, "--grid")) == 0
    assert len(table(here.parent / "grid", "modulation")) == 16 * 2
    for width in ("column", "page"):
        grid = (here.parent / "grid" / f"modulation-grid-{width}.svg").read_text()
        assert grid.count("<!-- input: blur -->") == grid.count("<!-- input: noise -->") == 1
        assert grid.count("<!-- strength of blur filters -->") == 2  # of either input
    below = ["--strengths", "0", "0.5", "--grid"]  # no strength of 1, so no curve
    assert main(words("modulate", here.parent / "below", *below)) == 0
    assert len(table(here.parent / "below", "modulation")) == 4 * 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--strengths", "1e999"], "strength of '--strengths' is inf; expected a finite number"),
        (["--strengths", "nan"], "strength of '--strengths' is nan; expected a finite number"),
        (["--set", "blur=inf", "--save", "x.pth"], "set holds 'blur=inf'"),
        (["--set", "fog=1", "--save", "x.pth"], "set names 'fog'"),
        (["--set", "blur=1"], "one of --save and --set"),
        (["--fraction", "0"], "fraction is 0.0"),
        (["--set", "blur=1", "--save", "photos.pth"], "--save photos.pth is a folder"),
        (["--set", "blur=1", "--save", "x.bin"], "path x.bin ends in '.bin'"),
        (["--set", "blur=1", "--save", "b.safetensors"], "is a checkpoint of the pair"),
        (["--set", "blur=1", "blur=2", "--save", "x.pth"], "set names 'blur' twice"),
    ],
)
def test_bad_modulations(here, capsys, monkeypatch, more, message):
    monkeypatch.setattr("faigfast.analysis.study.rank_by", None)  # before anything is attributed
    Path("photos.pth").mkdir(exist_ok=True)
    assert main(words("modulate", here, *more)) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.csv"))


PREDICT = ["--degrade", "blur-1=blur=1", "noise-0.1=noise=0.1", "clean"]


def test_predict(here, files, capsys):
    more = ["--learn", "others", "--learned", "4", "--images", "soft", "--measured", "3"]
    assert main(words("predict", here, *PREDICT, *more)) == 0
    for match in ("overlap", "correlation", "neighbour"):
        rows = table(here, f"prediction-by-{match}")
        rows = rows[rows.metric == "mean_margin"]
        assert list(rows.degradation) == ["all", "blur-1", "noise-0.1", "clean"]
        assert rows.image_count.tolist() == [12, 4, 4, 4]
        assert len(table(here, f"confusion-by-{match}")) == 3 * 3
        assert (here / f"confusion-by-{match}-column.svg").exists()
    predicted = table(here, "predicted-images")
    assert len(predicted) == 3 * 3 and list(predicted.match[:3]) == [
        "overlap",
        "correlation",
        "neighbour",
    ]
    assert set(predicted.predicted_degradation) <= {"blur", "noise", "clean"}
    assert (predicted.margin >= 0).all()
    finished(here, "predict")
    left = here.parent / "left"
    assert main(words("predict", left, *PREDICT, "--measured", "3")) == 0
    assert "each photograph from signatures of the others" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--learned", "1"], "learned is 1"),
        (["--learn", "nowhere"], "there is no folder nowhere"),
        (["--images", "nowhere"], "there is no folder nowhere"),
        (["--fraction", "0"], "fraction is 0.0"),
        (["--degrade", "blur=1"], "labels are blur; expected at least two"),
        (["--learn", "photos"], "learn photos holds first, second of --gt"),
    ],
)
def test_bad_predictions(here, capsys, more, message):
    assert main(words("predict", here, *PREDICT, "--measured", "6", *more)) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.csv"))


RETRAIN = ["--train", "others", "--iterations", "3", "--batch", "2", "--patch", "8"]


def test_retrain(here, files, capsys):
    recipes = ["--degrade", "blur=1", "noise=0.1", "clean"]
    assert main(words("retrain", here, *RETRAIN, *recipes, "--fraction", "0.2")) == 0
    rows = table(here, "retraining")
    assert list(rows.network[rows.metric == "psnr"]) == 2 * [
        "baseline", "target", "discovered", "random", "random of the same layers", "all",
    ]  # fmt: skip
    assert set(rows.degradation) == {"blur", "noise"}
    assert "blur: retraining the" in capsys.readouterr().out
    network = faigfast.load_model(here / "blur-discovered.safetensors")
    assert network.state_dict().keys() == faigfast.load_model("a.pth").state_dict().keys()
    finished(here, "retrain")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--lq", "soft=soft"], "lq is given; expected --degrade"),
        (["--downsampling", "bicubic"], "downsampling is bicubic"),
        (["--optimizer", "Bogus"], "optimizer is 'Bogus'"),
        (["--optimizer", "LBFGS"], "optimizer is 'LBFGS'"),
        (["--train", "photos"], "train photos holds first, second of --gt"),
        (["--iterations", "0"], "--iterations is 0"),
        (["--patch", "500"], "no photograph holds a patch"),
        (["--degrade", "clean"], "no degradation blurs or adds noise"),
        (["--sets", "blur"], "sets hold 'blur'"),
        (["--sets", "blur=nowhere.txt"], "nowhere.txt is not a file"),
    ],
)
def test_bad_retrainings(here, capsys, more, message):
    assert main(words("retrain", here, *RETRAIN, *more)) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.csv"))


def test_retraining_needs_photographs_of_its_own(here, capsys):
    assert main(words("retrain", here)) == 1
    assert "train is not given" in one_line(capsys)


def test_locations(here, files, capsys):
    assert main(words("locations", here, "--fraction", "0.2", "--draws", "1")) == 0
    rows = table(here, "locations")
    assert len(rows) == 2 * 11 * 2 * 3 and "weights shuffled" in set(rows.network)
    assert "grafted: the baseline with the discovered filters" in capsys.readouterr().out
    finished(here, "locations")


LEVELS = ["--degrade", "blur-1=blur=1", "blur-2=blur=2", "noise=0.1", "clean"]
LEVELS[3] = "noise=noise=0.1"


def test_overlap_of_levels_and_named_contrasts(here, files, capsys):
    contrasts = ["--contrast", "strong=blur-2:clean", "noise", "blur-1:"]
    assert main(words("overlap", here, *LEVELS, *contrasts, "--fraction", "0.1")) == 0
    rows = table(here, "overlap")
    assert rows[["contrast", "other_contrast"]].values.tolist() == [
        ["strong", "noise"],
        ["strong", "blur-1:"],
        ["noise", "blur-1:"],
    ]
    assert len(table(here, "levels")) == 1
    finished(here, "overlap")


def test_distribution(here, files, capsys):
    assert main(words("distribution", here, "--fraction", "0.1", "--heads", "3")) == 0
    assert len(table(here, "distribution")) == 6 * 2 * 3 and len(table(here, "changes")) == 3
    assert (here / "kernels-noise-page.svg").exists()
    finished(here, "distribution")


def test_prune(here, files, capsys):
    assert main(words("prune", here, "--keep", "blur:")) == 0
    scores = load_file(here / "channels.safetensors")
    rows = table(here, "channels")
    assert rows.channel_count.tolist() == [len(scores[name]) for name in rows.layer]
    assert rows["score_fraction"].sum() == pytest.approx(1)
    finished(here, "prune")
    capsys.readouterr()
    assert main(words("prune", here.parent / "x", "--keep", "fog")) == 1
    assert "names the degradation 'fog'" in one_line(capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["locations", "--draws", "0"], "draws is 0"),
        (["distribution", "--heads", "0"], "heads is 0"),
        (["overlap", "--fraction", "3"], "fraction is 3.0"),
        (["overlap", "--degrade", "blur=1"], "contrasts are blur; expected two"),
        (["overlap", "--contrast", "../up=blur", "noise"], "contrast has the name '../up'"),
        (["distribution", "--scale", "4"], "another --scale?"),
    ],
)
def test_bad_findings(here, capsys, argv, message):
    assert main(words(argv[0], here, *argv[1:])) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.csv"))
