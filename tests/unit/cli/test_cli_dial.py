"""`faigfast dial`: what it writes, what it refuses, and that it goes on."""

import json
import logging

import pytest
import torch
from cases import command_line
from cases.command_line import one_line
from cases.findings import table
from cases.ncnn_files import convolution

import faigfast
from faigfast.cli.main import main
from faigfast.data import photographs, write_image
from faigfast.zoo.pairs import shipped_folder

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here
TARGET = str(shipped_folder() / "target.safetensors")
DERIVED = ["--iterations", "2", "--batch", "2", "--attributed", "2"]
BASELINE = str(shipped_folder() / "baseline.safetensors")


@pytest.fixture(scope="module", autouse=True)
def folders(files):
    """Two photographs of eight crops of 24×24."""
    for name, image in photographs(("camera.png", "chelsea.png")).items():
        write_image(files / "photos" / f"{name}.png", image[:, 100:148, 180:276])
        write_image(files / "others" / f"{name}.png", image[:, 200:248, 80:176])


def words(output, *more, target=TARGET):
    base = ["dial", target, "--gt", "photos", "--output", str(output), "--crop", "24", "--quiet"]
    return [*base, "--steps", "2", "--fractions", "0.005", "--strengths", "0", "0.5", "1", *more]


def given(output, *more):
    return words(output, "--baseline", BASELINE, *more)


def equal(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_a_dial_of_a_pair(here, files, capsys):
    assert main(given(here, "--degrade", "noise=0.1")) == 0
    target, baseline = faigfast.load_model(TARGET), faigfast.load_model(BASELINE)
    dial = faigfast.Dial.load(here / "dial.safetensors")
    assert dial.name == "noise" and 0 < dial.share <= 0.005
    for strength in ("0", "0.5", "1"):
        written = faigfast.load_model(here / f"noise-{strength}.safetensors")
        assert equal(written, dial.apply(target, float(strength)))
    assert equal(dial.apply(target, 1), target) and not equal(dial.apply(target, 0), baseline)
    rows = table(here, "dial-curve")
    assert set(rows.method) == {
        "dial", "interpolation of all weights", "random of the same layers",
    }  # fmt: skip
    assert set(rows.degradation) == {"noise", "clean"} and {"ssim", "psnr"} <= set(rows.metric)
    assert table(here, "dial-sets").metric.tolist() == ["undone", "clean_psnr_change"]
    content = json.loads((here / "dial.json").read_text())
    assert {"dial.safetensors", "strip-noise-page.svg", "noise-0.5.safetensors"} <= set(
        content["files"]
    )
    assert all((here / name).stat().st_size for name in content["files"])
    assert "last row: clean input" in (here / "strip-noise.txt").read_text()
    summary = (here / "summary.txt").read_text()
    for text in ("noise: ", "Strength 0 ", "of 2 photographs", "% of target.safetensors"):
        assert text in summary and text in capsys.readouterr().out + summary
    assert not (here / "baseline").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_derived_baseline_is_kept_and_the_command_goes_on(here, files, capsys, monkeypatch):
    argv = words(here, *DERIVED, "--undo", "0.1")
    refused = main(argv)  # two steps derive a baseline that the target hardly beats
    assert refused in (0, 1)
    capsys.readouterr()
    assert faigfast.load_model(here / "baseline.safetensors") is not None

    def again(*arguments, **options):
        raise AssertionError("the baseline is trained again")

    monkeypatch.setattr("faigfast.training.derivation_run.DerivationRun._step", again)
    monkeypatch.setattr("faigfast.analysis.study.rank_by", again)
    assert main(argv) == refused


@pytest.mark.usefixtures("undrawn")
def test_two_dials_found_by_contrast(here, files, monkeypatch):
    argv = given(here, "--degrade", "noise=0.1", "blur=2")
    assert main(argv) == 0
    target = faigfast.load_model(TARGET)
    one, other = (faigfast.Dial.load(here / f"dial-{n}.safetensors") for n in ("noise", "blur"))
    both = other.apply(one.apply(target, 0), 0.5)
    assert equal(both, one.apply(other.apply(target, 0.5), 0))
    assert (here / "blur-0.5.safetensors").exists() and (here / "strip-blur-page.svg").exists()
    assert len(table(here, "dial-sets")) == 2 * 2


@pytest.mark.usefixtures("undrawn")
def test_networks_of_ncnn_keep_their_form(here, files, tmp_path, caplog):
    pair = [convolution(tmp_path, name, seed=seed) for name, seed in (("a", 0), ("b", 7))]
    more = ["--baseline", str(pair[0]), "--pad", "2", "--undo", "0.01"]
    with caplog.at_level(logging.ERROR):
        code = main(words(here, *more, target=str(pair[1])))
    if code == 0:  # a random pair may gain nothing
        assert (here / "noise-0.5.param").read_text() == pair[1].read_text()
        assert (here / "noise-0.5.bin").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--strengths", "nan"], "strength of '--strengths' is nan"),
        (["--fractions", "0"], "--fractions is 0.0"),
        (["--undo", "1.5"], "undo is 1.5"),
        (["--fuse", "mine:network"], "fuse is given"),
        (["--degrade", "clean"], "degrade holds 'clean' alone"),
        (["--degrade", "clean=blur=2"], "degrade names 'blur=2' 'clean'"),
        (["--lq", "noise=grainy"], "lq names noise; expected a degradation and clean=FOLDER"),
        (["--contrast", "fog"], "names the degradation 'fog'"),
        (["--contrast", "clean"], "contrast 'clean' is of clean images"),
        (["--crop", "23"], "crop is 23"),
        (["--attributed", "0"], "attributed is 0"),
        (["--crop", "48", "--attributed", "2", "--measured", "2"], "1 crop is left"),
    ],
)
def test_bad_options(here, files, capsys, monkeypatch, more, message):
    monkeypatch.setattr("faigfast.analysis.study.rank_by", None)  # before anything is attributed
    assert main(given(here, *more)) == 1
    assert message in one_line(capsys)
    assert not list(here.glob("*.csv"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--iterations", "0"], "iterations"),
        (["--batch", "0"], "batch"),
        (["--rate", "-1"], "rate"),
        (["--train", "absent"], "absent"),
        (["--train", "photos"], "of --gt; expected other photographs"),
        (["--noise_level", "0.1"], "--noise-level is 0.1"),
    ],
)
def test_bad_options_of_the_derived_baseline(here, files, capsys, more, message):
    assert main(words(here, *more)) == 1
    assert message in one_line(capsys)


@pytest.mark.usefixtures("undrawn")
def test_another_target_does_not_go_on(here, files, capsys):
    assert main(words(here, *DERIVED)) in (0, 1)
    capsys.readouterr()
    assert main(words(here, *DERIVED, "--rate", "1e-3")) == 1
    assert "holds the results of another run: --rate was 0.0005, is 0.001; " in one_line(capsys)
