import json
from pathlib import Path

import pandas
import pytest
import torch
from cases import command_line
from cases.command_line import one_line
from safetensors.torch import load_file

import faigfast
from faigfast.analysis.evaluation import cut_crops, evaluate
from faigfast.cli.main import main
from faigfast.data import PairedFolders, write_image

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


@pytest.fixture(scope="module", autouse=True)
def photographs(files):
    """Two photographs of six crops of 24×24, and two to learn from."""
    generator = torch.Generator().manual_seed(5)
    for folder in ("photos", "others"):
        for name in ("first", "second"):
            image = torch.rand(3, 48, 72, generator=generator)
            write_image(files / folder / f"{name}.png", image)


def words(command, output, *more):
    base = [command, "a.pth", "b.safetensors", "--gt", "photos", "--output", str(output)]
    return [*base, "--crop", "24", "--steps", "2", "--quiet", *more]


def table(output, name):
    one = pandas.read_csv(output / f"{name}.csv")
    other = pandas.read_parquet(output / f"{name}.parquet")
    assert list(one.columns) == list(other.columns) and len(one) == len(other)
    return one


def finished(output, command):
    content = json.loads((output / f"{command}.json").read_text())
    assert content["command"].startswith(f"faigfast {command} a.pth")
    assert all((output / name).stat().st_size for name in content["files"])
    return content


MASK = ["--fractions", "0.2", "--methods", "faig", "change", "--metrics", "psnr", "difference"]


def test_mask(here, files, capsys):
    assert main(words("mask", here, *MASK, "--degrade", "blur=1", "noise=0.1", "clean")) == 0
    out, err = capsys.readouterr()
    assert err == "" and "under the masking curve FAIG's area" in out
    assert "9 crops of 24×24 from first, second; border of 2" in out
    masking = table(here, "masking")
    assert set(masking.method) == {"baseline", "target", "faig", "change", "random"}
    assert len(table(here, "masking-areas")) == 3 * 3
    assert (here / "masking-curves.svg").read_text().startswith("<svg")
    finished(here, "mask")


def test_mask_goes_on_after_an_interrupt(here, monkeypatch, capsys):
    argv = words("mask", here, *MASK)
    original = faigfast.FilterSet.swap
    calls = []

    def stopped(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args)

    monkeypatch.setattr("faigfast.filters.filter_set.FilterSet.swap", stopped)
    assert main(argv) == 130
    assert [p.name for p in here.iterdir()] == ["parts"]  # nothing half-written
    ranked = {p.name: p.stat().st_mtime_ns for p in (here / "parts").glob("faig*")}
    assert ranked
    assert main(argv) == 0
    assert {p.name: p.stat().st_mtime_ns for p in (here / "parts").glob("faig*")} == ranked
    capsys.readouterr()
    other = [word if word != "photos" else "gt" for word in argv]
    assert main(other) == 1
    assert "holds parts of another run" in one_line(capsys)
    assert main([*other, "--overwrite"]) == 0


def test_mask_by_channel_and_given_sets(here, files, capsys):
    assert main(words("mask", here, *MASK, "--by", "channel")) == 0
    capsys.readouterr()
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    index = faigfast.FilterIndex.of(pair[1])
    (here / "set.txt").write_text("".join(f"{n}\n" for n in range(len(index) // 2)))
    argv = words("mask", here.parent / "sets", "--metrics", "psnr", "--sets")
    assert main([*argv, f"mine={here / 'set.txt'}"]) == 0
    assert set(table(here.parent / "sets", "sets").network) == {"baseline", "target", "mine"}
    out = capsys.readouterr().out
    assert "12 crops of 24×24" in out and "Attributed" not in out  # none is kept for a ranking
    assert main([*argv, f"mine={here / 'set.txt'}", "--contrast", "blur"]) == 1
    assert "sets and --contrast are given" in one_line(capsys)
    for text, message in (
        ("1\n1\n", "line 2: filter 1 stands on line 1 already"),
        (f"5\n{len(index)}\n", f"line 2: '{len(index)}' is not a filter; expected an integer"),
        ("1\nx\n", "line 2: 'x' is not a filter"),
        ("# nothing\n", "holds no filter index"),
        ("# faigfast filters=500 index=0123456789abcdef\n7\n", "belong to the network 0123"),
        ("# faigfast filters=5\n9\n", "line 2: '9' is not a filter"),
    ):
        (here / "bad.txt").write_text(text)
        output = here.parent / "bad"
        argv = words("mask", output, "--sets", f"bad={here / 'bad.txt'}")
        assert main(argv) == 1
        assert message in one_line(capsys)
        assert not list(output.rglob("*.csv")) and not list(output.rglob("*.json"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fractions", "2"], "fraction is 2.0"),
        (["--methods", "lime"], "methods hold 'lime'"),
        (["--metrics", "lpips"], "metric is 'lpips'"),
        (["--border", "12"], "border 12 leaves nothing of crops of 24×24"),
        (
            ["--border", "8", "--metrics", "ssim"],
            "less than 11 pixels of crops of 24×24, which SSIM needs",
        ),
        (["--crop", "25"], "crop is 25; expected a positive multiple of the scale 2"),
        (["--crop", "100"], "no photograph holds a crop of 100×100"),
        (["--attributed", "0"], "attributed is 0"),
        (["--attributed", "1"], "leave none to be measured"),
        (["--contrast", "fog"], "names the degradation 'fog'"),
        (["--contrast", "a:b:c"], "contrast is 'a:b:c'"),
        (["--backend", "abacus"], "backend is 'abacus'"),
        (["--steps", "0"], "steps is 0"),
        (["--degrade", "fog=1"], "degradation 'fog=1' is unknown"),
        (["--lq", "soft=soft"], "lq folder 'soft' (soft) lacks first, second"),
        (["--pair", "srcnn-24x4-x2"], "checkpoints and --pair are given"),
        (["--attribution", "nowhere.safetensors"], "nowhere.safetensors is not a file"),
    ],
)
def test_bad_studies(here, capsys, more, message):
    assert main(words("mask", here, *MASK, *more)) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.csv")) and not list(here.glob("*.json"))


def test_half_a_pair_is_refused(here, capsys):
    argv = ["mask", "a.pth", "--gt", "photos", "--output", str(here), "--quiet"]
    assert main(argv) == 1
    assert "one checkpoint is given" in one_line(capsys)


def test_an_attribution_of_attribute_is_taken(here, files, capsys):
    scores = here.parent / "scores"
    argv = ["attribute", "a.pth", "b.safetensors", "--gt", "photos", "--output", str(scores)]
    assert main([*argv, "--degrade", "blur=1", "noise=0.1", "--steps", "2", "--quiet"]) == 0
    given = ["--attribution", str(scores / "scores.safetensors")]
    recipes = ["--degrade", "blur=1", "noise=0.1"]
    assert main(words("mask", here, *MASK, *recipes, *given)) == 0
    assert "12 crops of 24×24" in capsys.readouterr().out
    x = here.parent / "x"
    assert main(words("mask", x, *MASK, *given, "--degrade", "clean")) == 1
    assert "the attribution is of blur, noise; expected" in one_line(capsys)
    swapped = words("prune", x, *recipes, *given)
    swapped[1:3] = swapped[2:0:-1]
    assert main(swapped) == 1
    assert "the attribution's baseline is the network" in one_line(capsys)
    chance = ["--degrade", "blur=1", "noise=0.1", "--method", "random", "--quiet", "--overwrite"]
    assert main([*argv, *chance]) == 0
    capsys.readouterr()
    assert main(words("mask", x, *MASK, *recipes, *given)) == 1
    assert "the attribution's scores are 'random'; expected 'faig'" in one_line(capsys)
    assert not list(x.iterdir()) if x.exists() else True


def test_modulate_measures_and_saves_under_the_users_keys(here, files, capsys):
    saved = here.parent / "half.safetensors"
    more = ["--strengths", "0", "0.5", "1", "1.5", "--fraction", "0.2"]
    argv = words("modulate", here, *more, "--set", "blur=0.5", "noise=1", "--save", str(saved))
    assert main(argv) == 0
    rows = table(here, "modulation")
    assert len(rows) == 7 * 2 and set(rows["strength of blur"]) == {0, 0.5, 1, 1.5}
    half, target = faigfast.load_model(saved), faigfast.load_model("b.safetensors")
    assert half.state_dict().keys() == target.state_dict().keys()
    changed = [
        k for k, v in half.state_dict().items() if not torch.equal(v, target.state_dict()[k])
    ]
    assert changed and all(key.endswith("weight") for key in changed)
    finished(here, "modulate")
    assert main(words("modulate", here.parent / "grid", *more, "--grid")) == 0
    assert len(table(here.parent / "grid", "modulation")) == 16 * 2
    grid = (here.parent / "grid" / "modulation-grid.svg").read_text()
    assert grid.count(">blur input<") == grid.count(">noise input<") == 16
    assert grid.count(">blur 0, noise 0.5<") == 2  # of either input
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
        assert list(rows.truth) == ["all", "blur-1", "noise-0.1", "clean"]
        assert rows.images.tolist() == [12, 4, 4, 4]
        assert (here / f"confusion-by-{match}.svg").exists()
    predicted = table(here, "predicted-images")
    assert len(predicted) == 3 * 3 and list(predicted.match[:3]) == [
        "overlap",
        "correlation",
        "neighbour",
    ]
    assert set(predicted.degradation) <= {"blur", "noise", "clean"}
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
    assert list(rows.network) == 2 * ["baseline", "target", "discovered", "random", "all"]
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
        (["--iterations", "0"], "iterations 0"),
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
    assert len(rows) == 2 * 11 and "weights shuffled" in set(rows.network)
    assert "grafted: the baseline with the discovered filters" in capsys.readouterr().out
    finished(here, "locations")


LEVELS = ["--degrade", "blur-1=blur=1", "blur-2=blur=2", "noise=0.1", "clean"]
LEVELS[3] = "noise=noise=0.1"


def test_overlap_of_levels_and_named_contrasts(here, files, capsys):
    contrasts = ["--contrast", "strong=blur-2:clean", "noise", "blur-1:"]
    assert main(words("overlap", here, *LEVELS, *contrasts, "--fraction", "0.1")) == 0
    rows = table(here, "overlap")
    assert rows[["filters", "others"]].values.tolist() == [
        ["strong", "noise"],
        ["strong", "blur-1:"],
        ["noise", "blur-1:"],
    ]
    assert len(table(here, "levels")) == 1
    finished(here, "overlap")


def test_distribution(here, files, capsys):
    assert main(words("distribution", here, "--fraction", "0.1", "--heads", "3")) == 0
    assert len(table(here, "distribution")) == 6 and len(table(here, "changes")) == 3
    assert (here / "kernels-noise.svg").exists()
    finished(here, "distribution")


def test_prune(here, files, capsys):
    assert main(words("prune", here, "--keep", "blur:")) == 0
    scores = load_file(here / "channels.safetensors")
    rows = table(here, "channels")
    assert rows.channels.tolist() == [len(scores[name]) for name in rows.layer]
    assert rows["share of all, %"].sum() == pytest.approx(100)
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


def test_degraded_images_come_from_folders(here, capsys):
    argv = ["mask", "a.pth", "b.safetensors", "--gt", "gt", "--lq", "soft=soft", "x=grainy"]
    argv += ["--output", str(here), "--crop", "12", "--steps", "2", *MASK]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "do not divide by the scale" in err
    assert set(table(here, "masking").input) == {"soft", "x"} and "from image0, image1" in out
    data = open_data("gt", {"soft": "soft", "x": "grainy"})
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    kept = data.without(slice(0, None, 4))
    expected = evaluate(pair[1], kept, border=2)["x"].mean()
    rows = table(here, "masking")
    row = rows[(rows.method == "target") & (rows.input == "x")].iloc[0]
    assert row["PSNR, dB"] == pytest.approx(float(expected), rel=1e-5)


def open_data(gt, lq):
    with pytest.warns(UserWarning, match="cropped"):
        folders = PairedFolders(gt, lq)
    items = [folders[n] for n in range(len(folders))]
    return cut_crops(((i["name"], i["gt"], i["lq"]) for i in items), 12, 2)


def test_photographs_smaller_than_a_crop_are_named(here, files, capsys):
    write_image(files / "mixed" / "large.png", torch.rand(3, 48, 48))
    write_image(files / "mixed" / "small.png", torch.rand(3, 6, 8))  # too small to be blurred too
    argv = ["mask", "a.pth", "b.safetensors", "--gt", "mixed", "--output", str(here)]
    assert main([*argv, "--crop", "24", "--steps", "2", "--degrade", "blur=2", *MASK]) == 0
    out, err = capsys.readouterr()
    assert "without small, smaller than a crop of 24" in err and "3 crops" in out


def test_one_measured_crop_tells_nothing_apart(here, capsys):
    more = ["--attributed", "2", "--measured", "6", "--degrade", "noise=0.1"]
    assert main(words("mask", here, *MASK, *more)) == 0
    assert "not told apart from change, random" in capsys.readouterr().out
