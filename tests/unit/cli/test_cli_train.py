import json
import shlex

import pytest
import torch
from cases import command_line
from cases.command_line import one_line
from torch import nn

import faigfast
from faigfast.analysis.evaluation import crops, evaluate
from faigfast.cli.main import main
from faigfast.data import Degradation, photographs
from faigfast.training.trainer import Schedule
from faigfast.zoo import SRResNet

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

TRAIN = ["--width", "3", "--depth", "1", "--iterations", "2", "3", "--patch", "8", "--batch", "2"]


@pytest.fixture
def one_photograph(monkeypatch):
    monkeypatch.setattr("faigfast.cli.train.KEPT_OUT", ("camera.png",))


def test_train_goes_on_and_measures(here, files, one_photograph, capsys, monkeypatch):
    argv = ["train", "--output", str(here), "--folder", "gt", "--quiet", *TRAIN]
    state = torch.random.get_rng_state()
    original = faigfast.training.trainer.train
    calls = []

    def stopped(network, *args, **options):
        calls.append(network)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(network, *args, **options)

    monkeypatch.setattr("faigfast.training.trainer.train", stopped)
    assert main(argv) == 130
    assert (here / "baseline.safetensors").exists() and not (here / "target.safetensors").exists()
    monkeypatch.setattr("faigfast.training.trainer.train", original)
    capsys.readouterr()
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert (here / "command.txt").read_text() == shlex.join(["faigfast", *argv]) + "\n"

    uninterrupted = here.parent / "uninterrupted"
    assert main([word if word != str(here) else str(uninterrupted) for word in argv]) == 0
    for name in ("baseline", "target"):
        one, other = (faigfast.load_model(f / f"{name}.safetensors") for f in (here, uninterrupted))
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key])

    evaluation = json.loads((here / "evaluation.json").read_text())
    for text in (evaluation["measure"], out):
        assert "crops treated as independent, narrower than that for new photographs" in text
    degradations = {
        "clean": Degradation(),
        "blur 2": Degradation(blur=2.0),
        "noise 0.1": Degradation(noise=0.1),
    }
    data = crops(photographs(("camera.png",)), degradations, 96)
    psnr = evaluate(faigfast.load_model(here / "target.safetensors"), data, border=2)
    assert evaluation["crops"] == list(data.names)
    for name in degradations:
        assert evaluation["psnr"][name]["target"] == pytest.approx(psnr[name].tolist(), abs=1e-4)
        row = next(line for line in out.splitlines() if line.startswith(name))
        assert f"{psnr[name].mean():.2f} ±" in row
    capsys.readouterr()
    assert main([*argv, "--rates", "1e-3", "1e-3"]) == 1
    assert "holds the results of another run: --rates was " in one_line(capsys)
    torch.random.set_rng_state(state)


def test_train_by_default_makes_what_ships(here, monkeypatch):
    seen = {}

    class Stop(Exception):
        pass

    def record(folder, network, images, **options):
        seen.update(options, network=network, images=images, folder=folder)
        raise Stop

    monkeypatch.setattr("faigfast.cli.train.train_pair", record)
    with torch.random.fork_rng():
        assert main(["train", "--output", str(here), "--quiet"]) == 1
        torch.manual_seed(0)
        wanted = SRResNet(width=32, blocks=8, scale=2).state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in seen["network"].state_dict().items())
    assert seen["baseline"] == Schedule(iterations=3000, learning_rate=5e-4)
    assert seen["target"] == Schedule(iterations=1200, learning_rate=2e-3)
    assert list(seen["images"]) == list(photographs(faigfast.data.TRAINING))
    recipe = {"scale": 2, "blur": (2.0,), "noise": (0.1,), "probability": 0.5, "patch": 32}
    assert {name: seen[name] for name in recipe} == recipe
    assert seen["progress"] is False


def test_train_srcnn_without_noise(here, files, one_photograph):
    argv = ["train", "--output", str(here), "--folder", "gt", "--quiet", *TRAIN, "--noise"]
    with torch.random.fork_rng():
        assert main([*argv, "--network", "srcnn"]) == 0
    target = faigfast.load_model(here / "target.safetensors")
    assert [c.out_channels for c in target.features if isinstance(c, nn.Conv2d)][:2] == [3, 6]
    assert list(json.loads((here / "evaluation.json").read_text())["psnr"]) == ["clean", "blur 2"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folder", "nowhere"], "there is no folder nowhere"),
        (["--folder", "."], "has no image"),
        (["--folder", "gt", "--patch", "500"], "no photograph holds a patch"),
        (["--folder", "gt", "--threads", "0"], "threads is 0"),
        (["--folder", "gt", "--scale", "7"], "scale is 7"),
        (["--folder", "gt", "--patch", "0"], "patch is 0"),
        (["--folder", "gt", "--blur", "2", "-2"], "blur is -2.0"),
        (["--folder", "gt", "--noise", "-0.1"], "noise is -0.1"),
        (["--folder", "gt", "--patch", "8", "--probability", "7"], "probability is 7.0"),
    ],
)
def test_bad_training(here, one_photograph, capsys, words, message):
    with torch.random.fork_rng():
        assert main(["train", "--output", str(here), "--quiet", *words]) == 1
    assert message in one_line(capsys)
    assert not list(here.rglob("*"))  # refused before anything was trained


@pytest.mark.filterwarnings("default")
def test_a_damaged_state_is_told_in_one_line(here, files, one_photograph, capsys):
    argv = ["train", "--output", str(here), "--folder", "gt", "--quiet", *TRAIN]
    with torch.random.fork_rng():
        assert main(argv) == 0
        state = here / "target" / "state.part"
        state.write_bytes(state.read_bytes()[:1000])
        capsys.readouterr()
        assert main(argv) == 0
    assert capsys.readouterr().err == f"faigfast: {state} is damaged: the training starts again\n"


def test_a_finished_pair_keeps_its_record(here, files, one_photograph, capsys):
    argv = ["train", "--output", str(here), "--folder", "gt", "--quiet", *TRAIN]
    with torch.random.fork_rng():
        assert main(argv) == 0
        record = json.loads((here / "training.json").read_text())
        (here / "training.json").write_text(json.dumps({**record, "torch": "another"}))
        command = (here / "command.txt").read_text()
        again = [word for word in argv if word != "--quiet"]
        assert main(again) == 0
        assert json.loads((here / "training.json").read_text())["torch"] == "another"
        assert (here / "command.txt").read_text() == command
        for name in ("baseline", "target"):
            (here / name / "state.part").unlink()
        again += ["--probability", "0.25"]
        assert main(again) == 0
    renewed = json.loads((here / "training.json").read_text())
    assert renewed["torch"] == torch.__version__ and renewed["target"]["probability"] == 0.25
    assert (here / "command.txt").read_text() == shlex.join(["faigfast", *again]) + "\n"
