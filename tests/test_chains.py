"""Chains of convolutions in networks: which are found, and that scores are those without them."""

import copy
from collections import Counter

import pytest
import torch
from helpers import images, pair
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import faigfast
from faigfast import _extension
from faigfast.engine import chains, integrate, plan
from faigfast.engine.chains import Chain
from faigfast.engine.memory import Chunk
from faigfast.path import WeightPath
from faigfast.zoo import EDSR, RRDBNet, SRResNet

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)


def conv(inputs=4, outputs=4, kernel=3, padding=1, **options):
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, **options)


class Net(nn.Module):
    """Some layers, and what `way` does with them."""

    def __init__(self, way, **layers):
        super().__init__()
        self.way = way
        self.c = nn.ModuleList(conv() for _ in range(6))
        self.head, self.tail = conv(3), conv(outputs=3)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.tail(self.way(self, self.head(x)))


def blocks(net, x):
    first = x
    for i in (0, 2):
        x = x + 0.3 * net.c[i + 1](F.leaky_relu(net.c[i](x), 0.5))
    return net.c[4](x) + first


def used_everywhere(net, x):
    one = net.c[0](x)
    two = net.c[1](one) + one
    three = net.c[2](two) + net.c[3](two)
    return three * torch.sigmoid(one) + two.mean((2, 3), keepdim=True) + x


def shared_weights(net, x):
    for _ in range(3):
        x = net.c[1](F.leaky_relu(net.c[0](x), 0.5)) + x
    return x


def bias_of_another(net, x):
    y = F.conv2d(x, net.c[0].weight, net.c[1].bias, padding=1)
    return F.conv2d(y, net.c[1].weight, net.c[1].bias, padding=1)


def dense(net, x):
    y = torch.cat((x, net.c[0](x)), 1)
    y = torch.cat((y, net.grow(y)), 1)
    return net.shrink(y)


def joined_to_images(net, x):
    y = torch.cat((net.image, net.c[0](x)), 1)
    return net.c[1](y[:, 3:] + 0.1) + net.seven(y)


def joined_and_added(net, x):
    y = torch.cat((x, net.c[0](x)), 1)
    return net.shrink8(net.eight(y) + y)


def joined_apart(net, x):
    y = torch.cat((x, net.c[0](x)), 1)
    one, other = (torch.cat((y, net.grow(y) * k), 1) for k in (1.0, -2.0))
    return net.shrink(one) + net.shrink(other)


def joined_before_all(net, x):
    y = torch.cat((torch.tanh(x), torch.sigmoid(x)), 1)
    return net.c[1](net.shrink8(y))


def other_layers_between(net, x):
    x = net.c[0](F.gelu(net.c[1](net.c[2](x)))) + x
    return net.c[5](net.c[4](net.prelu(net.c[3](x))))


def in_place(net, x):
    x = F.relu_(net.c[1](net.c[0](x)))
    x = net.c[3](net.c[2](x) + 0.1)
    x.mul_(0.5)
    x[:, 1:3].add_(0.25)
    y = net.c[5](net.c[4](x))
    y += x
    return y


def written_after_use(net, x):
    first = net.c[0](x)
    one = net.c[1](first)
    two = net.c[2](x) + 2 * one
    one.mul_(0.5)
    return net.c[3](two) + one + first


def dead_ends(net, x):
    net.c[1](net.c[0](x))
    return net.c[2](x)


def no_gradient(net, x):
    y = net.c[1](net.c[0](x))
    return net.c[2](y.detach()) + net.c[3](y)


def resized(net, x):
    y = F.pixel_shuffle(net.c[0](x), 2)
    y = F.leaky_relu(F.pixel_shuffle(net.many(y.repeat(1, 4, 1, 1)), 2), 0.5)
    return F.avg_pool2d(net.c[1](y), 4)


def two_sizes(net, x):
    y = net.c[1](net.c[0](x))
    small = net.c[3](net.c[2](F.avg_pool2d(y, 2, ceil_mode=True)))
    return y + F.interpolate(small, size=y.shape[2:], mode="nearest")


def transposed_views(net, x):
    y = net.c[0](x).transpose(2, 3)
    y = net.c[1](y)
    return net.c[2](y).transpose(2, 3).flip(1)


def image_itself(net, x):
    return net.c[1](net.c[0](x)) + net.c[3](net.c[2](torch.cat((net.image, x[:, :1]), 1)))


def batches(net, x):
    y = net.c[1](net.c[0](torch.cat((x, 0.5 * x, x.flip(3)))))
    return net.c[3](net.c[2](y)).mean(0, keepdim=True) + y[1:2]


def one_for_all_images(net, x):
    y = net.c[1](net.c[0](2 * net.picture.weight[None, :, : x.shape[2], : x.shape[3]]))
    return net.c[3](net.c[2](x) + y) + y


def parameter_itself(net, x):
    y = net.c[1](net.c[0](net.picture.weight[None]))
    return net.c[3](net.c[2](x)) + y.mean()


def constant(net, x):
    y = net.c[1](net.c[0](torch.ones_like(x)))
    return net.c[3](net.c[2](x)) + y


def joined_parameters(net, x):
    part = torch.sin(net.picture.weight[None, :, : x.shape[2], : x.shape[3]])
    y = torch.cat((part, 2 * part), 1)
    return net.shrink(torch.cat((y, net.grow(y)), 1)) + net.c[1](net.c[0](x))


def same_twice(net, x):
    y = torch.cat((net.c[0](x),) * 2, 1)
    return net.shrink8(y) + net.c[1](net.c[2](x) + net.c[2](x))


class Picture(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 9, 8))


class WithImage(Net):
    def forward(self, x):
        self.__dict__["image"] = x
        found = super().forward(x)
        del self.__dict__["image"]
        return found


NETS = {
    "blocks": lambda: Net(blocks),
    "used everywhere": lambda: Net(used_everywhere),
    "shared weights": lambda: Net(shared_weights),
    "bias of another": lambda: Net(bias_of_another),
    "dense": lambda: Net(dense, grow=conv(8, 5), shrink=conv(13)),
    "joined to images": lambda: WithImage(joined_to_images, seven=conv(7)),
    "joined and added": lambda: Net(joined_and_added, eight=conv(8, 8), shrink8=conv(8)),
    "joined apart": lambda: Net(joined_apart, grow=conv(8, 5), shrink=conv(13)),
    "joined before all": lambda: Net(joined_before_all, shrink8=conv(8)),
    "other layers between": lambda: Net(other_layers_between, prelu=nn.PReLU(4)),
    "in place": lambda: Net(in_place),
    "written after use": lambda: Net(written_after_use),
    "dead ends": lambda: Net(dead_ends),
    "no gradient": lambda: Net(no_gradient),
    "resized": lambda: Net(resized, many=conv(4, 16)),
    "two sizes": lambda: Net(two_sizes),
    "transposed views": lambda: Net(transposed_views),
    "image itself": lambda: WithImage(image_itself),
    "batches": lambda: Net(batches),
    "one for all images": lambda: Net(one_for_all_images, picture=Picture()),
    "parameter itself": lambda: Net(parameter_itself, picture=Picture()),
    "constant": lambda: Net(constant),
    "joined parameters": lambda: Net(
        joined_parameters, picture=Picture(), grow=conv(8, 5), shrink=conv(13)
    ),
    "same twice": lambda: Net(same_twice, shrink8=conv(8)),
}


@pytest.fixture
def ran(monkeypatch):
    """Chains that ran as one operation; `off` from when on none does."""
    original, done = Chain.run, []

    def run(chain, values, points):
        together = not done.off and original(chain, values, points)
        if together:
            done.append(chain)
        return together

    class Runs(list):
        off = False

    done = Runs()
    monkeypatch.setattr(Chain, "run", run)
    return done


def relative(one, other):
    one, other = (result.scores().double() for result in (one, other))
    difference, norm = (one - other).norm(dim=1), other.norm(dim=1)
    # Nothing must be nothing.
    return torch.where(difference == 0, 0.0, difference / norm).max().item()


def compared(nets, data, ran, **options):
    """The result with chains, which are those without and of the reference."""
    apart = [copy.deepcopy(net) for net in nets]
    wide = [copy.deepcopy(net).double() for net in nets]
    result = faigfast.attribute(*nets, data, backend="cpu", **options)
    assert not any("point by point" in note for note in result.notes), result.notes
    count, ran.off = len(ran), True
    plain = faigfast.attribute(*apart, data, backend="cpu", **options)
    assert len(ran) == count
    ran.off = False
    options.pop("memory", None)
    wanted = faigfast.attribute(
        *wide, tuple(t.double() for t in data), backend="reference", **options
    )
    assert relative(result, plain) < 1e-5 and result.notes == plain.notes
    # Of the biases too.
    torch.testing.assert_close(result.completeness, plain.completeness, rtol=0, atol=1e-4)
    assert relative(result, wanted) < 2e-3  # at kinks, as without chains
    return result


@pytest.mark.parametrize("size", [(1, 1), (7, 5)], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_scores(name, size, ran):
    compared(
        pair(NETS[name], torch.float32), images(3, size=size, dtype=torch.float32), ran, steps=3
    )
    assert bool(ran) == (name != "in place")  # which is written with other operations


@pytest.mark.parametrize("way", [blocks, dense, used_everywhere, joined_apart, no_gradient])
@pytest.mark.parametrize(
    "chunk", [Chunk(1, 1), Chunk(3, 2), Chunk(2, 4, segments=3), Chunk(1, 2, segments=5),
              Chunk(2, 2, at_once=2)], ids=str,
)  # fmt: skip
def test_chunks(chunk, way, ran, monkeypatch):
    monkeypatch.setattr(integrate.Engine, "_chunk", lambda *args: chunk)
    nets = pair(NETS[way.__name__.replace("_", " ")], torch.float32)
    compared(nets, images(3, size=(9, 8), dtype=torch.float32), ran, steps=5)
    assert ran


@pytest.mark.parametrize("segments", [1, 3])
def test_segments_make_the_values_of_chains_again(segments, monkeypatch):
    nets, data = pair(NETS["blocks"], torch.float32), images(1, dtype=torch.float32)
    chunk = Chunk(4, 1, segments=segments)
    monkeypatch.setattr(integrate.Engine, "_chunk", lambda *args: chunk)
    faigfast.attribute(*nets, data, backend="cpu", steps=4)
    started, original = [], chains.ops.run

    def run(operation, *args):
        started.append(operation)  # in a segment that is made again, it does not end
        return original(operation, *args)

    monkeypatch.setattr(chains.ops, "run", run)
    faigfast.attribute(*nets, data, backend="cpu", steps=4)
    whole, *parts = Counter(map(id, started)).values()
    assert whole == (2 if segments == 1 else 1)  # for the ends, and once for all points
    assert parts == ([] if segments == 1 else [2, 2, 2])


def test_two_calls_give_the_same(ran):
    nets, data = pair(NETS["dense"], torch.float32), images(2, dtype=torch.float32)
    one, other = (faigfast.attribute(*nets, data, backend="cpu", steps=5) for _ in range(2))
    assert relative(one, other) == 0 and ran


@pytest.mark.parametrize("kept", [".weight", ".bias", "c.0", "c.", "grow"])
def test_networks_with_only_some_tensors_that_move(kept, ran):
    baseline, target = pair(NETS["dense"], torch.float32)
    state = baseline.state_dict()
    target.load_state_dict(
        {k: state[k] if kept in k else v for k, v in target.state_dict().items()}
    )
    compared((baseline, target), images(2, dtype=torch.float32), ran, steps=3)
    assert ran


def found_in(make, still=()):
    """How many convolutions each chain has that is found in a network, in order."""
    baseline, target = pair(make, torch.float32)
    state = baseline.state_dict()
    target.load_state_dict(
        {k: state[k] if k in still else v for k, v in target.state_dict().items()}
    )
    path = WeightPath(baseline, target)
    made = plan.plan_for(path, images(1, size=(7, 5), dtype=torch.float32)[0], "")
    assert isinstance(made, plan.Plan), made
    parts = made.chains(made.sample)
    nodes = [n for part in parts for n in (part.nodes if isinstance(part, Chain) else [part])]
    assert nodes == made.sample
    return [len(part.layers) for part in parts if isinstance(part, Chain)]


def stack(*layers):
    return lambda: nn.Sequential(conv(3), *(layer() for layer in layers), conv(outputs=3))


def normed():
    return parametrizations.weight_norm(conv())


# Between two convolutions 3×3, the second of which another follows.
ENDS = {
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "stride": lambda: conv(stride=2),
    "dilation": lambda: conv(dilation=2, padding=2),
    "groups": lambda: conv(groups=2),
    "no padding": lambda: conv(padding=0),
    "padding by name": lambda: conv(padding="same"),
    "padding with a mode": lambda: conv(padding_mode="reflect"),
    "1×1": lambda: conv(kernel=1, padding=0),
    "5×5": lambda: conv(kernel=5, padding=2),
    "1×3": lambda: conv(kernel=(1, 3), padding=(0, 1)),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
    "weight norm": normed,
}


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_chain(name):
    # The convolution before takes the first two with it.
    taken = name in ("prelu", "gelu")
    assert found_in(stack(conv, ENDS[name], conv)) == ([2] if taken else [2, 2])
    assert found_in(stack(ENDS[name])) == []


GOES_ON = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky relu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "nothing": nn.Identity,
    "dropout": nn.Dropout,
    "shuffle": lambda: nn.Sequential(conv(4, 16), nn.PixelShuffle(2), nn.ReLU()),
    "no bias": lambda: conv(bias=False),
    "padding of two": lambda: conv(padding=(1, 1)),
}


@pytest.mark.parametrize("name", GOES_ON)
def test_what_does_not_end_a_chain(name):
    found = found_in(stack(conv, GOES_ON[name], conv))
    assert found == [5 if name in ("shuffle", "no bias", "padding of two") else 4]


def test_negative_slopes_and_activations_before_a_sum_are_no_links():
    """The sign of the result does not tell that of what went in."""
    assert found_in(stack(conv, lambda: nn.LeakyReLU(-0.2), conv)) == [2, 2]

    def summed(net, x):
        return net.c[1](F.relu(net.c[0](x)) + x)

    assert found_in(lambda: Net(summed)) == [2]


def test_what_stands_still_is_no_link():
    make = stack(conv, conv, conv, conv)
    assert found_in(make) == [6]
    assert found_in(make, ("2.weight",)) == [6]  # the bias moves
    assert found_in(make, ("2.weight", "2.bias")) == [2, 3]
    assert found_in(make, ("0.weight", "0.bias")) == [5]


def test_other_dimensions_are_no_links():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Sequential(conv(3), conv(), conv(outputs=3))

        def forward(self, x):
            return self.c(x[0])[None]

    assert found_in(Flat) == []


def test_joins_belong_to_a_chain_only_before_its_last_link():
    def ends(net, x):
        return net.shrink8(torch.tanh(torch.cat((x, net.c[0](x)), 1).contiguous()))

    for make in (lambda: Net(dense, grow=conv(8, 5), shrink=conv(13)),
                 lambda: Net(joined_and_added, eight=conv(8, 8), shrink8=conv(8))):  # fmt: skip
        assert found_in(make) == [5]
    assert found_in(lambda: Net(ends, shrink8=conv(8))) == [2, 2]


ZOO = {
    "SRResNet": (lambda: SRResNet(width=8, blocks=2, scale=2), 2),
    "EDSR": (lambda: EDSR(width=8, blocks=2, scale=2, res_scale=0.1), 2),
    "RRDBNet": (lambda: RRDBNet(width=8, growth=4, blocks=1, scale=4), 4),
}


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_runs_in_chains(name, ran):
    make, scale = ZOO[name]
    nets = pair(make, torch.float32)
    x, gt = images(2, size=(6, 5), dtype=torch.float32)
    gt = gt.repeat(1, 1, scale, scale)
    compared(nets, (x, gt), ran, steps=3)
    runs = found_in(make)
    layers = sum(isinstance(layer, nn.Conv2d) for layer in make().modules())
    assert sum(runs) >= layers - 3 and {len(chain.layers) for chain in ran} >= set(runs)


def test_callers_without_gradients(ran):
    nets, data = pair(NETS["blocks"], torch.float32), images(2, dtype=torch.float32)
    expected = faigfast.attribute(*nets, data, backend="cpu", steps=3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            result = faigfast.attribute(*nets, data, backend="cpu", steps=3)
        assert relative(result, expected) < 1e-6
    assert ran


class Image(torch.Tensor):
    """A tensor that says so."""


def test_odd_inputs(ran):
    nets, (x, gt) = pair(NETS["dense"], torch.float32), images(2, dtype=torch.float32)
    expected = faigfast.attribute(*nets, (x, gt), backend="cpu", steps=3)
    for odd in (x.as_subclass(Image), x.mT.contiguous().mT, x.flip(3).flip(3),
                torch.stack((x, x + 1), -1)[..., 0], nn.Parameter(x)):  # fmt: skip
        result = faigfast.attribute(*nets, (odd, gt), backend="cpu", steps=3)
        assert relative(result, expected) < 1e-6
    alike = faigfast.attribute(*nets, (x[:1].expand(3, -1, -1, -1), gt[:1].expand(3, -1, -1, -1)),
                               backend="cpu", steps=3)  # fmt: skip
    assert (alike.scores() - expected.scores()[:1]).norm() < 1e-6 * expected.scores()[0].norm()


def test_a_loss_that_is_not_finite_is_told_as_without_chains(ran):
    nets, data = pair(NETS["blocks"], torch.float32), images(2, dtype=torch.float32)
    with torch.no_grad():  # only their product, between the ends, is too large
        for i, net in enumerate(nets):
            for layer, factor in ((net.head, 1e13), (net.tail, 1e-13)):
                layer.weight.mul_(factor if i else 1 / factor)
                layer.bias.zero_()
    messages = []
    for off in (False, True):
        ran.off = off
        with pytest.raises(ValueError) as caught:
            faigfast.attribute(*nets, data, backend="cpu", steps=3)
        messages.append(str(caught.value))
    assert ran and messages[0] == messages[1] and "the loss is inf" in messages[0]
