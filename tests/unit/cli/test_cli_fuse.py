"""Networks that merge their branches, and networks that cannot be ranked, on the command line."""

import json

import pytest
import torch
from cases import command_line
from cases.command_line import load, one_line
from cases.unrankable_networks import RepVGGLike, RoundedOutput, TwoLayers
from safetensors.torch import load_file

import faigfast
from faigfast import FilterIndex
from faigfast.cli.main import main
from faigfast.cli.study import open_pair
from faigfast.data import write_image

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

PLACES = """
from cases.unrankable_networks import RepVGGLike, RoundedOutput, TwoLayers, merge_branches


def merge_nothing(network):
    return network


def merge_and_keep_names(network):
    network.merge()
    network.merge = lambda: None
"""


@pytest.fixture
def checkpoints(files, here):
    """Two checkpoints of each network, beside the folder for results."""
    (files / "places.py").write_text(PLACES)
    for make in (RepVGGLike, RoundedOutput, TwoLayers):
        for n in (0, 1):
            with torch.random.fork_rng():
                torch.manual_seed(n)
                torch.save(make().state_dict(), here.parent / f"{make.__name__}{n}.pth")

    def argv(name, *words, output=here, command="attribute"):
        pair = [str(here.parent / f"{name}{n}.pth") for n in (0, 1)]
        degraded = ["--gt", "gt", "--degrade", "blur=1", "noise=0.1", "--scale", "1"]
        network = ["--into", f"places:{name}", "--output", str(output), "--quiet"]
        return [command, *pair, *degraded, *network, *words]

    return argv


def test_fuse_merges_both_networks_first(checkpoints, here):
    words = ["--steps", "2", "--fuse", "places:merge_branches"]
    assert main(checkpoints("RepVGGLike", *words)) == 0
    result = load(here)
    assert result.index.layers == ("0.weight", "2.weight") and not result.zero_gradient
    assert not any(note.startswith(("forward: ", "gradient: ")) for note in result.notes)
    other = checkpoints("RepVGGLike", "--steps", "2", output=here.parent / "branches")
    assert main(other) == 0
    branches = load(here.parent / "branches")
    assert branches.zero_gradient == ("wide.weight", "narrow.weight")
    notes = json.loads((here.parent / "branches" / "manifest.json").read_text())["notes"]
    assert any(note.startswith("forward: ") and "'merged.weight'" in note for note in notes)


def test_another_fuse_is_another_run(checkpoints, capsys):
    assert main(checkpoints("RepVGGLike", "--steps", "2")) == 0
    capsys.readouterr()
    words = ["--steps", "2", "--fuse", "places:merge_branches"]
    assert main(checkpoints("RepVGGLike", *words)) == 1
    assert "fuse" in one_line(capsys)


@pytest.mark.parametrize(
    ("fuse", "message"),
    [
        ("places:absent", "fuse is 'places:absent'"),
        ("nowhere:merge", "expected MODULE:FUNCTION, importable from here"),
        ("places:__name__", "fuse is a str; expected a function"),
    ],
)
def test_a_fuse_that_does_not_exist(checkpoints, capsys, fuse, message):
    assert main(checkpoints("RepVGGLike", "--fuse", fuse)) == 1
    assert message in one_line(capsys)


def test_findings_fuse_too(checkpoints, parser):
    argv = checkpoints("RepVGGLike", "--fuse", "places:merge_branches", command="mask")
    for net in open_pair(parser.parse_args(argv).mask):
        assert FilterIndex.of(net).layers == ("0.weight", "2.weight")
        assert "RepVGGLike" in str(net.faigfast_source)


RETRAIN = ["--iterations", "2", "--batch", "2", "--patch", "8", "--crop", "16"]
SAVE = ["--save", "changed.pth", "--set", "blur=0", "--strengths", "0", "1", "--crop", "16"]


@pytest.mark.parametrize(
    ("fuse", "reason"),
    [
        ("merge_branches", "the file has other tensors: the networks differ"),
        ("merge_and_keep_names", "merging again overwrites 'merged.weight'"),
    ],
)
@pytest.mark.parametrize(
    ("command", "more"), [("retrain", [*RETRAIN, "--train", "others"]), ("modulate", SAVE)]
)
def test_a_merged_network_is_not_saved_under_the_keys_of_branches(
    checkpoints, here, capsys, command, more, fuse, reason
):
    write_image("others/one.png", torch.rand(3, 24, 24))
    argv = checkpoints("RepVGGLike", "--fuse", f"places:{fuse}", *more, command=command)
    assert main(argv) == 1
    line = one_line(capsys)
    assert f"fuse is 'places:{fuse}'" in line and "RepVGGLike1.pth" in line
    assert reason in line and "expected checkpoints that are merged already" in line
    assert not list(here.glob("*.safetensors")) and not list(here.glob("blur-*"))


def test_a_fuse_that_merges_nothing_saves_under_the_files_keys(checkpoints, here, capsys):
    words = [*SAVE, "--fuse", "places:merge_nothing"]
    assert main(checkpoints("TwoLayers", *words, command="modulate")) == 0
    old, new = (torch.load(p, weights_only=True) for p in (here.parent / "TwoLayers1.pth", SAVE[1]))
    assert list(old) == list(new)
    assert any(not torch.equal(value, new[key]) for key, value in old.items())


def test_prune_writes_scores_of_merged_channels(checkpoints, here):
    words = ["--fuse", "places:merge_branches", "--crop", "16", "--steps", "2"]
    assert main(checkpoints("RepVGGLike", *words, command="prune")) == 0
    scores = load_file(here / "channels.safetensors")
    assert {name: len(values) for name, values in scores.items()} == {"0": 4, "2": 3}


def test_scores_of_zero_are_kept_but_not_ranked(checkpoints, here, capsys):
    argv = checkpoints("RoundedOutput", "--steps", "2")
    for _ in range(2):  # the second finds the finished run
        assert main(argv) == 1
        out, err = capsys.readouterr()
        assert "no filters of blur: its scores or contrasts are all 0" in out
        assert err.startswith("faigfast: error: the scores of 'blur' are exactly 0")
        assert err.count("\n") == 1
    assert not load(here).mean("blur").any()
    manifest = json.loads((here / "manifest.json").read_text())
    assert not any(file.endswith("index.txt") for file in manifest["files"])
    assert any(note.startswith("no blur_index.txt: the scores") for note in manifest["notes"])
    assert faigfast.Attribution.load(here / "scores.safetensors").zero_gradient
