"""`faigfast baseline`: a baseline from one checkpoint."""

import json

import pytest
import torch
from cases import command_line
from cases.command_line import one_line
from cases.ncnn_files import convolution
from cases.training import equal

import faigfast
from faigfast.cli.main import main
from faigfast.training import Derivation, derivation_run
from faigfast.zoo.checkpoints import read_checkpoint

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

WORDS = ["--gt", "gt", "--patch", "4", "--batch", "2", "--iterations", "3", "--forget", "noise=0.1"]


@pytest.fixture
def output(here):
    here.parent.mkdir(exist_ok=True)
    return here.parent / "baseline.safetensors"


def baseline(target, output, *words):
    return ["baseline", str(target), *WORDS, "--output", str(output), "--quiet", *words]


def test_writes_the_baseline_and_its_record(files, output, capsys):
    command = baseline("b.safetensors", output, "--threads", "1")
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == "" and "noise=0.1  to be forgotten" in out
    assert "wrote baseline.safetensors and baseline.json" in out
    network, target = faigfast.load_model(output), faigfast.load_model("b.safetensors")
    assert not equal(network.state_dict(), target.state_dict())
    content = json.loads(output.with_suffix(".json").read_text())
    assert content["command"].startswith("faigfast baseline b.safetensors")
    names = Derivation.__dataclass_fields__
    record = Derivation.from_json({key: content[key] for key in names})
    assert record.forgotten == ("noise=0.1",) and record.settings["iterations"] == 3
    wanted = faigfast.derive_baseline(
        target, "gt", patch=4, batch=2, iterations=3, forget="noise=0.1"
    )
    assert equal(network.state_dict(), wanted.state_dict())
    assert record.baseline == wanted.faigfast_derivation.baseline


def test_a_killed_command_goes_on(files, output, monkeypatch, capsys):
    monkeypatch.setattr(derivation_run, "MEASURE_EVERY", 1)
    command = baseline("b.safetensors", output)
    original, steps = derivation_run.DerivationRun._step, []

    def stopped(run):
        steps.append(run.done)
        if len(steps) == 3:
            raise KeyboardInterrupt
        original(run)

    monkeypatch.setattr(derivation_run.DerivationRun, "_step", stopped)
    assert main(command) == 130
    assert not output.exists()
    assert main(command) == 0
    assert steps == [0, 1, 2, 2]
    resumed = output.read_bytes()
    assert main(command) == 0  # nothing is computed again
    assert len(steps) == 4 and output.read_bytes() == resumed
    capsys.readouterr()
    assert main([*command, "--seed", "1"]) == 1
    assert "holds the results of another run: --seed was 0, is 1; " in one_line(capsys)
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert output.read_bytes() != resumed
    other = output.with_name("other.safetensors")
    assert main(baseline("b.safetensors", other)) == 0
    assert other.read_bytes() == resumed


def test_keeps_the_keys_of_the_target(files, output):
    path = output.with_suffix(".pth")
    assert main(baseline("a.pth", path, "--key", "params")) == 0
    written, target = (torch.load(p, weights_only=True) for p in (path, "a.pth"))
    assert equal(written["params_ema"], target["params_ema"])
    assert not equal(written["params"], target["params"])


def test_writes_a_network_of_ncnn(files, output):
    target = convolution(output.parent, "target")
    path = output.with_suffix(".param")
    assert main(baseline(target, path, "--pad", "2", "--keep", "gray-noise=0.2")) == 0
    network = faigfast.load_model(path)
    assert not torch.equal(network.conv1.weight, faigfast.load_model(target).conv1.weight)
    assert path.read_text() == target.read_text() and path.with_suffix(".bin").exists()
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["settings"]["pad"] == 2 and record["kept"] == ["gray-noise=0.2"]


def test_takes_an_own_architecture(files, output):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.Sigmoid())
    target = output.with_name("own.safetensors")
    faigfast.save_model(network, target)
    assert main(baseline(target, output, "--into", "mine:network")) == 0
    assert set(read_checkpoint(output).state) == {"0.weight", "0.bias"}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--threads", "0"), "threads is 0; expected a positive integer"),
        (("--patch", "16"), "expected sides of at least 32 pixels"),
        (("--scale", "3"), "scale is 3 and the network enlarges by 2"),
        (("--keep", "rust=1"), "keep: "),
        (("--gt", "nowhere"), "nowhere"),
        (("--rate", "-1"), "--rate is -1.0"),
    ],
)
def test_refuses_and_leaves_nothing(files, output, capsys, words, text):
    assert main([*baseline("b.safetensors", output), *words]) == 1
    assert text in one_line(capsys)
    assert not list(output.parent.glob("baseline*"))


def test_refuses_wrong_files(files, output, capsys):
    output.write_bytes(b"")
    assert main(baseline("b.safetensors", output)) == 1
    assert "exists; expected a new file, or --overwrite" in one_line(capsys)
    assert main(baseline("b.safetensors", "b.safetensors")) == 1
    assert "is the target; expected another file" in one_line(capsys)
    assert main(baseline("b.safetensors", output.with_suffix(".param"))) == 1
    assert "needs the layers of the target" in one_line(capsys)
    assert main(baseline("b.safetensors", output.with_suffix(".txt"))) == 1
    assert "ends in '.txt'" in one_line(capsys)
