"""Names, channels, sizes and padding of images in `faigfast attribute` and the findings."""

import json
import re

import pytest
import torch
from cases import command_line
from cases.command_line import attribute, load, one_line

import faigfast
from faigfast.cli.main import main
from faigfast.data import Degradation, DegradedFolder, write_image

one_thread, files, here = command_line.one_thread, command_line.files, command_line.here

NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Valid(nn.Module):
    """×2, loses 6 pixels of its input."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.up = nn.ConvTranspose2d(4, 3, 4, 2, 3)

    def forward(self, x):
        return self.up(F.leaky_relu(self.first(x), 0.1))


class Halving(nn.Module):
    """Takes multiples of 4, as a U-Net of two levels does."""

    def __init__(self, channels=3):
        super().__init__()
        self.down = nn.Conv2d(channels, 4, 4, 4)
        self.up = nn.ConvTranspose2d(4, channels, 4, 4)
        self.skip = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.up(F.relu(self.down(x))) + self.skip(x)


class Valued(Halving):
    """Looks at values, so that its sizes are known from values alone."""

    def forward(self, x):
        return super().forward(x) if float(x.mean()) < 9 else x
'''


@pytest.fixture(scope="module", autouse=True)
def networks(files):
    """Pairs of three architectures outside the zoo, and images of several sizes."""
    (files / "own_sizes.py").write_text(NETWORKS)
    namespace = {}
    exec(NETWORKS, namespace)
    torch.manual_seed(0)
    for name, arguments in (("Valid", {}), ("Halving", {}), ("Halving", {"channels": 1})):
        network = namespace[name](**arguments)
        stem = f"{name.lower()}{arguments.get('channels', '')}"
        torch.save(network.state_dict(), files / f"{stem}-a.pth")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        torch.save(network.state_dict(), files / f"{stem}-b.pth")
    sizes = {"a": (16, 16), "b": (16, 16), "c": (18, 16), "d": (16, 24)}
    for name, size in sizes.items():
        write_image(files / "sizes" / f"{name}.png", torch.rand(3, *size))


@pytest.fixture
def unattributed(monkeypatch):
    """Nothing may be attributed."""
    monkeypatch.setattr(faigfast, "Attributor", None)


def own(stem, network, output, *words, gt="sizes"):
    argv = ["attribute", f"{stem}-a.pth", f"{stem}-b.pth", "--gt", gt, "--output", str(output)]
    argv += ["--into", f"own_sizes:{network}", "--steps", "2", "--quiet"]
    return [*argv, *words]


@pytest.mark.parametrize("network", ["Halving", "Valued"])
def test_sizes_are_checked_before_the_first_image(here, capsys, unattributed, network):
    argv = own("halving", network, here, "--scale", "1", "--degrade", "noise=0.1")
    assert main(argv) == 1
    text = one_line(capsys)
    assert "1 of 4 images does not fit the network: c; degraded image 'c' is 18×16: " in text
    assert "expected --crop-to 4, or other images" in text
    assert not here.exists()


def test_images_cropped_to_a_multiple(here):
    argv = own("halving", "Halving", here, "--scale", "1", "--degrade", "noise=0.1")
    assert main([*argv, "--crop_to", "4"]) == 0
    with pytest.warns(UserWarning, match=r"cropped . of . images at .* since sides .* crop_to=4"):
        data = DegradedFolder("sizes", {"noise": Degradation(noise=0.1, scale=1)}, crop_to=4)
    from own_sizes import Halving

    pair = faigfast.load_pair("halving-a.pth", "halving-b.pth", into=Halving())
    expected = faigfast.attribute(*pair, data.batches(), steps=2)
    torch.testing.assert_close(load(here).scores(), expected.scores())
    made_from = json.loads((here / "manifest.json").read_text())["made_from"]
    assert made_from["crop_to"] == 4 and "pad" not in made_from
    assert main(argv) == 1  # of other images, and they do not fit


def test_networks_that_lose_pixels_are_padded(here, capsys):
    argv = own("valid", "Valid", here, "--scale", "2", "--degrade", "noise=0.1")
    assert main(argv) == 1
    text = one_line(capsys)
    assert "4 of 4 images do not fit the network: a, b, c and 1 more" in text
    assert "the network makes 3×8×8 of 3×8×8 and gt is 3×16×16; expected --pad 2" in text
    assert main([*argv, "--pad", "2"]) == 0
    result = load(here)
    assert result.setting.pad == 2 and result.images == 4
    assert json.loads((here / "manifest.json").read_text())["made_from"]["pad"] == 2
    capsys.readouterr()
    assert main([*argv, "--pad", "3"]) == 1
    assert "--pad was 2, is 3" in one_line(capsys)


@pytest.mark.parametrize("pad, message", [("8", "pad=8 is not less than"), ("-1", "pad is -1")])
def test_pads_that_do_not_fit(here, capsys, unattributed, pad, message):
    argv = own("valid", "Valid", here, "--scale", "2", "--degrade", "noise=0.1")
    assert main([*argv, "--pad", pad]) == 1
    assert message in one_line(capsys)


def test_gray_networks_read_gray(here):
    argv = own("halving1", "Halving", here, "--scale", "1", "--degrade", "noise=0.1")
    argv += ["--into_kwargs", '{"channels": 1}', "--crop_to", "4"]
    assert main(argv) == 0
    assert load(here).index.shapes[0] == (4, 1, 4, 4)


def test_lq_names_and_subfolders(here, files, capsys):
    for n in range(3):
        low = faigfast.data.read_image(files / "soft" / f"image{n}.png")
        write_image(files / "named" / "low" / f"image{n}-small.png", low)
        gt = faigfast.data.read_image(files / "gt" / f"image{n}.png")
        write_image(files / "named" / "gt" / f"sub/image{n}.png", gt)
        write_image(files / "named" / "deep" / f"sub/image{n}_LR.png", low)
    argv = attribute(here, "--lq", "soft=named/low")
    assert main(argv) == 1
    assert "the closest to image0 is image0-small.png" in one_line(capsys)
    assert main([*argv, "--lq_name", "{}-small"]) == 0
    deep = attribute(here.with_name("deep"), "--lq", "soft=named/deep", "--recursive")
    deep[deep.index("gt")] = "named/gt"
    assert main(deep) == 0
    one, other = load(here), load(here.with_name("deep"))
    assert torch.equal(one.scores(), other.scores())
    manifest = json.loads((here.with_name("deep") / "manifest.json").read_text())
    assert [image["name"] for image in manifest["images"]] == [f"sub/image{n}" for n in range(3)]
    assert any("such as '{}_LR'" in note for note in manifest["notes"])
    capsys.readouterr()
    assert main(attribute(here, "--degrade", "blur=1", "--lq_name", "{}x2")) == 1
    assert "--lq-name is given without --lq" in one_line(capsys)


def test_errors_inside_an_image_name_the_file(here, files, capsys):
    for side in (10, 40):
        write_image(files / "small" / f"side{side}.png", torch.rand(3, side, side))
    argv = attribute(here, "--degrade", "blur=2")
    argv[argv.index("gt")] = "small"
    assert main(argv) == 1
    assert re.search(r"small/side10\.png, degradation 'blur': .*10×10", one_line(capsys))


def test_findings_pad_too(here, capsys):
    words = ["mask", "valid-a.pth", "valid-b.pth", "--into", "own_sizes:Valid", "--gt", "sizes"]
    words += ["--output", str(here), "--scale", "2", "--degrade", "blur=0.5", "noise=0.1"]
    words += ["--crop", "16", "--steps", "2", "--attributed", "2", "--methods", "faig", "input"]
    words += ["--metrics", "psnr", "difference", "--border", "1", "--fractions", "0.2", "--quiet"]
    assert main(words) == 1
    assert "A network that loses pixels needs --pad" in one_line(capsys)
    assert main([*words, "--pad", "2"]) == 0
    assert "loses pixels" not in capsys.readouterr().err


def test_retraining_of_a_network_that_loses_pixels(here, files):
    write_image(files / "teach" / "a.png", torch.rand(3, 48, 48))
    words = ["retrain", "valid-a.pth", "valid-b.pth", "--into", "own_sizes:Valid", "--gt", "sizes"]
    words += ["--output", str(here), "--scale", "2", "--degrade", "noise=0.1", "--crop", "16"]
    words += ["--steps", "2", "--attributed", "2", "--border", "1", "--fraction", "0.2", "--quiet"]
    words += ["--train", "teach", "--iterations", "2", "--batch", "2", "--patch", "12"]
    assert main([*words, "--contrast", "noise:", "--pad", "2"]) == 0
    assert len(list(here.glob("noise-*/state.part"))) == 4


def test_prediction_by_a_network_that_loses_pixels(here, files):
    for n in range(2):
        write_image(files / "unseen" / f"{n}.png", torch.rand(3, 9 + n, 12))
    words = ["predict", "valid-a.pth", "valid-b.pth", "--into", "own_sizes:Valid", "--gt", "sizes"]
    words += ["--output", str(here), "--scale", "2", "--degrade", "blur=0.5", "noise=0.1"]
    words += ["--crop", "16", "--steps", "2", "--images", "unseen", "--pad", "2", "--quiet"]
    assert main(words) == 0
    assert "noise" in (here / "predicted-images.csv").read_text()


@pytest.mark.parametrize(
    ("recipe", "objective", "message"),
    [
        ("blur=2", "squared_error", "z.png, degradation 'blur': an image of 2×2 is too small"),
        ("noise=0.1", "ssim", "image 'z': objective 'ssim' gets images [1, 3, 2, 2]"),
    ],
)
def test_an_image_too_small_for_recipe_or_objective_is_refused_before_the_first(
    files, tmp_path, monkeypatch, capsys, recipe, objective, message
):
    monkeypatch.chdir(files)
    monkeypatch.setattr("faigfast.Attributor.__call__", None)  # computes nothing
    for name, side in (("a", 24), ("z", 2)):
        write_image(tmp_path / "gt" / f"{name}.png", torch.rand(3, side, side))
    argv = ["attribute", "a.pth", "b.safetensors", "--gt", str(tmp_path / "gt"), "--steps", "2"]
    out = tmp_path / "out"
    argv += ["--degrade", recipe, "--objective", objective, "--quiet", "--output", str(out)]
    assert main(argv) == 1
    assert message in one_line(capsys) and not out.exists()
