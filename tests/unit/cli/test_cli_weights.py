"""The options --key, --dtype and --noise_level of the commands that read checkpoints."""

import json

import pytest
import torch
from cases import command_line
from cases.command_line import attribute, load, one_line

import faigfast
from faigfast.cli.common_options import DTYPES
from faigfast.cli.main import main
from faigfast.cli.study import open_pair
from faigfast.data import write_image
from faigfast.zoo import FFDNet
from faigfast.zoo.weight_types import TYPES

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


def test_the_types_are_the_zoos():
    assert tuple(TYPES) == DTYPES


@pytest.fixture
def wrapped(here, files):
    """Two files with `params` and an average each."""
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    paths = []
    for name, net, average in (("c", *pair), ("d", *reversed(pair))):
        paths.append(str(here.parent / f"{name}.pth"))
        torch.save({"params": net.state_dict(), "params-ema": average.state_dict()}, paths[-1])
    return paths


@pytest.fixture
def unlike(wrapped, here):
    """As `wrapped`; every entry of the two files holds other weights."""
    content = torch.load(wrapped[1], weights_only=True)
    half = {name: 0.5 * value for name, value in content["params"].items()}
    torch.save({"params": half, "params-ema": content["params-ema"]}, wrapped[1])
    first = torch.load(wrapped[0], weights_only=True)
    torch.save(first | {"params": {k: 1.5 * v for k, v in half.items()}}, wrapped[0])
    return wrapped


def run(here, paths, *more):
    base = ["attribute", *paths, "--gt", "gt", "--output", str(here), "--degrade", "clean"]
    return main([*base, "--steps", "1", *more])


def test_key_chooses_and_belongs_to_the_run(here, files, wrapped, capsys):
    assert run(here, wrapped) == 0
    assert "took params-ema of c.pth; passed over params" in capsys.readouterr().err
    average = load(here)
    assert run(here, wrapped, "--key", "params", "--quiet") == 1
    assert "holds the results of another run: --key was " in one_line(capsys)
    assert run(here, wrapped, "--key", "params", "--quiet", "--overwrite") == 0
    assert not torch.equal(load(here).scores("clean"), average.scores("clean"))
    manifest = json.loads((here / "manifest.json").read_text())
    assert manifest["made_from"]["key"] == "params"
    assert manifest["checkpoints"]["baseline"]["entry"] == "params of c.pth"


def entries(here):
    manifest = json.loads((here / "manifest.json").read_text())
    return [manifest["checkpoints"][role]["entry"] for role in ("baseline", "target")]


def test_each_checkpoint_has_a_key_of_its_own(here, files, unlike, capsys):
    assert run(here, unlike, "--baseline_key", "params", "--quiet") == 0
    assert entries(here) == ["params of c.pth", "params-ema of d.pth"]
    capsys.readouterr()
    both = ["--baseline_key", "params", "--target_key", "params-ema"]
    assert run(here, unlike, *both, "--quiet") == 1
    assert "another run: --target-key was " in one_line(capsys)
    assert run(here, unlike, *both, "--quiet", "--overwrite") == 0
    assert entries(here) == ["params of c.pth", "params-ema of d.pth"]
    # --key serves the file without a key of its own: the same run, which is not computed again
    same = ["--key", "params", "--target_key", "params-ema"]
    assert run(here, unlike, *same) == 0
    assert "holds this run already" in capsys.readouterr().err


def test_one_key_for_both_in_two_words_is_the_same_run(here, files, wrapped, capsys):
    assert run(here, wrapped, "--key", "params", "--quiet") == 0
    assert run(here, wrapped, "--baseline_key", "params", "--target_key", "params") == 0
    assert "holds this run already" in capsys.readouterr().err


def test_three_keys_for_two_files(here, files, wrapped, capsys):
    keys = ["--key", "params", "--baseline_key", "params", "--target_key", "params"]
    assert run(here, wrapped, *keys, "--quiet") == 1
    assert "key is 'params' beside baseline_key and target_key" in one_line(capsys)
    assert run(here, wrapped, "--target_key", "netG", "--quiet") == 1
    assert "key is 'netG', no entry of" in (line := one_line(capsys)) and "d.pth" in line


def test_every_command_of_a_pair_takes_both_keys(parser, here, files, wrapped):
    keys = ["--baseline_key", "params", "--target_key", "params-ema"]
    for command in ("mask", "modulate", "predict", "retrain", "locations", "overlap",
                    "distribution", "prune", "report"):  # fmt: skip
        options = parser.parse_args([command, *wrapped, *keys])[command]
        pair = open_pair(options)
        assert [net.faigfast_source.key for net in pair] == ["params", "params-ema"]


def test_an_unknown_key(here, files, wrapped, capsys):
    assert run(here, wrapped, "--key", "netG", "--quiet") == 1
    assert "key is 'netG', no entry of" in (line := one_line(capsys))
    assert "expected one of 'params', 'params-ema'" in line


def test_dtype_chooses_and_belongs_to_the_run(here, files, wrapped, capsys):
    assert run(here, wrapped, "--dtype", "float64", "--quiet") == 0
    assert load(here).precision == "fp64"
    capsys.readouterr()
    assert run(here, wrapped, "--quiet") == 1
    assert "another run: --dtype was " in one_line(capsys)


def test_noise_level_is_set_on_both(here, files, capsys, tmp_path):
    torch.manual_seed(0)
    pair = [FFDNet(channels=3, width=4, depth=3) for _ in range(2)]
    paths = [str(tmp_path / name) for name in ("e.pth", "f.pth")]
    for net, path in zip(pair, paths, strict=True):
        faigfast.save_model(net, path)
    assert run(here, paths, "--noise_level", "0.3", "--quiet") == 0
    result = load(here)
    for net in pair:
        net.noise_level = 0.3
    data = faigfast.data.DegradedFolder("gt", {"clean": faigfast.data.Degradation(scale=1)})
    expected = faigfast.attribute(*pair, data.batches(), steps=1)
    torch.testing.assert_close(result.scores("clean"), expected.scores("clean"))
    capsys.readouterr()
    assert run(here, paths, "--noise_level", "0.2", "--quiet") == 1
    assert "another run: --noise-level was " in one_line(capsys)
    assert main([*attribute(here.parent / "no", "clean"), "--noise_level", "0.2"]) == 1
    assert "SRResNet takes none" in one_line(capsys)


@pytest.mark.parametrize(
    "option", [("--key", "params"), ("--target_key", "params"), ("--dtype", "float32")]
)
def test_the_shipped_pair_has_no_entries(here, files, capsys, option):
    assert main(["overlap", "--output", str(here), *option]) == 1
    assert "without checkpoints; expected a baseline and a target" in one_line(capsys)


@pytest.mark.parametrize("key", ["--key", "--target_key"])
def test_findings_take_the_entry_and_save_beside_it(here, files, unlike, capsys, key):
    write_image(here.parent / "photos" / "one.png", torch.rand(3, 32, 64))
    saved = here.parent / "half.pth"
    words = ["modulate", *unlike, key, "params", "--gt", str(here.parent / "photos")]
    words += ["--degrade", "blur=1", "noise=0.1", "--crop", "16", "--attributed", "2"]
    words += ["--steps", "1", "--strengths", "0", "1", "--fraction", "0.2", "--quiet"]
    words += ["--set", "blur=0", "noise=0", "--save", str(saved), "--output", str(here)]
    assert main(words) == 0
    old, new = (torch.load(path, weights_only=True) for path in (unlike[1], saved))
    first = "conv_first.weight"
    assert torch.equal(old["params-ema"][first], new["params-ema"][first])
    assert any(not torch.equal(old["params"][k], new["params"][k]) for k in old["params"])
    capsys.readouterr()
    without = [word for word in words if word not in (key, "params")]
    assert main(without) == 1
    assert "another run" in one_line(capsys)
