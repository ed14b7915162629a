"""Biases that move with the filters of their output channels."""

import copy

import pytest
import torch
from torch import nn

import faigfast
from faigfast import FilterIndex, FilterSet
from faigfast.filters.output_channels import complete_biases, output_channels
from faigfast.zoo import SRResNet

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "one dimension": lambda: nn.Conv1d(4, 6, 3),
    "three dimensions": lambda: nn.Conv3d(4, 6, 3),
    "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6),
    "depthwise, two outputs each": lambda: nn.Conv2d(3, 6, 3, groups=3),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, stride=2),
    "transposed, one dimension": lambda: nn.ConvTranspose1d(4, 6, 3),
    "transposed, grouped": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "transposed, depthwise": lambda: nn.ConvTranspose2d(6, 6, 4, groups=6),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
}


def random_values(network, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator))
    return network


def pair_of(build):
    return [random_values(build(), seed) for seed in (0, 1)]


def same_values(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(
        torch.equal(a[key].view(torch.int32), b[key].view(torch.int32)) for key in a
    )


@pytest.mark.parametrize("name", LAYERS)
def test_a_bias_moves_with_all_filters_of_its_channel(name):
    baseline, target = pair_of(lambda: nn.Sequential(LAYERS[name](), nn.ReLU()))
    index = FilterIndex.of(target)
    (channels,) = output_channels(target, index).values()
    chosen = (channels == 2).nonzero().flatten()
    assert len(chosen)
    edited = FilterSet(chosen).swap(baseline, target, biases=True)
    moved = edited[0].bias != target[0].bias
    assert moved.tolist() == [channel == 2 for channel in range(6)]
    assert edited[0].bias[2] == baseline[0].bias[2]
    without = FilterSet(chosen).swap(baseline, target)
    assert torch.equal(without[0].bias, target[0].bias)
    key = index.layers[0]
    assert torch.equal(edited.state_dict()[key], without.state_dict()[key])


@pytest.mark.parametrize("name", LAYERS)
def test_a_channel_that_lacks_a_filter_keeps_its_bias(name):
    baseline, target = pair_of(lambda: nn.Sequential(LAYERS[name]()))
    (channels,) = output_channels(target, FilterIndex.of(target)).values()
    own = (channels == 2).nonzero().flatten()
    others = (channels == 3).nonzero().flatten()
    chosen = torch.cat([own[1:], others])
    edited = FilterSet(chosen).swap(baseline, target, biases=True)
    moved = (edited[0].bias != target[0].bias).nonzero().flatten().tolist()
    assert moved == [3]


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(
            *[LAYERS[n]() for n in ("plain", "depthwise", "transposed, grouped")]
        ),
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2)
        ),
        lambda: nn.Conv2d(2, 3, 3),
        lambda: SRResNet(width=4, blocks=1, scale=2),
    ],
    ids=["several", "some biases", "one layer", "SRResNet"],
)
def test_all_filters_and_biases_give_the_baseline_to_the_bit(build):
    baseline, target = pair_of(build)
    with torch.no_grad():
        next(baseline.parameters()).view(-1)[0] = -0.0
    before = copy.deepcopy(target)
    every = FilterSet(torch.arange(len(FilterIndex.of(target))))
    assert same_values(every.swap(baseline, target, biases=True), baseline)
    assert same_values(every.swap(baseline, target, 1.0, biases=True), target)
    assert same_values(target, before)


def test_strength_acts_on_biases():
    baseline, target = pair_of(lambda: nn.Conv2d(2, 3, 3))
    every = FilterSet(torch.arange(6))
    half = every.swap(baseline, target, 0.25, biases=True)
    torch.testing.assert_close(half.bias, torch.lerp(baseline.bias, target.bias, 0.25))


def test_layers_with_a_common_weight_or_a_common_bias():
    def build():
        one, two, three = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        two.weight, three.bias = one.weight, one.bias
        return nn.Sequential(one, two, three)

    baseline, target = pair_of(build)
    index = FilterIndex.of(target)
    assert len(index) == 18
    first = FilterSet(torch.arange(9)).swap(baseline, target, biases=True)
    assert torch.equal(first[1].bias, baseline[1].bias)
    assert torch.equal(first[0].bias, target[0].bias)  # the third layer uses it too
    both = FilterSet(torch.arange(18)).swap(baseline, target, 0.5, biases=True)
    torch.testing.assert_close(both[0].bias, (baseline[0].bias + target[0].bias) / 2)


def test_no_bias_is_marked_without_one():
    net = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.Conv2d(2, 2, 1))
    index = FilterIndex.of(net)
    masks = FilterSet(torch.arange(6)).masks(index)
    assert {k: v.tolist() for k, v in complete_biases(net, index, masks).items()} == {
        "1.bias": [True, False]
    }


def test_other_tensors_stay_the_targets():
    def build():
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.GroupNorm(1, 3), nn.PReLU(3))

    baseline, target = pair_of(build)
    edited = FilterSet(torch.arange(6)).swap(baseline, target, biases=True)
    for n in (1, 2):
        assert same_values(edited[n], target[n]) and not same_values(edited[n], baseline[n])


@pytest.mark.parametrize("biases", ["yes", 1, None])
def test_biases_is_true_or_false(biases):
    net = nn.Conv2d(2, 2, 1)
    with pytest.raises(TypeError, match=f"biases is {biases!r}; expected True or False"):
        faigfast.FilterSet(torch.tensor([0])).swap(net, net, biases=biases)
