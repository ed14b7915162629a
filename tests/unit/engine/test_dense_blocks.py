"""Dense blocks: concatenation in memory with spare room, and kernels that read parts of it."""

import copy

import pytest
import torch
from cases.path_operations import arguments, conv_case
from torch import nn
from torch.nn import functional as F

import faigfast
from faigfast.attribution import attributor as attribution
from faigfast.backend.cpu import extension as _extension
from faigfast.engine.chains import NodeChain
from faigfast.ops.conv.chain import Concatenation
from faigfast.ops.conv.channel_buffer import ChannelBuffer
from faigfast.ops.conv.cpu_queue import Queue
from faigfast.ops.conv.operation import conv, conv_backward
from faigfast.ops.conv.spec import ConvSpec, PathParameters
from faigfast.ops.path_values import dense, pitched
from faigfast.ops.registry import Use, using

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
ISAS = [] if _extension.module is None else _extension.module.supported()


def wide(part):
    """The same values, channels-last, inside a larger tensor of NaN."""
    room = torch.full((*part.shape[:2], *part.shape[3:], 31), torch.nan)
    room[..., 4 : 4 + part.shape[2]] = part.movedim(2, -1)
    return room[..., 4 : 4 + part.shape[2]].movedim(-1, 2)


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(9, 6), (8, 8), (5, 1), (1, 7)], ids=str)
def test_kernels_read_some_channels_of_a_wider_image(size, isa, points, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", isa)
    case = conv_case(size=size, channels=(20, 17), points=points, images=2, activation="relu")
    (_, forward), (_, backward) = arguments(case.to(torch.float32))
    x = forward[0]

    strided = wide(x)
    # The stride between pixels is ambiguous for one column.
    assert (pitched(strided).data_ptr() == strided.data_ptr()) == (size[1] > 1)
    with using(Use("cpu")):
        assert torch.equal(conv(strided, *forward[1:])[0], conv(*forward)[0])
        plain = conv_backward(*backward)
        other = conv_backward(backward[0], strided, *backward[2:])
    for one, same in zip(plain, other, strict=True):
        assert torch.equal(one, same)


@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(9, 6), (8, 8), (5, 1), (1, 7)], ids=str)
def test_kernels_add_some_channels_of_a_wider_gradient(size, isa, points, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", isa)
    case = conv_case(size=size, channels=(20, 17), points=points, images=2)
    _, (_, (gy, x, _, w0, dw, *_)) = arguments(case.to(torch.float32))
    alpha = torch.linspace(0.9, 0.2, points)
    more = torch.randn_like(x)

    parameters = PathParameters(w0, dw, None, None, None, None, alpha)

    def gradient(more):
        queue = Queue()
        gx = queue.convolve_backward(
            dense(gy), None, pitched(x), parameters, more, 2, [True, *[False] * 3], ConvSpec()
        )[0]
        queue.run()
        return gx

    alone, added, same = (gradient(part) for part in (None, dense(more), pitched(wide(more))))
    torch.testing.assert_close(added, alone + dense(more))
    assert torch.equal(added, same)


def test_room_is_filled_step_by_step():
    parts = [torch.randn(p, 1, 3, 4, c) for p, c in ((2, 3), (2, 2), (1, 4))]
    room = ChannelBuffer(2, 1, 3, 4, 9)
    for part in parts[:2]:
        room.put(part)
    first = room.pixels()
    assert room.fits(5, 4) and not room.fits(5, 5) and not room.fits(3, 2)
    room.put(parts[2])  # shared by all points
    both = room.pixels()
    assert both.data_ptr() == first.data_ptr()
    assert torch.equal(both, torch.cat((*parts[:2], parts[2].expand(2, -1, -1, -1, -1)), -1))


class Dense(nn.Module):
    """Two dense blocks; `order` joins the values before each layer."""

    def __init__(self, order, width=10, growth=7):
        super().__init__()
        self.order = order
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(width + i * growth, growth if i < 3 else width, 3, padding=1)
                for i in range(4)
            )
            for _ in range(2)
        )
        self.last = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + 0.2 * self.order(x, block)
        return self.last(x)


def nested(x, layers):
    for layer in layers[:-1]:
        x = torch.cat((x, F.leaky_relu(layer(x), 0.5)), 1)
    return layers[-1](x)


def flat(x, layers):
    values = [x]
    for layer in layers[:-1]:
        values.append(layer(torch.cat(values, 1)))
    return layers[-1](torch.cat(values, 1))


def branching(x, layers):
    """Joins two values to the same one. Only one of them fits into the spare room."""
    one = torch.cat((x, layers[0](x)), 1)
    new = layers[1](one)
    two, other = torch.cat((one, new), 1), torch.cat((one, 2 * new), 1)
    three = layers[2](two) + layers[2](other)
    return layers[3](torch.cat((two, three), 1))


def written_on(x, layers):
    """Changes a concatenation before it joins more values to it."""
    one = F.relu_(torch.cat((x, layers[0](x)), 1))
    two = torch.cat((one, layers[1](one)), 1)
    two.mul_(0.5)
    return layers[3](torch.cat((two, layers[2](two)), 1)) + two.mean()


def backwards(x, layers):
    """Puts new values first."""
    for layer in layers[:-1]:
        x = torch.cat((layer(x), x), 1)
    return layers[-1](x)


def twice(x, layers):
    """Joins one value to itself, and uses it elsewhere too."""
    one = torch.cat((x, layers[0](x)), 1)
    two = torch.cat((one, layers[1](one)), 1)
    three = torch.cat((two, layers[2](two) + two[:, :7]), 1)
    return layers[3](three) + torch.cat((x, x), 1)[:, 5:15]


ORDERS = [nested, flat, branching, written_on, backwards, twice]


@pytest.mark.parametrize("order", ORDERS)
def test_scores_are_those_of_plain_concatenations(order):
    torch.manual_seed(0)
    first, last = Dense(order), Dense(order)
    with torch.no_grad():
        for one, other in zip(first.parameters(), last.parameters(), strict=True):
            other.copy_(one + 0.05 * torch.randn_like(one))
    x, gt = torch.rand(2, 2, 3, 9, 12)
    exact = faigfast.attribute(
        copy.deepcopy(first).double(), copy.deepcopy(last).double(), (x.double(), gt.double()),
        steps=5, backend="torch",
    ).scores()  # fmt: skip
    result = faigfast.attribute(first, last, (x, gt), steps=5, backend="cpu")
    assert not any("point by point" in note for note in result.notes)
    error = (result.scores() - exact).abs().sum(1) / exact.abs().sum(1)
    assert error.max() < 1e-4
    plan = next(reversed(attribution._graphs[last]._plans.values()))
    rooms = [
        link.capacity
        for part in plan.chains(plan.sample)
        if isinstance(part, NodeChain)
        for link in part.operation.links
        if isinstance(link, Concatenation)
    ]
    if order in (nested, flat):  # flat also concatenates the first value alone
        assert rooms == [31] * (6 if order is nested else 8)
