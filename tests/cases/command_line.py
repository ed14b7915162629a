"""Checkpoints, images and arguments for the tests of the command line."""

import pytest
import torch

import faigfast
from faigfast.data import Degradation, DegradedFolder, PairedFolders, write_image
from faigfast.zoo import SRResNet

SIZE = (24, 29)  # of every image; the width does not divide by the scale 2


@pytest.fixture(scope="module")
def one_thread():
    """Images this small only lose by threads, and much where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def files(tmp_path_factory, one_thread):
    """Two checkpoints and folders of small images, seen from the folder that is returned."""
    folder = tmp_path_factory.mktemp("files")
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nets = [SRResNet(width=3, blocks=1, scale=2) for _ in range(2)]
        for net in nets:
            for weight in net.parameters():  # far enough apart for a meaningful change of loss
                weight.data.add_(0.05 * torch.randn(weight.shape))
    torch.save(
        {"params": nets[1].state_dict(), "params_ema": nets[0].state_dict()}, folder / "a.pth"
    )
    faigfast.save_model(nets[1], folder / "b.safetensors")
    for n in range(3):
        gt = torch.rand(3, *SIZE, generator=generator)
        write_image(folder / "gt" / f"image{n}.png", gt)
        low = gt[None, :, :, :28]
        write_image(folder / "soft" / f"image{n}.png", Degradation(blur=1.0)(low)[0])
        write_image(folder / "grainy" / f"image{n}.png", Degradation(noise=0.1)(low)[0])
    (folder / "mine.py").write_text(
        "from torch import nn\n\n\n"
        "def network(channels=3):\n"
        "    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Sigmoid())\n"
    )
    return folder


@pytest.fixture
def here(files, monkeypatch, tmp_path):
    """Folder for results, beside `files`; images of one size are attributed one by one."""
    monkeypatch.chdir(files)
    monkeypatch.setattr("faigfast.cli.reading.IMAGES", 1)
    return tmp_path / "out"


def attribute(output, *words, steps=2):
    """Arguments of a short run; words without an option are recipes."""
    recipes = words if words and words[0].startswith("--") else ("--degrade", *words)
    argv = ["attribute", "a.pth", "b.safetensors", "--gt", "gt", "--output", str(output)]
    return [*argv, "--steps", str(steps), "--quiet", *recipes]


RECIPES = ("blur=1", "noise=0.1")


def expected(data, **options):
    """What the library gives for the checkpoints of `files`."""
    pair = faigfast.load_pair("a.pth", "b.safetensors")
    return faigfast.attribute(*pair, data.batches(), **{"steps": 2, **options})


def recipes():
    recipe = {"blur": Degradation(blur=1.0), "noise": Degradation(noise=0.1)}
    with pytest.warns(UserWarning, match="cropped"):
        return DegradedFolder("gt", recipe)


def folders():
    with pytest.warns(UserWarning, match="cropped"):
        return PairedFolders("gt", {"soft": "soft", "x": "grainy"})


def same(one, other):
    assert one.degradations == other.degradations and one.setting == other.setting
    for name in one.degradations:
        assert torch.equal(one.scores(name), other.scores(name))
    assert torch.equal(one.losses, other.losses)
    assert torch.equal(one.completeness, other.completeness)


def load(output):
    return faigfast.Attribution.load(output / "scores.safetensors")


def one_line(capsys):
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("faigfast: error: ")
    return err
