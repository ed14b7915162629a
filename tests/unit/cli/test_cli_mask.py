"""The command `mask`, and what every command on crops refuses."""

import pytest
import torch
from cases import command_line, findings
from cases.command_line import one_line
from cases.findings import finished, table, words

import faigfast
from faigfast.analysis.evaluation import cut_crops, evaluate
from faigfast.cli.main import main
from faigfast.data import PairedFolders, write_image

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here
photographs = findings.photographs

MASK = ["--fractions", "0.2", "--methods", "faig", "change", "--metrics", "psnr", "difference"]


def test_mask(here, files, capsys):
    assert main(words("mask", here, *MASK, "--degrade", "blur=1", "noise=0.1", "clean")) == 0
    out, err = capsys.readouterr()
    assert err == "" and "under the masking curve FAIG's area" in out
    assert "9 crops of 24×24 from first, second; border of 2" in out
    masking = table(here, "masking")
    methods = {"faig", "change", "random", "random of the same layers"}
    assert set(masking.method) == methods | {"baseline", "target"}
    areas = table(here, "masking-areas")
    assert len(areas[areas.metric == "area"]) == 3 * 4
    assert (here / "masking-curves-page.svg").read_text().startswith("<svg")
    finished(here, "mask")


def test_mask_goes_on_after_an_interrupt(here, monkeypatch, capsys, undrawn):
    argv = words("mask", here, *MASK)
    original = faigfast.FilterSet.swap
    calls = []

    def stopped(self, *args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **options)

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
    assert "parts holds the results of another run: --gt was photos, is gt; " in one_line(capsys)
    assert main([*other, "--overwrite"]) == 0


def test_mask_with_biases(here, files, capsys, undrawn):
    argv = words("mask", here, *MASK, "--biases", "--by", "channel")
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "filters are all in a set move too: the column bias_count counts them." in out
    masking = table(here, "masking")
    assert (masking.bias_count[masking.method == "faig"] > 0).all()
    few = here.parent / "few"
    fractions = ["--fractions", "0.01", "--methods", "faig", "--metrics", "psnr"]
    assert main(words("mask", few, *fractions, "--biases")) == 0
    assert "no set holds all of a channel" in capsys.readouterr().out
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    count = len(faigfast.FilterIndex.of(pair[1]))
    (few / "all.txt").write_text("".join(f"{n}\n" for n in range(count)))
    argv = words("mask", here.parent / "sets", "--metrics", "psnr", "--biases", "--sets")
    assert main([*argv, f"all={few / 'all.txt'}"]) == 0
    biases = sum(len(v) for k, v in pair[1].state_dict().items() if k.endswith("bias"))
    assert f"all in a set move too: all {biases}." in capsys.readouterr().out


def test_modulate_with_biases(here, files, capsys, undrawn):
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    saved = here.parent / "whole.safetensors"
    argv = words("modulate", here, "--fraction", "1", "--strengths", "0", "1", "--biases")
    argv += ["--set", "blur=0", "--save", str(saved), "--grid"]
    assert main(argv) == 0
    assert "whose filters are all in a set move too: blur " in capsys.readouterr().out
    state = faigfast.load_model(saved).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in pair[0].state_dict().items())


def test_mask_by_channel_and_given_sets(here, files, capsys, undrawn):
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
        (["--fractions", "2"], "--fractions is 2.0"),
        (["--methods", "lime"], "methods hold 'lime'"),
        (["--metrics", "lpips"], "--metrics is 'lpips'"),
        (["--border", "12"], "border 12 leaves nothing of crops of 24×24"),
        (
            ["--border", "8", "--metrics", "ssim"],
            "less than 11 pixels of crops of 24×24, which SSIM needs",
        ),
        (["--crop", "25"], "crop is 25; expected a positive multiple of the scale 2"),
        (["--crop", "100"], "no photograph holds a crop of 100×100"),
        (["--attributed", "0"], "attributed is 0"),
        (["--attributed", "1"], "--attributed is 1, which leaves none of 12 crops to be"),
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


def test_an_attribution_of_attribute_is_taken(here, files, capsys, undrawn):
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


def test_degraded_images_come_from_folders(here, capsys, undrawn):
    argv = ["mask", "a.pth", "b.safetensors", "--gt", "gt", "--lq", "soft=soft", "x=grainy"]
    argv += ["--output", str(here), "--crop", "12", "--steps", "2", *MASK]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "do not divide by the scale" in err
    assert set(table(here, "masking").degradation) == {"soft", "x"} and "from image0, image1" in out
    data = open_data("gt", {"soft": "soft", "x": "grainy"})
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    kept = data.without(slice(0, None, 4))
    expected = evaluate(pair[1], kept, border=2)["x"].mean()
    rows = table(here, "masking")
    row = rows[(rows.method == "target") & (rows.degradation == "x")].iloc[0]
    assert row["metric"] == "psnr"
    assert row["value"] == pytest.approx(float(expected), rel=1e-5)


def open_data(gt, lq):
    with pytest.warns(UserWarning, match="cropped"):
        folders = PairedFolders(gt, lq)
    items = [folders[n] for n in range(len(folders))]
    return cut_crops(((i["name"], i["gt"], i["lq"]) for i in items), 12, 2)


def test_photographs_smaller_than_a_crop_are_named(here, files, capsys, undrawn):
    write_image(files / "mixed" / "large.png", torch.rand(3, 48, 48))
    write_image(files / "mixed" / "small.png", torch.rand(3, 6, 8))  # too small to be blurred too
    argv = ["mask", "a.pth", "b.safetensors", "--gt", "mixed", "--output", str(here)]
    assert main([*argv, "--crop", "24", "--steps", "2", "--degrade", "blur=2", *MASK]) == 0
    out, err = capsys.readouterr()
    assert "without small, smaller than a crop of 24" in err and "3 crops" in out


def test_one_measured_crop_tells_nothing_apart(here, capsys, undrawn):
    more = ["--attributed", "2", "--measured", "6", "--degrade", "noise=0.1"]
    assert main(words("mask", here, *MASK, *more)) == 0
    assert "not told apart from change, random" in capsys.readouterr().out
