"""FilterIndex: numbers of filters, scored weights, and fingerprints."""

import numpy as np
import pytest
import torch
from cases.networks import kinked, pair, untouched
from torch import nn
from torch.nn.utils import parametrizations

from faigfast import FilterIndex
from faigfast.zoo import SRCNNStyle, SRResNet


def enumerate_filters(net):
    """(key, row, column) of every filter, by plain loops over the state dict."""
    convolutions = {
        f"{name}.weight": layer
        for name, layer in net.named_modules()
        if isinstance(layer, nn.modules.conv._ConvNd)
    }
    return [
        (key, row, column)
        for key, value in net.state_dict().items()
        if key in convolutions
        for row in range(value.shape[0])
        for column in range(value.shape[1])
    ]


class Odd(nn.Module):
    """Convolutions of every kind, and other tensors of the same shapes."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(3, 2, 3, 3))
        self.up = nn.ConvTranspose2d(2, 5, 2)
        self.line = nn.Conv1d(3, 4, 5)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2)
        self.dense = nn.Linear(3, 4)
        self.norm = nn.BatchNorm2d(3)
        self.volume = nn.Conv3d(1, 2, (1, 2, 3))
        self.register_buffer("weight", torch.zeros(2, 2, 3, 3))
        self.up1, self.up3 = nn.ConvTranspose1d(1, 2, 3), nn.ConvTranspose3d(2, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SRResNet(width=4, blocks=2, scale=4),
        lambda: SRCNNStyle(widths=(4, 6), scale=2),
        Odd,
        kinked,
    ],
)
def test_numbers_are_those_of_a_plain_enumeration(make):
    net = make()
    index, expected = FilterIndex.of(net), enumerate_filters(net)
    assert len(index) == len(expected) > 0
    assert [index.locate(flat) for flat in range(len(index))] == expected
    assert [net.state_dict()[key].shape for key in index.layers] == list(index.shapes)


def test_the_authors_index_of_a_full_srresnet():
    index = FilterIndex.of(SRResNet(width=64, blocks=16, scale=2))
    # conv_first holds 192; 32 convolutions of 64×64, one of 256×64, one of 64×64, the last 3×64.
    assert len(index) == 192 + 32 * 4096 + 4 * 4096 + 4096 + 192
    assert index.locate(191) == ("conv_first.weight", 63, 2)
    assert index.locate(192) == ("body.0.conv1.weight", 0, 0)
    assert index.locate(192 + 4096 + 65) == ("body.0.conv2.weight", 1, 1)
    assert index.locate(len(index) - 1) == ("conv_last.weight", 2, 63)
    assert index.layers[-3:] == ("upconv1.weight", "conv_hr.weight", "conv_last.weight")


def test_transposed_and_grouped_convolutions_are_counted_as_stored():
    index = FilterIndex.of(Odd())
    shapes = dict(zip(index.layers, index.shapes, strict=True))
    assert shapes["up.weight"] == (2, 5, 2, 2)
    assert shapes["grouped.weight"] == (6, 2, 3, 3)
    assert "table" not in shapes and "weight" not in shapes and "dense.weight" not in shapes


@pytest.mark.parametrize("flat", [-1, 10**9])
def test_filters_that_do_not_exist(flat):
    index = FilterIndex.of(kinked())
    with pytest.raises(IndexError, match=f"filter {flat}.*0 to {len(index) - 1}"):
        index.locate(flat)
    with pytest.raises(IndexError):
        index.locate(len(index))
    with pytest.raises(TypeError):
        index.locate(1.5)
    assert index.locate(np.int64(0)) == index.locate(torch.tensor(0)) == ("0.weight", 0, 0)


def test_a_shared_weight_counts_once_under_its_first_key():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.b = nn.Conv2d(2, 2, 3)
            self.a = nn.Conv2d(2, 2, 3)
            self.a.weight = self.b.weight
            self.again = self.b

    assert FilterIndex.of(Tied()).layers == ("b.weight",)


def test_a_root_convolution_and_wrappers():
    conv = nn.Conv2d(2, 3, 1)
    assert FilterIndex.of(conv).layers == ("weight",)
    plain = FilterIndex.of(kinked())
    assert FilterIndex.of(nn.DataParallel(kinked())) == plain
    assert FilterIndex.of(torch.compile(kinked(), backend="eager")) == plain


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(
    "wrap, key",
    [
        (parametrizations.weight_norm, "parametrizations.weight.original1"),
        (nn.utils.weight_norm, "weight_v"),
        (parametrizations.spectral_norm, "parametrizations.weight.original"),
        (nn.utils.spectral_norm, "weight_orig"),
    ],
)
def test_parametrized_weights_stand_under_their_direction(wrap, key):
    net = nn.Sequential(nn.Conv2d(1, 2, 1), wrap(nn.Conv2d(2, 3, 3)))
    index = FilterIndex.of(net)
    assert index.layers == ("0.weight", f"1.{key}")
    assert index.shapes[1] == (3, 2, 3, 3)


def test_reading_the_index_leaves_the_network_as_it_is():
    net = parametrizations.spectral_norm(nn.Conv2d(2, 3, 3)).train()
    other = nn.utils.spectral_norm(nn.Conv2d(2, 3, 3)).train()
    with untouched(net, other):
        FilterIndex.of(net)
        FilterIndex.of(other)


def test_fingerprints_tell_names_and_shapes_apart_not_values():
    a, b = pair(kinked)
    assert FilterIndex.of(a).fingerprint == FilterIndex.of(b).fingerprint
    others = [
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)),
        kinked(width=5),
    ]
    fingerprints = {FilterIndex.of(net).fingerprint for net in (a, *others)}
    assert len(fingerprints) == 4 and all(len(text) == 16 for text in fingerprints)


def test_all_at_once_are_located_as_one():
    index = FilterIndex(("a", "b", "c"), ((2, 3, 3, 3), (1, 4, 1, 1), (3, 1, 5, 5)))
    names, rows, columns = index.locate_all(torch.arange(len(index)))
    located = list(zip(names, rows.tolist(), columns.tolist(), strict=True))
    assert located == [index.locate(flat) for flat in range(len(index))]
