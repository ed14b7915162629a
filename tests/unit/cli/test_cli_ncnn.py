"""Commands on the .param files of ncnn networks."""

import json

import pytest
import torch
from cases import command_line
from cases.command_line import load, one_line
from cases.ncnn_files import convolution

import faigfast
from faigfast.cli.main import main

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here


@pytest.fixture
def pair(here, files):
    here.parent.mkdir(exist_ok=True)
    return [str(convolution(here.parent, name, seed=seed)) for name, seed in (("a", 0), ("b", 7))]


def test_scores_from_two_param_files_with_one_command(here, files, pair, capsys):
    words = ["--degrade", "clean", "noise=0.1", "--pad", "2", "--steps", "1"]
    command = ["attribute", *pair, "--gt", "gt", *words, "--output", str(here)]
    command += ["--backend", "reference"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "baseline ncnn network of a.param" in output
    result = load(here)
    assert result.index.layers == ("conv1.weight", "up_2.weight")
    assert json.loads((here / "manifest.json").read_text())["used"]["scale"] == 2
    assert main([*command, "--quiet"]) == 0  # the results are kept
    capsys.readouterr()
    convolution(here.parent, "b", seed=9)
    assert main([*command, "--quiet"]) == 1  # the weights are in b.bin
    assert "holds the results of another run: the weights of the target have changed; " in one_line(
        capsys
    )
    assert main([*command, "--quiet", "--overwrite"]) == 0
    assert not torch.equal(load(here).scores("clean"), result.scores("clean"))


def test_a_modulated_network_is_saved_beside(here, files, pair, capsys):
    saved = str(here.parent / "modulated.param")
    words = ["--degrade", "clean", "noise=0.1", "--pad", "2", "--steps", "1", "--crop", "24"]
    words += ["--backend", "reference", "--set", "noise=0", "--quiet", "--save"]
    assert main(["modulate", *pair, "--gt", "gt", *words, saved]) == 0
    network, target = faigfast.load_model(saved), faigfast.load_model(pair[1])
    assert not torch.equal(network.conv1.weight, target.conv1.weight)
    assert (here.parent / "modulated.bin").stat().st_size == 4 * (2 + 108 + 4 + 192 + 3)
    capsys.readouterr()
    assert main(["modulate", *pair, "--gt", "gt", *words, pair[1]]) == 1
    assert "is a checkpoint of the pair" in one_line(capsys)
    words = ["--output", str(here), *words]
    assert main(["modulate", "a.pth", "b.safetensors", "--gt", "gt", *words, saved]) == 1
    assert "needs the layers of the target" in one_line(capsys)
