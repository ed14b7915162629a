"""Gradients of residual blocks: that of the sum waits for the convolution of the same value."""

import pytest
import torch
from path_cases import arguments, conv_case
from torch import nn
from torch.profiler import ProfilerActivity, profile

import faigfast
from faigfast import _extension
from faigfast.ops.conv import conv_backward
from faigfast.ops.table import Use, using
from faigfast.ops.waiting import Waiting, expects, mark, past
from faigfast.zoo import SRResNet

BACKENDS = ["torch"] if _extension.module is None else ["torch", "cpu"]


def use(backend):
    return using(Use("" if backend == "torch" else backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", [
    dict(points=1), dict(points=3, images=2), dict(channels=(64, 17), size=(9, 6)),
    dict(shared=True),
], ids=str)  # fmt: skip
def test_what_waits_is_added_to_the_gradient(options, backend):
    (_, _), (_, given) = arguments(conv_case(**options, activation="relu").to(torch.float32))
    alone = conv_backward(*given)
    more = torch.randn_like(alone[0])
    with use(backend):
        both = conv_backward(*given[:9], more, *given[10:])
    for found, expected in ((both[0], alone[0] + more), (both[1], alone[1])):
        assert (found - expected).norm() <= 1e-5 * expected.norm()


class Source:
    """What a value is known by."""


def test_a_gradient_waits_only_where_it_is_expected():
    source = Source()
    waiting = Waiting(source)
    assert waiting.is_for(source) and not waiting.is_for(Source())
    for marked in (False, True):
        x = torch.ones(3, requires_grad=True)
        y = past(x, waiting)
        if marked:
            assert expects(mark(x, waiting)) is waiting
        (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert (x.grad is None) == marked
    waiting.leave(torch.ones(3))
    assert waiting.take().tolist() == [2, 3, 4]
    assert waiting.take() is None
    assert expects(torch.ones(3)) is None


class Blocks(nn.Module):
    """Residual blocks, one of which adds something else than its first convolution took."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(6))
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x):
        x = start = self.first(x)
        for i in (0, 2):
            x = x + 0.5 * self.convs[i + 1](torch.relu(self.convs[i](x)))
        inner = self.convs[4](x)
        x = x + self.convs[5](inner) + (self.convs[3](inner) + x)  # two sums after one convolution
        x = start + self.convs[5](self.convs[4](x))
        return self.last(x + self.convs[0](x))  # weights used twice, x three times


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("memory", [None, 200_000])
def test_scores_are_those_of_the_reference(backend, memory):
    torch.manual_seed(0)
    baseline, target = Blocks(), Blocks()
    batch = torch.rand(2, 3, 17, 13), torch.rand(2, 3, 17, 13)
    found, expected = (
        faigfast.attribute(baseline, target, batch, steps=5, backend=name, memory=budget)
        for name, budget in ((backend, memory), ("reference", None))
    )
    assert not any("point by point" in note for note in found.notes)
    error = (found.scores() - expected.scores()).norm() / expected.scores().norm()
    assert error < 1e-5


@pytest.mark.skipif(len(BACKENDS) == 1, reason="the C++ kernels are missing")
def test_blocks_need_no_sum_of_images_in_backward():
    torch.manual_seed(0)
    networks = [SRResNet(width=16, blocks=3, scale=2).eval() for _ in range(2)]
    batch = torch.rand(1, 3, 12, 12), torch.rand(1, 3, 24, 24)
    options = dict(steps=4, backend="cpu")
    faigfast.attribute(*networks, batch, **options)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        faigfast.attribute(*networks, batch, **options)
    shapes = [list(event.input_shapes[0]) for event in seen.events() if event.name == "aten::add"]
    # Of features at all points; those of the network itself, which is compared, have none.
    assert not [shape for shape in shapes if len(shape) > 4 and shape[-3:] == [16, 12, 12]]
