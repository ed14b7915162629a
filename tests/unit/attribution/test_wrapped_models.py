"""Wrappers, buffers, hooks and other habits of networks, without side effects."""

import copy
import random

import numpy as np
import pytest
import torch
from cases.networks import completeness, images, kinked, pair, randomise, untouched
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from faigfast import FilterIndex, attribute


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
    """Uses integer, boolean and non-persistent buffers in forward."""

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
    """Counts calls and keeps a running level in buffers, also in eval mode."""

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


@pytest.mark.parametrize(
    "draw",
    [
        torch.randn_like,
        lambda x: F.dropout(x, 0.5, training=True),
        lambda x: x * random.random(),
        lambda x: x * np.random.rand(),
    ],
)
def test_networks_that_draw_random_numbers_are_refused(draw):
    baseline, target = pair(lambda: Draws(draw))
    with untouched(baseline, target), pytest.raises(ValueError, match="draw random numbers"):
        attribute(baseline, target, images())


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
