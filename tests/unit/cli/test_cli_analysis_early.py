"""What a command that finds something out refuses before it computes, and what it tells of."""

import sys

import pytest
import torch
from cases import command_line
from cases.command_line import one_line
from pyarrow import parquet
from torch import nn

import faigfast
from faigfast.cli.main import main
from faigfast.data import write_image

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


@pytest.fixture(scope="module", autouse=True)
def photographs(files):
    """Two photographs of six crops of 24×24, two to learn from, and images of three sizes."""
    generator = torch.Generator().manual_seed(5)
    sizes = {"photos/first": (48, 72), "photos/second": (48, 72)}
    sizes |= {"others/big": (48, 72), "others/small": (20, 60)}  # smaller than a crop
    sizes |= {"uneven/image0": (24, 24), "uneven/image1": (24, 29), "uneven/image2": (26, 22)}
    for name, size in sizes.items():
        write_image(files / f"{name}.png", torch.rand(3, *size, generator=generator))


@pytest.fixture
def unranked(monkeypatch):
    """Nothing may be attributed or restored for a measurement."""
    monkeypatch.setattr("faigfast.analysis.study.rank_by", None)
    monkeypatch.setattr("faigfast.analysis.prediction.attribute", None)
    monkeypatch.setattr("faigfast.analysis.measure.measure", None)


def words(command, output, *more):
    base = [command, "a.pth", "b.safetensors", "--gt", "photos", "--output", str(output)]
    return [*base, "--crop", "24", "--steps", "2", *more]


RETRAIN = ["--train", "others", "--iterations", "3", "--batch", "2", "--patch", "12"]
RETRAIN += ["--degrade", "blur=1", "--contrast", "blur:", "--fraction", "0.2"]


def test_a_retraining_that_is_refused_leaves_finished_ones(here, capsys, monkeypatch, undrawn):
    assert main(words("retrain", here, *RETRAIN)) == 0
    out, err = capsys.readouterr()
    assert "from big; all" in out and "without small, smaller than a patch of 24" in err
    finished = {path: path.stat().st_mtime_ns for path in here.glob("blur-*/state.part")}
    assert len(finished) == 4
    again = words("retrain", here, *RETRAIN, "--overwrite", "--quiet")
    assert main([*again, "--optimizer", "Bogus"]) == 1
    assert "optimizer is 'Bogus'" in one_line(capsys)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    with monkeypatch.context() as patched:
        patched.setattr("faigfast.analysis.study.rank_by", None)  # fails in the attribution
        assert main(again) == 1
    assert all(path.exists() for path in finished)
    assert main([*again, "--iterations", "4"]) == 0  # another run
    assert {path for path, time in finished.items() if path.stat().st_mtime_ns == time} == set()
    capsys.readouterr()


class Choosy(nn.Sequential):
    """Takes square images alone."""

    def forward(self, x):
        if x.shape[-1] != x.shape[-2]:
            raise RuntimeError("not square")
        return super().forward(x)


def test_images_that_the_network_does_not_take_are_named_at_once(
    here, capsys, monkeypatch, unranked
):
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    choosy = tuple(Choosy(net) for net in pair)
    monkeypatch.setattr("faigfast.cli.predict.open_pair", lambda options: choosy)
    argv = words("predict", here, "--degrade", "blur=1", "clean", "--scale", "2", "--quiet")
    assert main([*argv, "--images", "uneven"]) == 1
    assert "the network does not take image 'image1' [3, 24, 29]: not square" in one_line(capsys)
    assert not list(here.rglob("*"))


def test_grids_of_any_number_of_contrasts(here, capsys):
    """Pairs of contrasts have a picture each, and what has none is told."""
    argv = ["--strengths", "0", "1", "--grid", "--fraction", "0.2", "--quiet", "--degrade"]
    assert main(words("modulate", here, *argv, "blur=1", "noise=0.1", "clean")) == 0
    assert "either contrast; all other strengths are 1." in capsys.readouterr().out
    for one, other in (("blur", "noise"), ("blur", "clean"), ("noise", "clean")):
        text = (here / f"modulation-grid-{one}-{other}-page.svg").read_text()
        assert text.count(f"<!-- input: {one} -->") == text.count(f"<!-- input: {other} -->") == 1
        assert text.count(f"<!-- strength of {other} filters -->") == 2
    one = here.parent / "one"
    assert main(words("modulate", one, *argv, "blur=1", "noise=0.1", "--contrast", "blur")) == 0
    assert "there is no grid to be drawn" in capsys.readouterr().out
    assert not list(one.glob("modulation-grid*"))


def test_numbers_of_filters_stay_whole(here, capsys, undrawn):
    assert main(words("retrain", here, *RETRAIN, "--quiet")) == 0
    out = capsys.readouterr().out
    out = out.replace("random of the same layers", "same-layers")
    rows = [line.split() for line in out.splitlines() if line.startswith("blur ")]
    filters = {row[1]: row[2] for row in reversed(rows)}  # of the first block of columns
    assert filters["baseline"] == filters["all"] == "–"
    assert filters["discovered"] == filters["random"] == filters["same-layers"]
    assert filters["random"].isdigit()
    lines = (here / "retraining.csv").read_text().splitlines()
    counts = {line.split(",")[1]: line.split(",")[2] for line in lines[1:]}
    assert counts["random"] == counts["discovered"] == filters["random"] and counts["all"] == ""
    column = parquet.read_schema(here / "retraining.parquet").field("filter_count")
    assert str(column.type) == "int64"


@pytest.mark.parametrize("method", ["input", "change"])
def test_attribute_tells_what_does_not_act_on_a_rival(here, capsys, method):
    argv = ["attribute", "a.pth", "b.safetensors", "--gt", "gt", "--output", str(here)]
    argv += ["--degrade", "blur=1", "--steps", "2", "--method", method]
    assert main([*argv, "--rule", "gauss-legendre", "--parameters", "conv_last*"]) == 0
    note = f"rule 'gauss-legendre' does not act on {method!r}"
    assert note in capsys.readouterr().err and note in (here / "manifest.json").read_text()
    result = faigfast.Attribution.load(here / "scores.safetensors")
    scored_layers = {result.index.locate(n)[0] for n in result.scored.nonzero().flatten().tolist()}
    assert scored_layers == {"conv_last.weight"}


def test_photographs_that_teach_nothing_are_not_named(here, capsys, undrawn):
    argv = words("predict", here, "--degrade", "blur=1", "clean", "--measured", "6")
    assert main([*argv, "--learn", "others", "--learned", "2"]) == 0
    out, err = capsys.readouterr()
    assert "learned from 2 crops of big." in out
    assert "without small, smaller than a crop of 24" in err
    assert main([*argv, "--learn", "uneven", "--learned", "2", "--overwrite"]) == 0
    out, err = capsys.readouterr()
    assert "learned from 2 crops of image0, image1." in out and "without image2, smaller" in err


def test_photographs_that_are_passed_over_are_named(here, files, capsys, undrawn):
    generator = torch.Generator().manual_seed(6)
    for name in ("a", "b", "c"):
        write_image(files / "three" / f"{name}.png", torch.rand(3, 24, 24, generator=generator))
    argv = words("predict", here, "--degrade", "blur=1", "clean", "--measured", "6")
    assert main([*argv, "--learn", "three", "--learned", "2"]) == 0
    out, err = capsys.readouterr()
    assert "learned from 2 crops of a, b." in out and "none of 2 crops is of c" in err


@pytest.mark.parametrize("name", ["random", "change", "magnitude"])
def test_contrasts_called_as_a_method_are_refused_at_once(here, capsys, unranked, name):
    for more in (["--contrast", f"{name}=blur"], ["--degrade", f"{name}=blur=1", "clean"]):
        assert main(words("mask", here, "--quiet", *more)) == 1
        assert f"a contrast is called {name!r}, as a method is" in one_line(capsys)
        assert not here.exists() or not list(here.iterdir())


@pytest.mark.parametrize(
    ("package", "words_of"),
    [
        ("pandas", ["prune"]),
        ("matplotlib", ["modulate"]),
        ("scipy", ["predict"]),
        ("torchmetrics", ["mask"]),
    ],
)
def test_missing_extras_are_told_at_once(here, capsys, monkeypatch, unranked, package, words_of):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(words(*words_of, here, "--quiet")) == 1
    assert f"need {package}: pip install 'faigfast[report]'" in one_line(capsys)
    assert not here.exists()
