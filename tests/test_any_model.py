"""Networks that are not a plain stack: what moves, what is scored, what is left as it was."""

import copy
import random

import pytest
import torch
from helpers import authors_scores, images, kinked, pair, randomise, untouched
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from faigfast import FilterIndex, attribute


def completeness(baseline, target, batch, steps=40, **options):
    """Worst completeness over the images, with everything watched."""
    data = [t for t in batch if isinstance(t, torch.Tensor)]
    with untouched(baseline, target, data=data):
        result = attribute(baseline, target, batch, rule="gauss-legendre", steps=steps, **options)
    assert result.scores().isfinite().all() and (result.scores() >= 0).all()
    return result.completeness.max().item()


class Scaled(nn.Module):
    """Parameters that are no convolution's: scales, a table, a bias map, a dense layer."""

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
    """A target near the baseline: on the line between two random nets a norm may vanish."""
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
    # Near a zero of a norm or a large slope the line bends more.
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
    """Left out, they would leave completeness open: it is closed because they are counted."""
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


# --- wrappers and ways of calling


def test_data_parallel_and_compiled_wrappers():
    baseline, target = pair(kinked)
    batch = images()
    expected = attribute(baseline, target, batch)
    wrapped = [
        (nn.DataParallel(baseline), nn.DataParallel(target)),
        (nn.DataParallel(baseline), target),
        (torch.compile(baseline, backend="eager"), torch.compile(target, backend="eager")),
        (nn.DataParallel(torch.compile(baseline, backend="eager")), target),
        (baseline, torch.compile(nn.DataParallel(target), backend="eager")),
    ]
    for a, b in wrapped:
        with untouched(a, b, baseline, target):
            result = attribute(a, b, batch)
        assert torch.equal(result.scores(), expected.scores())
        assert result.index == expected.index and result.setting == expected.setting


def test_a_network_compiled_in_place():
    baseline, target = pair(kinked)
    batch = images()
    expected = attribute(baseline, target, batch)
    target.compile(backend="eager")
    result = attribute(baseline, target, batch)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-12, atol=0)
    torch._dynamo.reset()


def test_channels_last_networks():
    baseline, target = pair(kinked)
    batch = images()
    expected = attribute(baseline, target, batch)
    nets = [copy.deepcopy(n).to(memory_format=torch.channels_last) for n in (baseline, target)]
    with untouched(*nets):
        result = attribute(*nets, batch)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-12, atol=1e-14)
    assert nets[1][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_networks_made_under_inference_mode():
    expected = attribute(*pair(kinked), images())
    with torch.inference_mode():
        nets = pair(kinked)
    result = attribute(*nets, images())
    assert torch.equal(result.scores(), expected.scores())


class TwoOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = kinked()

    def forward(self, x):
        y = self.net(x)
        return {"image": y, "level": y.mean((1, 2, 3))}


def test_networks_that_return_more_than_a_tensor():
    baseline, target = pair(TwoOutputs)
    x, gt = images()

    def first(output, gt):
        return (output["image"] - gt).square().flatten(1).sum(1)

    result = attribute(baseline, target, (x, gt), objective=first)
    plain = attribute(baseline.net, target.net, (x, gt))
    assert torch.equal(result.scores(), plain.scores())
    with untouched(baseline, target), pytest.raises(TypeError, match=r"returns a dict; .*tensor"):
        attribute(baseline, target, (x, gt))


class Buffered(nn.Module):
    """Integer, boolean and non-persistent buffers that forward uses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.register_buffer("order", torch.tensor([2, 0, 1]))
        self.register_buffer("mask", torch.tensor([True, False, True]).view(3, 1, 1))
        self.register_buffer("shift", torch.full((3, 1, 1), 0.25), persistent=False)

    def forward(self, x):
        return torch.tanh(self.conv(x[:, self.order])) * self.mask + self.shift


@pytest.mark.parametrize("precision", ["auto", "fp64"])
def test_buffers_of_other_types_are_the_targets(precision):
    baseline, target = pair(Buffered, torch.float32)
    batch = images(dtype=torch.float32)
    assert completeness(baseline, target, batch, precision=precision) < 1e-5


@pytest.mark.parametrize("kind", ["order", "shift"])
def test_networks_that_differ_outside_the_line_are_refused(kind):
    baseline, target = pair(Buffered)
    value = getattr(baseline, kind)
    value.copy_(value.flip(0) if kind == "order" else value + 1)
    with untouched(baseline, target), pytest.raises(ValueError, match="model_a has the loss"):
        attribute(baseline, target, images())


def test_networks_that_differ_in_their_code_are_refused():
    baseline, target = pair(kinked)
    baseline[1] = nn.Tanh()
    with pytest.raises(ValueError, match=r"model_a has the loss .*differ in their tensors alone"):
        attribute(baseline, target, images())


class Writes(nn.Module):
    """Counts its calls and keeps a running level in buffers, also in eval mode."""

    def __init__(self):
        super().__init__()
        self.net = kinked()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("level", torch.ones(1))

    def forward(self, x):
        self.calls += 1
        with torch.no_grad():
            self.level.mul_(0.9).add_(0.1 * x.mean())
        return self.net(x) * self.level


def test_networks_that_write_on_their_buffers_are_left_as_they_were():
    baseline, target = pair(Writes)
    for net in (baseline, target):
        net.level.fill_(1)
    x, gt = images(3)
    with untouched(baseline, target, data=(x, gt)):
        result = attribute(baseline, target, (x, gt), steps=3)
    alone = [attribute(baseline, target, (x[n : n + 1], gt[n : n + 1]), steps=3) for n in range(3)]
    for n in range(3):
        assert torch.equal(result.scores()[n], alone[n].scores()[0]), "images are independent"


def test_networks_that_keep_what_they_computed_are_left_as_they_were():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.first = kinked(), torch.zeros(1)

        def forward(self, x):
            self.first = self.net[0](x)
            self.second = self.net[1](self.first)
            return self.net[2](self.second)

    baseline, target = pair(Keeps)
    with untouched(baseline, target):
        result = attribute(baseline, target, images())
    assert torch.equal(result.scores(), attribute(baseline.net, target.net, images()).scores())


class Draws(nn.Module):
    def __init__(self, draw):
        super().__init__()
        self.net, self.draw = kinked(), draw

    def forward(self, x):
        return self.net(x) + 1e-3 * self.draw(x)


@pytest.mark.parametrize("draw", [torch.randn_like, lambda x: F.dropout(x, 0.5, training=True)])
def test_networks_that_draw_random_numbers_are_refused(draw):
    baseline, target = pair(lambda: Draws(draw))
    with untouched(baseline, target), pytest.raises(ValueError, match="draw random numbers"):
        attribute(baseline, target, images())


def test_networks_that_draw_from_elsewhere_are_refused():
    baseline, target = pair(lambda: Draws(lambda x: x * random.random()))
    with pytest.raises(ValueError, match="model_a has the loss"):
        attribute(baseline, target, images())


def test_networks_that_train_their_norm_in_eval_mode_are_counted_alone():
    """Statistics of one image: F(γ, x) is the image run alone."""
    make, _ = MODELS["batch norm without statistics"]
    baseline, target = pair(make)
    x, gt = images(3)
    together = attribute(baseline, target, (x, gt))
    alone = attribute(baseline, target, (x[1:2], gt[1:2]))
    assert torch.equal(together.scores()[1], alone.scores()[0])


def test_hooks_of_the_user_see_the_calls_and_stay():
    baseline, target = pair(kinked)
    seen = []
    handle = target[0].register_forward_hook(lambda *_: seen.append(1))
    with untouched(baseline, target):
        attribute(baseline, target, images(1), steps=2)
    assert seen
    handle.remove()
    tensor_hook = target[0].weight.register_hook(lambda grad: grad * 100)
    hooked = attribute(baseline, target, images(1), steps=2)
    tensor_hook.remove()
    assert torch.equal(hooked.scores(), attribute(baseline, target, images(1), steps=2).scores())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_networks_recompute_with_the_weights_of_the_point(reentrant):
    class Saves(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.tail = kinked(), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.tail(checkpoint(self.net, x, use_reentrant=reentrant))

    baseline, target = pair(Saves)
    batch = images()
    with untouched(baseline, target, data=batch):
        try:
            result = attribute(baseline, target, batch, steps=3)
        except ValueError as problem:
            assert reentrant and "checkpoint" in str(problem).lower()
            return
    plain = [nn.Sequential(net.net, net.tail) for net in (baseline, target)]
    expected = attribute(*plain, batch, steps=3)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-13, atol=0)


def test_subclasses_of_convolutions_are_convolutions():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias, padding=self.padding)

    baseline, target = pair(lambda: nn.Sequential(Standardised(3, 3, 3, padding=1), nn.Tanh()))
    assert FilterIndex.of(target).layers == ("0.weight",)
    assert completeness(baseline, target, images()) < 1e-9


def test_networks_in_two_dtypes():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.register_buffer("gain", torch.ones(1, dtype=torch.float64))

        def forward(self, x):
            return torch.tanh(self.conv(x)) * self.gain.to(x.dtype)

    baseline, target = randomise(Mixed(), 1), randomise(Mixed(), 2)
    assert completeness(baseline, target, images(dtype=torch.float32)) < 1e-4
    assert completeness(baseline, target, images(dtype=torch.float32), precision="fp64") < 1e-9
