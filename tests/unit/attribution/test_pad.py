"""pad=: padded images and the middle of the output, against modules that pad and cut themselves."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import faigfast
from faigfast.analysis.baselines import rank_by

BACKENDS = ("reference", "torch", "cpu")


class Valid(nn.Module):
    """×2 by convolutions without padding, as waifu2x's upconv_7: 10 pixels are lost."""

    def __init__(self, channels=6):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3)
        self.second = nn.Conv2d(channels, channels, 3)
        self.up = nn.ConvTranspose2d(channels, 3, 4, 2, 3)

    def forward(self, x):
        x = F.leaky_relu(self.first(x), 0.1)
        return self.up(F.leaky_relu(self.second(x), 0.1))


class Same(nn.Module):
    """×2 by convolutions that keep the size."""

    def __init__(self, channels=6):
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, 12, 3, padding=1)

    def forward(self, x):
        return F.pixel_shuffle(self.second(F.relu(self.first(x))), 2)


class Line(nn.Module):
    """Signals of one axis."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(2, 4, 3)
        self.second = nn.Conv1d(4, 2, 3)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


class Padded(nn.Module):
    """The same by a module: pads, runs the network, and takes the middle."""

    def __init__(self, network, pad, scale):
        super().__init__()
        self.network, self.pad, self.scale = network, pad, scale

    def forward(self, x):
        y = self.network(F.pad(x, [self.pad] * 2 * (x.ndim - 2), mode="reflect"))
        for axis in range(2, x.ndim):
            side = self.scale * x.shape[axis]
            y = y.narrow(axis, (y.shape[axis] - side) // 2, side)
        return y


def pair(kind, dtype=torch.float64):
    torch.manual_seed(0)
    baseline = kind().to(dtype)
    target = copy.deepcopy(baseline)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return baseline, target


def images(dtype=torch.float64, height=12, width=9):
    x = {name: torch.rand(2, 3, height, width, dtype=dtype) for name in ("blur", "noise")}
    return {"lq": x, "gt": torch.rand(2, 3, 2 * height, 2 * width, dtype=dtype)}


def charbonnier(output, gt):
    return ((output - gt).square() + 1e-3).sqrt().flatten(1).sum(1)


def assert_same(result, expected, tolerance=1e-12):
    for name in expected.degradations:
        one, other = result.scores(name), expected.scores(name)
        assert float((one - other).abs().sum() / other.abs().sum()) < tolerance
    torch.testing.assert_close(result.losses, expected.losses, rtol=tolerance, atol=0)
    torch.testing.assert_close(result.points, expected.points)


@pytest.mark.parametrize("objective", ["squared_error", "absolute_error", charbonnier])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind, pad", [(Valid, 3), (Valid, 6), (Same, 4)])
def test_a_module_that_pads_and_cuts(kind, pad, backend, objective):
    networks, batch = pair(kind), images()
    options = {"steps": 3, "objective": objective}
    result = faigfast.attribute(*networks, batch, pad=pad, backend=backend, **options)
    modules = [Padded(network, pad, 2) for network in networks]
    assert_same(result, faigfast.attribute(*modules, batch, backend="reference", **options))
    assert result.index.layers == ("first.weight", "second.weight", *networks[0].state_dict())[
        :2
    ] + (("up.weight",) if kind is Valid else ())
    assert result.setting.pad == pad and not any("point by point" in n for n in result.notes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_runs_folded_with_the_fused_loss(backend, monkeypatch):
    networks, batch = pair(Same, torch.float32), images(torch.float32, 40, 36)
    monkeypatch.setattr("faigfast.engine.losses.loss", _never)
    options = {"steps": 3, "memory": 10**9}
    result = faigfast.attribute(*networks, batch, pad=4, backend=backend, **options)
    modules = [Padded(network, 4, 2) for network in networks]
    assert_same(result, faigfast.attribute(*modules, batch, backend="reference", steps=3), 1e-5)


def _never(*_):
    raise AssertionError("losses one by one")


def test_signals():
    networks = pair(Line)
    batch = torch.rand(2, 2, 15, dtype=torch.float64), torch.rand(2, 2, 15, dtype=torch.float64)
    result = faigfast.attribute(*networks, batch, pad=2, steps=3)
    modules = [Padded(network, 2, 1) for network in networks]
    assert_same(result, faigfast.attribute(*modules, batch, steps=3, backend="reference"))


def test_the_default_number_of_points_follows_the_image():
    networks = pair(Same, torch.float32)
    small, large = images(torch.float32, 60, 60), images(torch.float32, 64, 64)
    for batch, points in ((small, 20), (large, 15)):
        part = {"lq": batch["lq"]["blur"][:1], "gt": batch["gt"][:1]}
        result = faigfast.attribute(*networks, part, rule="midpoint", pad=4)
        assert result.points.unique().tolist() == [points]


def test_an_attributor_serves_many_sizes():
    networks = pair(Valid)
    batches = [images(height=side, width=side + 1) for side in (8, 11, 30)]
    with faigfast.Attributor(*networks, steps=2, pad=5) as attributor:
        parts = [attributor(batch) for batch in batches]
    modules = [Padded(network, 5, 2) for network in networks]
    for part, batch in zip(parts, batches, strict=True):
        assert_same(part, faigfast.attribute(*modules, batch, steps=2, backend="reference"))


def test_saved_settings_hold_the_pad(tmp_path):
    networks, batch = pair(Same), images()
    padded = faigfast.attribute(*networks, batch, steps=2, pad=3)
    plain = faigfast.attribute(*networks, batch, steps=2)
    padded.save(tmp_path / "a.safetensors")
    assert faigfast.Attribution.load(tmp_path / "a.safetensors").setting.pad == 3
    with pytest.raises(ValueError, match="pad is 3 and 0"):
        padded.merge([plain])


@pytest.mark.parametrize(
    "kind, pad, message",
    [
        (Valid, 0, r"'blur', image 0: gt does not fit: .* \[1, 3, 12, 6\]; .*, or pad="),
        (
            Valid,
            1,
            r"'blur', image 0: .*pad=1 the network makes 16×10 and gt is 24×18; .*larger pad",
        ),
        (Same, 9, r"'blur', image 0: pad is 9 for an image of 12×9"),
    ],
)
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_pads_that_do_not_fit(kind, pad, message, backend):
    with pytest.raises(ValueError, match=message):
        faigfast.attribute(*pair(kind), images(), pad=pad, steps=2, backend=backend)


@pytest.mark.parametrize("pad, kind", [(-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_pads_that_are_none(pad, kind):
    with pytest.raises(kind, match=r"pad is .*; expected a number of pixels"):
        faigfast.Attributor(*pair(Same), pad=pad)


@pytest.mark.parametrize("method", ["input", "gradient", "signed"])
def test_rivals(method):
    networks, batch = pair(Valid), images()
    result = rank_by(method, *networks, batch, steps=3, pad=3)
    modules = [Padded(network, 3, 2) for network in networks]
    expected = rank_by(method, *modules, batch, steps=3)
    for name in result.degradations:
        torch.testing.assert_close(result.scores(name), expected.scores(name))
    assert result.setting.pad == 3 and not any("pad" in note for note in result.notes)


def test_weights_alone_have_no_padding():
    result = rank_by("change", *pair(Same), images(), pad=3)
    assert (
        "pad 3 does not act on 'change': its scores follow from the weights alone" in result.notes
    )
