"""Shapes of outputs without values; images that do not fit a network, and what would."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from faigfast.cli.fitting import check_sizes
from faigfast.models.output_shape import OutputShapes, image_channels
from faigfast.zoo import SRResNet


class Windows(nn.Module):
    """Attention in windows of 8 pixels, as a network that does not pad itself."""

    def __init__(self, window=8):
        super().__init__()
        self.conv, self.window = nn.Conv2d(3, 3, 3, padding=1), window

    def forward(self, x):
        n, c, h, w = x.shape
        side = self.window
        x = self.conv(x).view(n, c, h // side, side, w // side, side)
        return x.softmax(3).view(n, c, h, w)


class Counting(nn.Module):
    """Counts its calls, whatever it runs on."""

    calls = 0

    def __init__(self, valued=False):
        super().__init__()
        self.conv, self.valued = nn.Conv2d(3, 3, 3), valued
        self.table = torch.ones(3, 1, 1)  # no buffer
        self.kept = {}

    def forward(self, x):
        Counting.calls += 1
        if self.valued and float(x.sum()) < 0:
            return x
        self.kept[x.shape] = x
        return self.conv(x) * self.table


@pytest.mark.parametrize("operations", [0, 1e12])
@pytest.mark.parametrize("valued", [False, True])
def test_shapes_are_those_of_the_network(valued, operations, monkeypatch):
    monkeypatch.setattr("faigfast.models.output_shape.OPERATIONS", operations)
    network = Counting(valued).train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    shapes = OutputShapes(network)
    assert shapes.of(3, 9, 12) == (1, 3, 7, 10)
    assert shapes.cheap() is not (valued and not operations)
    assert valued or operations or not network.kept
    assert network.training and all(
        torch.equal(state[k], v) for k, v in network.state_dict().items()
    )
    with pytest.raises(ValueError, match=r"the networks do not take x \[1, 3, 2, 9\]"):
        shapes.of(3, 2, 9)
    assert shapes.of(3, 5, 5) == (1, 3, 3, 3)


def test_outputs_that_are_no_tensor():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.conv(x), x

    with pytest.raises(ValueError, match="the network returns a tuple; expected a tensor"):
        OutputShapes(Pair()).of(3, 8, 8)


class Given(nn.Conv2d):
    channels = 1


@pytest.mark.parametrize(
    "network, channels",
    [
        (SRResNet(width=4, blocks=1, scale=2), 3),
        (nn.Conv2d(1, 4, 3), 1),
        (Given(3, 3, 3), 1),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)), 3),
        (nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 3)), 1),
        (nn.Conv2d(9, 4, 3), 3),  # neither
    ],
)
def test_channels_of_images(network, channels):
    assert image_channels(network) == channels


def check(network, sizes, **options):
    named = {f"image{n}": size for n, size in enumerate(sizes)}
    check_sizes(network, named, **{"scale": 1, "channels": 3, **options})


def test_windows():
    check(Windows(), [(16, 24), (8, 8)])
    with pytest.raises(ValueError) as error:
        check(Windows(), [(16, 24), (16, 23), (18, 24), (16, 23)])
    assert str(error.value).startswith(
        "3 of 4 images do not fit the network: image1, image2, image3; degraded image 'image1' is "
        "16×23: the networks do not take x [1, 3, 16, 23] of torch.float32: "
    )
    assert str(error.value).endswith("; expected --crop-to 8, or other images")
    with pytest.raises(ValueError, match=r"expected --crop-to 16, or other images"):
        check(Windows(), [(16, 8 * 3 + 4)], crop_to=16)
    check(Windows(), [(12, 12)], pad=2)


def test_networks_that_lose_pixels():
    network = nn.Sequential(nn.Conv2d(3, 3, 5), nn.Conv2d(3, 3, 5))  # 4 on every side
    with pytest.raises(ValueError, match=r"makes 3×8×12 of 3×16×20 and gt is 3×16×20; .*--pad 4,"):
        check(network, [(16, 20), (30, 30)])
    with pytest.raises(ValueError, match=r"makes 3×14×18 of 3×22×26 and gt is 3×16×20, which is l"):
        check(network, [(16, 20)], pad=3)
    check(network, [(16, 20), (30, 30)], pad=4)
    check(network, [(16, 20)], pad=6)
    with pytest.raises(ValueError, match=r"image0' is 16×4: pad=4 is not less than its sides"):
        check(network, [(16, 4)], pad=4)
    even = nn.Conv2d(3, 3, 2)  # half a pixel to one side
    with pytest.raises(ValueError, match=r"gt is 3×9×9, which has no middle; expected images"):
        check(even, [(9, 9)], pad=1)


def test_another_scale():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return F.interpolate(self.conv(x), scale_factor=2)

    check(Twice(), [(9, 9)], scale=2)
    with pytest.raises(
        ValueError, match=r"makes 3×18×18 .*; the network enlarges by 2 and .* expected --scale 2"
    ):
        check(Twice(), [(9, 9)], scale=3)


def test_each_size_is_tried_once():
    Counting.calls = 0
    check(Counting(), [(20, 20), (30, 30), (20, 20), (30, 30)], pad=1)
    assert Counting.calls <= 6
