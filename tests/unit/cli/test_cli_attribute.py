"""What `faigfast attribute` writes and says, its options and its configuration."""

import csv
import hashlib
import json
import shlex
import sys

import pytest
import torch
from cases import command_line
from cases.command_line import RECIPES, attribute, expected, folders, load, one_line, recipes, same
from torch import nn

import faigfast
from faigfast.analysis.report.line import line_sentence
from faigfast.cli.main import main
from faigfast.data import Degradation, DegradedFolder, PairedFolders

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


# Results


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (("--degrade", "blur=1", "noise=0.1"), recipes),
        (("--degrade", "blur=blur=1", "noise=noise=0.1"), recipes),
        (("--lq", "soft=soft", "x=grainy"), folders),
    ],
    ids=["recipes", "named recipes", "folders"],
)
def test_every_file_holds_what_the_library_gives(here, files, capsys, words, data):
    argv = attribute(here, "--top", "0.05", "0.5", *words)
    assert main(argv) == 0
    data = data()
    result = expected(data)
    same(load(here), result)

    manifest = json.loads((here / "manifest.json").read_text())
    assert sorted(path.name for path in here.iterdir()) == sorted(
        ["manifest.json", *manifest["files"]]
    )
    for name in result.degradations:
        for part, fraction in (("", 1.0), ("_top_0.05", 0.05), ("_top_0.5", 0.5)):
            saved = faigfast.FilterSet.load(here / f"{name}{part}_index.txt")
            wanted = result.top(name, fraction)
            assert torch.equal(saved.indices, wanted.indices)
            assert (saved.baseline, saved.target) == (wanted.baseline, wanted.target)
    with open(here / "filters.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(result.index) * len(result.degradations)
    sidecar = json.loads((here / "filters.columns.json").read_text())
    assert list(sidecar["columns"]) == list(rows[0])
    for row in rows[:: len(rows) // 7]:
        place = result.index.locate(int(row["flat"]))
        assert (row["layer"], int(row["out"]), int(row["in"])) == place
        for column, scores in (("contrast_score", result.contrast), ("score", result.mean)):
            known = float(scores(row["degradation"])[int(row["flat"])])
            assert float(row[column]) == pytest.approx(known, rel=1e-5)

    assert shlex.split(manifest["command"]) == ["faigfast", *argv]
    assert manifest["checkpoints"]["baseline"] == {"path": "a.pth", "entry": "params_ema of a.pth"}
    made_from = manifest["made_from"]
    digest = hashlib.sha256((files / "a.pth").read_bytes()).hexdigest()
    assert made_from["baseline"] == digest
    assert list(made_from["images"]) == data.names
    gt = hashlib.sha256((files / "gt" / "image1.png").read_bytes()).hexdigest()
    assert made_from["images"]["image1"]["gt"] == gt
    if isinstance(data, PairedFolders):
        lq = hashlib.sha256((files / "grainy" / "image1.png").read_bytes()).hexdigest()
        assert made_from["images"]["image1"]["lq x"] == lq
    assert (made_from["rule"], made_from["steps"]) == ("averaged", 2)
    assert manifest["used"]["backend"] == result.backend
    assert manifest["used"]["distance"] == float(result.distance)
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    for n, image in enumerate(manifest["images"]):
        assert image["name"] == data.names[n]
        for d, name in enumerate(result.degradations):
            figures = image["degradations"][name]
            assert figures["loss_target"] == float(result.losses[d, n, 1])
            assert figures["completeness"] == float(result.completeness[d, n])
            assert figures["estimated_error"] is None
            assert figures["barrier"] == float(result.barrier[d, n])
    assert any("cropped" in text and "image1" in text for text in manifest["notes"])

    out = capsys.readouterr().out
    assert line_sentence(result) in out
    assert "params_ema of a.pth" in out and "plain state dict of b.safetensors" in out
    for d, name in enumerate(result.degradations):
        row = next(line for line in out.splitlines() if line.startswith(name))
        assert f"{float(result.completeness[d].max()):.2e}" in row
        assert f"top {len(result.top(name, 0.05))} filters of {name}: " in out


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("--rule", "left"), {"rule": "left"}),
        (("--rule", "left", "--emulate"), {"rule": "left", "emulate": True}),
        (("--objective", "absolute_error"), {"objective": "absolute_error"}),
        (("--precision", "fp64", "--memory", "10000000"), {"precision": "fp64"}),
        (("--backend", "reference"), {"backend": "reference"}),
        (("--parameters", "body.*", "conv_hr*"), {"parameters": ["body.*", "conv_hr*"]}),
    ],
)
def test_options_reach_the_library(here, words, options):
    assert main(attribute(here, *words, "--degrade", *RECIPES)) == 0
    result = load(here)
    same(result, expected(recipes(), **options))
    ranking = faigfast.FilterSet.load(here / "blur_index.txt")
    assert len(ranking) == int(result.scored.sum())


@pytest.mark.parametrize(("tol", "reached"), [("1e-9", "0 of 3"), ("0.9", "3 of 3")])
def test_a_tolerance_is_told_of(here, capsys, tol, reached):
    argv = attribute(here, "--rule", "midpoint", "--tol", tol, "--degrade", "blur=1", steps=9)
    argv.remove("--quiet")
    assert main(argv) == 0
    out, err = capsys.readouterr()
    result = load(here)
    assert f"3 images, {len(result.index)} filters, midpoint to tol {float(tol):g}, 9 points" in out
    head, row = (next(t for t in out.splitlines() if t.startswith(s)) for s in ("degr", "blur"))
    assert head.split()[-3:] == ["estimated", "within", f"{float(tol):g}"]
    assert row.split()[-4:] == [f"{float(result.error.max()):.2e}", *reached.split()]
    assert ("tol 1e-09 was not reached by 3 of 3 images" in err) == (reached == "0 of 3")


def test_a_goal_of_the_ranking_reaches_the_library(here, capsys):
    argv = attribute(here, "--tol-contrast", "1e-9", "--degrade", *RECIPES, steps=24)
    argv.remove("--quiet")
    assert main(argv) == 0
    result = load(here)
    assert result.setting.tol_contrast == 1e-9 and result.points.max() == 15 + 24
    out, err = capsys.readouterr()
    assert "averaged to tol_contrast 1e-09" in out and "above tol_contrast=1e-09" in err
    made_from = json.loads((here / "manifest.json").read_text())["made_from"]
    assert made_from["tol_contrast"] == 1e-9 and "overlap" not in made_from


def test_rivals_are_not_refined(here, capsys):
    words = "--overlap", "0.9", "--method", "input", "--degrade", *RECIPES
    argv = attribute(here, *words, steps=24)
    assert main(argv) != 0
    assert "refine the method faig, not 'input'" in one_line(capsys)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2000000", 2000000),
        ("2GB", 2 * 10**9),
        ("2gb", 2 * 10**9),
        ("1.5 GiB", 3 * 2**29),
        ("500kB", 500_000),
        ("64MiB", 2**26),
        ("3kib", 3072),
        ("7Mb", 7_000_000),
    ],
)
def test_memory_takes_units(parser, here, text, count):
    options = parser.parse_args(attribute(here, "--memory", text, "--degrade", "clean"))
    assert options.attribute.memory == count


def test_memory_reaches_the_library(here, monkeypatch):
    seen = []
    original = faigfast.Attributor

    def looking(*args, **options):
        seen.append(options["memory"])
        return original(*args, **{**options, "memory": None})

    monkeypatch.setattr(faigfast, "Attributor", looking)
    assert main(attribute(here, "--memory", "2GB", "--degrade", "clean", steps=1)) == 0
    assert set(seen) == {2 * 10**9}


@pytest.mark.parametrize("text", ["2 potatoes", "GB", "2TB", "1e9x", ""])
def test_memory_of_another_form(parser, here, capsys, text):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(attribute(here, "--memory", text, "--degrade", "clean"))
    assert end.value.code == 2
    assert f"memory is {text!r}; expected bytes, or a number of kB, MB, GB" in one_line(capsys)


def test_seed_scale_and_downsampling_reach_the_images(here):
    words = ("--seed", "7", "--downsampling", "bicubic", "--scale", "2", "--degrade", *RECIPES)
    assert main(attribute(here, *words)) == 0
    recipe = {
        "blur": Degradation(blur=1.0, downsampling="bicubic"),
        "noise": Degradation(noise=0.1, downsampling="bicubic"),
    }
    with pytest.warns(UserWarning, match="cropped"):
        data = DegradedFolder("gt", recipe, seed=7)
    same(load(here), expected(data))


def test_top_beyond_what_is_scored_is_noted(here, capsys):
    words = ("--parameters", "conv_last*", "--top", "0.9", "--degrade", "blur=1")
    assert main(attribute(here, *words)) == 0
    assert not (here / "blur_top_0.9_index.txt").exists()
    scored = int(load(here).scored.sum())
    assert f"top {scored} filters of blur: conv_last {scored}" in capsys.readouterr().out
    notes = json.loads((here / "manifest.json").read_text())["notes"]
    assert any("no blur_top_0.9_index.txt" in text for text in notes)


def test_without_pandas_the_table_is_missing_and_it_is_said(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pandas", None)
    argv = attribute(here, *RECIPES)
    argv.remove("--quiet")
    assert main(argv) == 0
    assert not (here / "filters.csv").exists() and (here / "blur_index.txt").exists()
    err = capsys.readouterr().err
    assert "no filters.csv: a table needs pandas: pip install 'faigfast[report]'" in err
    assert "image/s" in err  # progress with a rate


def test_ones_own_architecture(files, here, monkeypatch):
    for name in ("c", "d"):
        net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Sigmoid())
        torch.save(net.state_dict(), here.parent / f"{name}.pth")
    base = ["attribute", f"{here.parent}/c.pth", f"{here.parent}/d.pth", "--gt", "gt", "--quiet"]
    base += ["--degrade", "blur=1", "--into", "mine:network"]
    assert main([*base, "--scale", "1", "--output", str(here), "--steps", "2"]) == 0
    assert load(here).index.layers == ("0.weight",)
    kwargs = ["--into_kwargs", '{"channels": 3}']
    again = str(here.parent / "again")
    assert main([*base, *kwargs, "--scale", "1", "--output", again, "--steps", "2"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scale", "1", "--into", "mine:absent"], "mine:absent"),
        (["--scale", "1", "--into", "nowhere:network"], "nowhere"),
        (["--scale", "1", "--into", "mine:nn"], "module' object is not callable"),
        (["--scale", "1", "--into", "mine:network", "--into_kwargs", '{"x": 1}'], "'x'"),
        (["--into", "mine:network"], "--scale"),
    ],
)
def test_bad_architectures(files, here, capsys, words, message):
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    torch.save(net.state_dict(), here.parent / "c.pth")
    path = str(here.parent / "c.pth")
    argv = ["attribute", path, path, "--gt", "gt", "--degrade", "blur=1", "--output", str(here)]
    assert main([*argv, *words]) == 1
    assert message in one_line(capsys)


def test_half_precision_checkpoints(here, files):
    for name in ("a.pth", "b.safetensors"):
        net = faigfast.load_model(name).to(torch.bfloat16)
        faigfast.save_model(net, here.parent / f"{name}.pth")
    pair = [str(here.parent / f"{name}.pth") for name in ("a.pth", "b.safetensors")]
    argv = ["attribute", *pair, "--gt", "gt", "--degrade", "clean", "--output", str(here)]
    assert main([*argv, "--steps", "1", "--quiet"]) == 0
    assert load(here).precision == "bf16" and load(here).degradations == ("clean",)


@pytest.mark.parametrize("method", ["input", "relative", "gradient", "signed", "random"])
def test_rivals_leave_the_same_files(here, method, capsys):
    assert main([*attribute(here, *RECIPES), "--method", method]) == 0
    result = load(here)
    assert result.setting.method == method
    best = faigfast.FilterSet.load(here / "blur_index.txt")
    assert torch.equal(best.indices, result.ranking("blur").indices)
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["made_from"]["method"] == method
    assert all(i["degradations"]["blur"]["points"] >= 0 for i in manifest["images"])
    capsys.readouterr()
    assert main(attribute(here, *RECIPES)) == 1
    assert "method was" in one_line(capsys)
    assert main([*attribute(here, *RECIPES), "--method", "lime"]) == 1
    assert "method is 'lime'" in one_line(capsys)


# Configuration


def test_configuration_makes_a_round_trip_and_the_command_line_wins(here, capsys):
    argv = attribute(here, "--rule", "left", "--top", "0.5", "--degrade", *RECIPES)
    with pytest.raises(SystemExit) as end:
        main([*argv, "--print_config"])
    assert end.value.code == 0
    config = here.parent / "run.yaml"
    config.write_text(capsys.readouterr().out)
    assert "rule: left" in config.read_text()
    assert main(["attribute", "--config", str(config)]) == 0
    first = load(here)
    assert (first.setting.rule, first.setting.steps) == ("left", 2)
    for words in (["--steps", "3", "--config", str(config)], [f"--config={config}", "--steps=3"]):
        assert main(["attribute", *words, "--overwrite"]) == 0
        assert (load(here).setting.rule, load(here).setting.steps) == ("left", 3)
    swapped = ["attribute", "b.safetensors", "a.pth", "--config", str(config), "--overwrite"]
    assert main(swapped) == 0
    assert load(here).setting.baseline == first.setting.target
