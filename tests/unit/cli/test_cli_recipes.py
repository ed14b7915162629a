"""Recipes of any steps on the command line."""

import json

import pytest
import torch
from cases import command_line
from cases.command_line import attribute, expected, load, one_line, same

from faigfast.cli.main import main
from faigfast.data import DegradedFolder

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

NEW = ("mine=motion=5:45+poisson=1+jpeg=40", "salt-and-pepper=0.1")
SMALL = ["--width", "3", "--depth", "1", "--iterations", "2", "2", "--patch", "8", "--batch", "2"]
SMALL += ["--rates", "1e-3", "1e-3", "--quiet"]


def test_attribute_takes_them_and_resumes(here, files, capsys):
    argv = attribute(here, "--seed", "3", "--scale", "2", "--degrade", *NEW, "realesrgan")
    assert main(argv) == 0
    recipes = {"mine": "motion=5:45+poisson=1+jpeg=40", "salt-and-pepper": "salt-and-pepper=0.1"}
    recipes["realesrgan"] = "realesrgan"
    with pytest.warns(UserWarning, match=r"cropped . of . images"):
        data = DegradedFolder(files / "gt", recipes, seed=3, scale=2)
    result = expected(data)
    same(load(here), result)
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["made_from"]["degradations"] == recipes
    assert main(argv) == 0
    capsys.readouterr()
    argv[argv.index(NEW[0])] = NEW[0].replace("40", "41")
    assert main(argv) == 1
    assert "jpeg=41 " in one_line(capsys)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("jpg=40", "did you mean 'jpeg'"),
        ("mine=realesrgn", "did you mean 'realesrgan'"),
        ("jpeg=400", "jpeg is 400; expected an integer from 1 to 100"),
        ("blur=2+motion=x", "has the strength 'x'; expected a number, as motion=LENGTH"),
    ],
)
@pytest.mark.parametrize("command", ["attribute", "train", "mask"])
def test_wrong_recipes_are_one_sentence(here, files, capsys, recipe, words, command):
    output = ["--output", str(here), "--quiet"]
    argv = {
        "attribute": attribute(here, "--degrade", recipe),
        "train": ["train", *output, "--degrade", recipe.removeprefix("mine="), *SMALL[:-1]],
        "mask": ["mask", *output, "--degrade", recipe],
    }[command]
    assert main(argv) == 1
    assert words in one_line(capsys)


def test_train_takes_them(here, files, monkeypatch):
    monkeypatch.setattr("faigfast.cli.train.KEPT_OUT", ("camera.png",))
    argv = ["train", "--output", str(here), "--folder", "gt", *SMALL, "--degrade", "jpeg=30"]
    with torch.random.fork_rng():
        assert main([*argv, "gray-noise=0.2", "--blur", "1"]) == 0
    record = json.loads((here / "training.json").read_text())
    assert record["target"]["recipes"] == ["jpeg=30, bilinear /2", "gray-noise=0.2, bilinear /2"]
    assert (record["target"]["blur"], record["target"]["noise"]) == ([1.0], [])
    evaluation = json.loads((here / "evaluation.json").read_text())
    assert list(evaluation["psnr"]) == ["clean", "blur 1", "jpeg=30", "gray-noise=0.2"]


def test_an_analysis_takes_them(here, capsys):
    argv = ["overlap", "--output", str(here), "--quiet", "--steps", "2", "--attributed", "40"]
    assert main([*argv, "--degrade", "defocus=2", "hard=jpeg=20+webp=20"]) == 0
    out, _ = capsys.readouterr()
    assert "defocus" in out and "hard" in out
