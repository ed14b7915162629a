"""Exact ablation: every filter put back alone, by shared values and by masked forwards."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import faigfast
from faigfast.analysis.ablation import ablate
from faigfast.analysis.ablation_result import Ablation
from faigfast.engine.ablation import TargetValues
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import output_channels


class Mixed(nn.Module):
    """Kinds of convolutions, activations and joins that sharing must know."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.prelu = nn.PReLU(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.joined = nn.Conv2d(16, 12, 3, padding=1)
        self.up = nn.Conv2d(12, 12 * 4, 3, padding=1)
        self.hr = nn.Conv2d(12, 10, 3, padding=1)
        self.last = nn.Conv2d(10, 3, 3, padding=1)

    def forward(self, x):
        y = self.prelu(self.head(x))
        z = y + F.gelu(self.grouped(y))
        z = 0.5 * F.relu(self.point(self.depthwise(z))) + y
        z = F.relu(self.joined(torch.cat([y, z], 1)))
        z = F.leaky_relu(F.pixel_shuffle(self.up(z), 2), 0.1)
        return self.last(F.leaky_relu(self.hr(z), 0.2)) + F.interpolate(x, scale_factor=2)


class Strided(nn.Module):
    """Down by a stride, up by a transposed convolution; batch norm and a global mean."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 12, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.gate = nn.Conv2d(12, 12, 1)
        self.up = nn.ConvTranspose2d(12, 3, 4, stride=2, padding=1)

    def forward(self, x):
        y = F.silu(self.norm(self.down(x)))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True)))
        return self.up(y)


class Shared(nn.Module):
    """One weight in two places: no values can be shared."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(F.relu(self.conv(x)))


def pair(kind, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    baseline = kind().to(dtype).eval()
    target = copy.deepcopy(baseline)
    with torch.no_grad():
        for p in target.parameters():
            p += 0.1 * torch.randn_like(p)
    return baseline, target


def images(scale, count=1, side=6, dtype=torch.float32):
    torch.manual_seed(1)
    x = torch.rand(count, 3, side, side + 2, dtype=dtype)
    return x, torch.rand(count, 3, scale * side, scale * (side + 2), dtype=dtype)


def by_swapping(baseline, target, x, gt, numbers):
    """Losses by the public way to mask: one edited copy of the target for every filter."""
    index = FilterIndex.of(target)
    losses = []
    for number in numbers:
        masked = FilterSet([number], filter_index=index).swap(baseline, target)
        with torch.no_grad():
            losses.append((masked(x) - gt).square().flatten(1).sum(1).double())
    return torch.stack(losses, 1)


@pytest.mark.parametrize("backend", ["auto", "torch", "reference"])
@pytest.mark.parametrize(("kind", "scale"), [(Mixed, 2), (Strided, 1)])
def test_losses_are_those_of_masked_networks(kind, scale, backend):
    baseline, target = pair(kind)
    x, gt = images(scale, 2)
    index = FilterIndex.of(target)
    some = sorted(torch.randperm(len(index))[:60].tolist())
    result = ablate(baseline, target, (x, gt), filters=some, backend=backend)
    assert result.numbers.tolist() == some
    expected = by_swapping(baseline, target, x, gt, some)
    torch.testing.assert_close(result.losses["lq"], expected, rtol=1e-5, atol=0)
    slow = [note for note in result.notes if "forward of its own" in note]
    assert bool(slow) == (backend == "reference")


def test_every_filter_of_a_layer_in_one_batch_and_in_small_ones(monkeypatch):
    baseline, target = pair(Mixed)
    x, gt = images(2)
    whole = ablate(baseline, target, (x, gt))
    assert whole.change().shape == (1, len(FilterIndex.of(target)))
    sizes = []
    run = TargetValues._ablated_losses

    def counted(self, *args):
        sizes.append(len(args[-1]))
        return run(self, *args)

    monkeypatch.setattr(TargetValues, "_ablated_losses", counted)
    small = ablate(baseline, target, (x, gt), memory=1)
    assert set(sizes) == {1} and len(sizes) == len(whole.numbers)
    torch.testing.assert_close(small.losses["lq"], whole.losses["lq"], rtol=1e-6, atol=0)


def test_float64_agrees_to_float64():
    baseline, target = pair(Mixed, torch.float64)
    x, gt = images(2, dtype=torch.float64)
    some = list(range(0, 400, 7))
    result = ablate(baseline, target, (x, gt), filters=some)
    expected = by_swapping(baseline, target, x, gt, some)
    torch.testing.assert_close(result.losses["lq"], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("kind", "scale"), [(Mixed, 2), (Strided, 1)])
def test_channels_go_back_together(kind, scale, biases):
    baseline, target = pair(kind)
    x, gt = images(scale)
    result = ablate(baseline, target, (x, gt), by="channel", biases=biases)
    index = FilterIndex.of(target)
    channels = output_channels(target, index)
    expected = []
    for n, layer in enumerate(index.layers):
        for c in channels[layer].unique():
            numbers = index.offsets[n] + (channels[layer] == c).nonzero().flatten()
            masked = FilterSet(numbers, filter_index=index).swap(baseline, target, biases=biases)
            with torch.no_grad():
                expected.append((masked(x) - gt).square().sum().double())
    torch.testing.assert_close(result.losses["lq"][0], torch.stack(expected), rtol=1e-5, atol=0)
    assert not any("forward of its own" in note for note in result.notes)


def test_a_shared_weight_runs_forward_by_forward_and_says_so():
    baseline, target = pair(Shared)
    x, gt = images(1)
    result = ablate(baseline, target, (x, gt))
    expected = by_swapping(baseline, target, x, gt, range(9))
    torch.testing.assert_close(result.losses["lq"], expected, rtol=1e-6, atol=0)
    assert any("serves several operations" in note for note in result.notes)


def test_a_wrong_shared_loss_is_noticed(monkeypatch):
    baseline, target = pair(Strided)
    x, gt = images(1)
    right = ablate(baseline, target, (x, gt), backend="reference")
    run = TargetValues._ablated_losses
    monkeypatch.setattr(TargetValues, "_ablated_losses", lambda *args: 1.001 * run(*args))
    result = ablate(baseline, target, (x, gt))
    torch.testing.assert_close(result.losses["lq"], right.losses["lq"], rtol=1e-6, atol=0)
    assert any("gave another loss" in note for note in result.notes)


def test_degradations_objectives_and_psnr():
    baseline, target = pair(Mixed)
    x, gt = images(2, 2)
    batch = {"lq": {"one": x, "other": x.flip(2)}, "gt": gt}
    result = ablate(baseline, target, batch, filters=[3, 40], objective="absolute_error")
    index = FilterIndex.of(target)
    masked = FilterSet([40], filter_index=index).swap(baseline, target)
    with torch.no_grad():
        outputs = {n: (masked(v), target(v)) for n, v in batch["lq"].items()}
    for name, (ablated, whole) in outputs.items():
        change = [(o - gt).abs().flatten(1).sum(1).double() for o in (ablated, whole)]
        torch.testing.assert_close(
            result.change(name)[:, 1], change[0] - change[1], rtol=1e-2, atol=1e-4
        )
        errors = [(o - gt).square().flatten(1).mean(1).double() for o in (ablated, whole)]
        expected = 10 * torch.log10(errors[1] / errors[0])
        torch.testing.assert_close(result.psnr_change(name)[:, 1], expected, rtol=1e-2, atol=1e-4)
    means = {name: result.change(name).mean(0) for name in result.degradations}
    torch.testing.assert_close(result.contrast("one"), means["one"] - means["other"])
    assert result.top("one", n=1).indices[0] == result.numbers[result.contrast("one").argmax()]
    with pytest.raises(ValueError, match="expected one of one, other"):
        result.change("third")
    own = ablate(baseline, target, (x, gt), filters=[3], objective=lambda y, gt: y.mean((1, 2, 3)))
    assert own.objective.endswith("<lambda>") and own.psnr_change().isfinite().all()


def test_networks_stay_as_they_are():
    baseline, target = pair(Strided)
    target.train()
    before = [{k: v.clone() for k, v in net.state_dict().items()} for net in (baseline, target)]
    x, gt = images(1)
    ablate(baseline, target, (x, gt))
    for net, state in zip((baseline, target), before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert target.training and all(p.grad is None for p in target.parameters())


def test_batches_of_several_sizes_and_padding():
    baseline, target = pair(Strided)
    data = [images(1, side=6), images(1, side=8)]
    result = ablate(baseline, target, data, filters=[1, 5], pad=2)
    assert result.losses["lq"].shape == (2, 2)
    x, gt = data[0]
    padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
    masked = FilterSet([5], filter_index=FilterIndex.of(target)).swap(baseline, target)
    with torch.no_grad():
        loss = (masked(padded)[..., 2:-2, 2:-2] - gt).square().sum()
    assert result.losses["lq"][0, 1] == pytest.approx(float(loss), rel=1e-5)


def test_an_interrupted_call_goes_on(tmp_path, monkeypatch):
    baseline, target = pair(Mixed)
    x, gt = images(2, 2)
    expected = ablate(baseline, target, (x, gt))
    run, calls = TargetValues.ablated_losses, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 12:  # in the second image
            raise KeyboardInterrupt
        return run(self, *args)

    monkeypatch.setattr(TargetValues, "ablated_losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ablate(baseline, target, (x, gt), folder=tmp_path)
    result = ablate(baseline, target, (x, gt), folder=tmp_path)
    layers = len(FilterIndex.of(target).layers)
    assert len(calls) == 2 * layers + 1  # the interrupted layer twice, no other
    assert torch.equal(result.losses["lq"], expected.losses["lq"])
    part = ablate(baseline, target, (x, gt), folder=tmp_path, filters=[0, 30])
    torch.testing.assert_close(part.losses["lq"], expected.losses["lq"][:, [0, 30]])
    with pytest.raises(ValueError, match="objective"):
        ablate(baseline, target, (x, gt), folder=tmp_path, objective="absolute_error")


def test_saved_and_loaded(tmp_path):
    baseline, target = pair(Strided)
    result = ablate(baseline, target, images(1), filters=[2, 9, 11])
    result.save(tmp_path / "a.safetensors")
    again = Ablation.load(tmp_path / "a.safetensors")
    assert torch.equal(again.change(), result.change()) and again.index == result.index
    assert torch.equal(again.psnr_change(), result.psnr_change())
    assert again.top(n=2) == result.top(n=2)
    assert repr(again) == "Ablation(3 filters, 1 image, lq)"
    faigfast.attribute(baseline, target, images(1)).save(tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="no ablation"):
        Ablation.load(tmp_path / "b.safetensors")


def test_table():
    baseline, target = pair(Strided)
    result = ablate(baseline, target, images(1, 3), filters=[2, 9])
    table = result.to_frame()
    assert table["flat"].tolist() == [2, 9] * 2 and set(table["layer"]) == {"down.weight"}
    assert (table["out"].tolist(), table["in"].tolist()) == ([0, 3] * 2, [2, 0] * 2)
    assert table["metric"].tolist() == ["loss_change"] * 2 + ["psnr_change"] * 2
    assert table["value"][1] == pytest.approx(float(result.change()[:, 1].mean()))
    assert (table["ci95_low"] < table["value"]).all() and (
        table["value"] < table["ci95_high"]
    ).all()
    assert "in" not in ablate(baseline, target, images(1), by="channel").to_frame()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"by": "pixel"}, ValueError, "expected 'kernel' or 'channel'"),
        ({"biases": True}, ValueError, "by='channel'"),
        ({"filters": []}, ValueError, "empty"),
        ({"filters": [10**6]}, ValueError, "1000000"),
        ({"filters": "all"}, TypeError, "filters is a str"),
        ({"backend": "fast"}, ValueError, "fast"),
        ({"objective": "l3"}, ValueError, "l3"),
        ({"pad": -1}, ValueError, "pad"),
    ],
)
def test_bad_arguments(options, error, text):
    baseline, target = pair(Strided)
    with pytest.raises(error, match=text):
        ablate(baseline, target, images(1), **options)


def test_no_image_no_psnr():
    baseline, target = pair(Strided)
    x, _ = images(1)
    labels = torch.rand(1, 3)
    result = ablate(
        baseline, target, (x, labels), filters=[0],
        objective=lambda y, gt: (y.mean((2, 3)) - gt).square().sum(1),
    )  # fmt: skip
    assert math.isnan(result.psnr_change()[0, 0]) and result.change().isfinite().all()
