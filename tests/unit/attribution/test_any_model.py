"""Networks that are not a plain stack: moving tensors, scored tensors, unchanged tensors."""

import copy

import pytest
import torch
from cases.networks import authors_scores, completeness, images, pair
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from faigfast import attribute


class Scaled(nn.Module):
    """Parameters outside convolutions: scales, a table, a bias map, a dense layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.table = nn.Parameter(torch.ones(4, 4, 3, 3))
        self.dense = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(3, 1, 1))

    def forward(self, x):
        y = torch.tanh(self.conv(x - self.mean)) * self.scale
        y = F.conv2d(y, self.table, padding=1)
        return self.dense(y.movedim(1, -1)).movedim(-1, 1)


class TiedTwice(nn.Module):
    """One convolution used twice and one weight under two names."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 3, 3, padding=1)
        self.tail = nn.Conv2d(3, 3, 3, padding=1)
        self.tail.weight = self.head.weight

    def forward(self, x):
        return self.tail(torch.tanh(self.head(torch.tanh(self.head(x)))))


class Gru(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.gru = nn.Conv1d(3, 4, 3, padding=1), nn.GRU(4, 3, batch_first=True)

    def forward(self, x):
        return self.gru(torch.tanh(self.conv(x)).transpose(1, 2))[0].transpose(1, 2)


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.heads = nn.Conv2d(3, 4, 1), nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.tail = nn.LayerNorm(4), nn.Conv2d(4, 3, 1)

    def forward(self, x):
        y = self.conv(x).flatten(2).transpose(1, 2)
        y = y + self.heads(self.norm(y), y, y, need_weights=False)[0]
        return self.tail(y.transpose(1, 2).unflatten(2, x.shape[2:]))


def stack(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def conv(*args, **options):
    return lambda: nn.Conv2d(*args, **options)


SPATIAL = {1: (7,), 2: (5, 4), 3: (3, 4, 3)}
# fmt: off
MODELS = {
    "conv1d": (stack(lambda: nn.Conv1d(3, 4, 3, padding=1), nn.Tanh,
                     lambda: nn.Conv1d(4, 3, 1)), 1),
    "conv3d": (stack(lambda: nn.Conv3d(3, 4, 3, padding=1), nn.Tanh,
                     lambda: nn.Conv3d(4, 3, 1)), 3),
    "transposed1d": (stack(lambda: nn.ConvTranspose1d(3, 4, 3, padding=1), nn.Tanh,
                           lambda: nn.ConvTranspose1d(4, 3, 1)), 1),
    "transposed2d": (stack(lambda: nn.ConvTranspose2d(3, 4, 3, padding=1), nn.Tanh,
                           lambda: nn.ConvTranspose2d(4, 3, 1)), 2),
    "transposed3d": (stack(lambda: nn.ConvTranspose3d(3, 4, 3, padding=1), nn.Tanh,
                           lambda: nn.ConvTranspose3d(4, 3, 1)), 3),
    "grouped": (stack(conv(3, 6, 3, padding=1, groups=3), nn.Tanh, conv(6, 3, 1, groups=3)), 2),
    "dilated": (stack(conv(3, 4, 3, padding=2, dilation=2), nn.GELU, conv(4, 3, 1)), 2),
    "circular": (stack(conv(3, 4, 3, padding=1, padding_mode="circular"), nn.SiLU,
                       conv(4, 3, 1)), 2),
    "same": (stack(conv(3, 4, (3, 5), padding="same"), nn.Sigmoid, conv(4, 3, 1)), 2),
    "shuffled": (stack(conv(3, 12, 3, padding=1, stride=1), lambda: nn.PixelShuffle(2), nn.Tanh,
                       conv(3, 3, 2, stride=2)), 2),
    "group norm": (stack(conv(3, 4, 1), lambda: nn.GroupNorm(2, 4), nn.Tanh, conv(4, 3, 1)), 2),
    "instance norm": (stack(conv(3, 4, 1), lambda: nn.InstanceNorm2d(4, affine=True), nn.Tanh,
                            conv(4, 3, 1)), 2),
    "instance norm that tracks": (stack(
        conv(3, 4, 1), lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Tanh, conv(4, 3, 1)), 2),
    "batch norm 1d": (stack(lambda: nn.Conv1d(3, 4, 3, padding=1), lambda: nn.BatchNorm1d(4),
                            nn.Tanh, lambda: nn.Conv1d(4, 3, 1)), 1),
    "batch norm": (stack(conv(3, 4, 3, padding=1), lambda: nn.BatchNorm2d(4), nn.Tanh,
                         conv(4, 3, 1), lambda: nn.BatchNorm2d(3, affine=False)), 2),
    "sync batch norm": (stack(conv(3, 3, 1), lambda: nn.SyncBatchNorm(3), nn.Tanh), 2),
    "batch norm without statistics": (stack(
        conv(3, 3, 1), lambda: nn.BatchNorm2d(3, track_running_stats=False), nn.Tanh), 2),
    "batch norm 3d": (stack(lambda: nn.Conv3d(3, 3, 1), lambda: nn.BatchNorm3d(3), nn.Tanh), 3),
    "scales, tables and a dense layer": (Scaled, 2),
    "a weight under two names": (TiedTwice, 2),
    "gru": (Gru, 1),
    "attention": (Attends, 2),
    "dropout": (stack(conv(3, 4, 1), nn.Dropout2d, nn.Tanh, conv(4, 3, 1), nn.Dropout), 2),
    "weight norm": (stack(lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
                          nn.Tanh, conv(4, 3, 1)), 2),
    "weight norm by hook": (stack(lambda: nn.utils.weight_norm(nn.Conv2d(3, 4, 3, padding=1)),
                                  nn.Tanh, conv(4, 3, 1)), 2),
    "spectral norm": (stack(
        lambda: parametrizations.spectral_norm(nn.Conv2d(3, 4, 3, padding=1)), nn.Tanh,
        conv(4, 3, 1)), 2),
    "spectral norm by hook": (stack(
        lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3, padding=1)), nn.Tanh,
        conv(4, 3, 1)), 2),
}
# fmt: on


def near(make):
    """A target near the baseline. On a line between two random nets, a norm may vanish."""
    baseline, target = make().double(), make().double()
    baseline(images()[0])
    target.load_state_dict(baseline.eval().state_dict())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in target.state_dict().values():
            value.add_(0.02 * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return baseline, target.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", ["eval", "train", "frozen"])
def test_every_tensor_is_counted_and_nothing_is_left_behind(name, mode):
    make, rank = MODELS[name]
    baseline, target = near(make) if name.startswith("spectral") else pair(make)
    x, gt = images(2, 3, SPATIAL[rank])
    for net in (baseline, target):
        net.train(mode == "train")
        net.requires_grad_(mode != "frozen")
    # The loss bends more near a zero of a norm or at a large slope.
    bound = 1e-3 if "norm" in name else 1e-6
    assert completeness(baseline, target, (x, gt), steps=64) < bound


PLAIN = (
    "conv1d",
    "conv3d",
    "transposed1d",
    "transposed2d",
    "transposed3d",
    "grouped",
    "dilated",
    "same",
    "shuffled",
    "batch norm",
    "batch norm 1d",
    "scales, tables and a dense layer",
    "attention",
    "gru",
)


@pytest.mark.parametrize("name", PLAIN)
def test_scores_are_the_literal_loops(name):
    make, rank = MODELS[name]
    baseline, target = pair(make)
    x, gt = images(1, 3, SPATIAL[rank])
    result = attribute(baseline, target, (x, gt), rule="left", steps=9)
    expected = authors_scores(make, baseline.state_dict(), target.state_dict(), x, gt, 9)
    torch.testing.assert_close(result.scores()[0], expected, rtol=1e-11, atol=1e-14)


def test_a_weight_used_twice_collects_both_gradients():
    baseline, target = pair(TiedTwice)
    x, gt = images(1)
    result = attribute(baseline, target, (x, gt), steps=1)
    assert result.index.layers == ("head.weight",)
    net = copy.deepcopy(target)
    with torch.no_grad():
        for value, low, high in zip(
            net.parameters(), baseline.parameters(), target.parameters(), strict=True
        ):
            value.copy_((low + high) / 2)
    (net(x) - gt).square().sum().backward()
    change = (target.head.weight - baseline.head.weight) * net.head.weight.grad
    expected = change.abs().flatten(2).sum(2).flatten().detach()
    torch.testing.assert_close(result.scores()[0], expected, rtol=1e-12, atol=0)


def test_a_module_used_under_two_names():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 3, 3, padding=1)
            self.again = self.body

        def forward(self, x):
            return self.again(torch.tanh(self.body(x)))

    baseline, target = pair(Shared)
    assert completeness(baseline, target, images()) < 1e-9
    assert attribute(baseline, target, images()).index.layers == ("body.weight",)


def test_batch_norms_statistics_matter_to_the_sum():
    """Completeness holds only if the statistics count."""
    make, _ = MODELS["batch norm"]
    baseline, target = pair(make)
    batch = images()
    still = copy.deepcopy(baseline)
    for key in ("running_mean", "running_var"):
        getattr(still[1], key).copy_(getattr(target[1], key))
    moved = attribute(baseline, target, batch, rule="gauss-legendre", steps=40)
    unmoved = attribute(still, target, batch, rule="gauss-legendre", steps=40)
    assert moved.completeness.max() < 1e-8
    assert (moved.losses - unmoved.losses).abs().max() > 1e-3


def test_networks_that_train_their_norm_in_eval_mode_are_counted_alone():
    """Statistics of one image: F(γ, x) is the image run alone."""
    make, _ = MODELS["batch norm without statistics"]
    baseline, target = pair(make)
    x, gt = images(3)
    together = attribute(baseline, target, (x, gt))
    alone = attribute(baseline, target, (x[1:2], gt[1:2]))
    torch.testing.assert_close(together.scores()[1], alone.scores()[0], rtol=1e-12, atol=1e-14)
