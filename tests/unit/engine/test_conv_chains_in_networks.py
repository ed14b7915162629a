"""Chains of convolutions in networks: detection, and equal scores with and without them."""

import copy
from collections import Counter

import pytest
import torch
from cases.conv_chain_networks import (
    NETS,
    Net,
    conv,
    dense,
    joined_and_added,
    joined_apart,
    used_everywhere,
)
from cases.networks import images, pair
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.profiler import ProfilerActivity, profile

import faigfast
from faigfast.backend.cpu import extension as _extension
from faigfast.engine import chains, integrate
from faigfast.engine import graph as graphs
from faigfast.engine.chains import NodeChain
from faigfast.engine.memory import Chunk
from faigfast.integration.path import WeightPath
from faigfast.zoo import EDSR, RRDBNet, SRResNet

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)


class Runs(list):
    """List of the chains that ran as one operation; `off` switches chains off."""

    off = False


@pytest.fixture
def ran(monkeypatch):
    done, original = Runs(), NodeChain.run

    def run(chain, values, points):
        together = not done.off and original(chain, values, points)
        if together:
            done.append(chain)
        return together

    monkeypatch.setattr(NodeChain, "run", run)
    return done


def relative(one, other):
    one, other = (result.scores().double() for result in (one, other))
    difference, norm = (one - other).norm(dim=1), other.norm(dim=1)
    # A zero reference needs a zero result.
    return torch.where(difference == 0, 0.0, difference / norm).max().item()


def compared(nets, data, ran, **options):
    """Result with chains, compared with the result without them and with the reference."""
    wide = [copy.deepcopy(net).double() for net in nets]
    result = faigfast.attribute(*nets, data, backend="cpu", **options)
    assert not any("point by point" in note for note in result.notes), result.notes
    count, ran.off = len(ran), True
    plain = faigfast.attribute(*nets, data, backend="cpu", **options)
    assert len(ran) == count
    ran.off = False
    options.pop("memory", None)
    wanted = faigfast.attribute(
        *wide, tuple(t.double() for t in data), backend="reference", **options
    )
    assert relative(result, plain) < 1e-5 and result.notes == plain.notes
    # Gradients of biases count too.
    torch.testing.assert_close(result.completeness, plain.completeness, rtol=0, atol=1e-4)
    assert relative(result, wanted) < 2e-3  # kinks, as without chains
    return result


# Images one pixel wide, at concatenations and pixel shuffles.
SIZES = [(name, (7, 5)) for name in NETS] + [
    (name, (side, 1)) for side in (1, 6) for name in ("dense", "joined apart", "resized")
]


@pytest.mark.parametrize("rule", ["midpoint", "averaged"])
@pytest.mark.parametrize("name, size", SIZES)
def test_scores(name, size, rule, ran):
    data = images(3, size=size, dtype=torch.float32)
    compared(pair(NETS[name], torch.float32), data, ran, rule=rule, steps=3)
    assert bool(ran) == (name != "in place")  # in-place networks use other operations


@pytest.mark.parametrize("way", [dense, used_everywhere, joined_apart])
@pytest.mark.parametrize(
    "chunk", [Chunk(1, 1), Chunk(3, 2), Chunk(2, 4, segments=3), Chunk(1, 2, segments=5),
              Chunk(2, 2, at_once=2)], ids=str,
)  # fmt: skip
def test_chunks(chunk, way, ran, monkeypatch):
    monkeypatch.setattr(integrate.Engine, "_chunk", lambda *args: chunk)
    nets = pair(NETS[way.__name__.replace("_", " ")], torch.float32)
    data = images(3, size=(9, 8), dtype=torch.float32)
    compared(nets, data, ran, rule="midpoint", steps=5)
    assert ran


@pytest.mark.parametrize("segments", [1, 3])
def test_segments_make_the_values_of_chains_again(segments, monkeypatch):
    nets, data = pair(NETS["blocks"], torch.float32), images(1, dtype=torch.float32)
    chunk = Chunk(4, 1, segments=segments)
    monkeypatch.setattr(integrate.Engine, "_chunk", lambda *args: chunk)
    faigfast.attribute(*nets, data, rule="midpoint", backend="cpu", steps=4)
    started, original = [], chains.ops.run

    def run(operation, *args):
        started.append(operation)  # a recomputed segment stops early
        return original(operation, *args)

    monkeypatch.setattr(chains.ops, "run", run)
    faigfast.attribute(*nets, data, rule="midpoint", backend="cpu", steps=4)
    unsegmented, *parts = Counter(map(id, started)).values()
    # Once for the ends, and without segments once for all points.
    assert unsegmented == (2 if segments == 1 else 1)
    assert parts == ([] if segments == 1 else [2, 2, 2])


@pytest.mark.parametrize("taken", [("mid", "end"), ("mid",), ("end",)], ids=str)
def test_several_outputs(taken, ran):
    class Outputs(Net):
        def forward(self, x):
            mid = self.c[0](self.head(x))
            return {"mid": self.tail(self.c[1](mid)), "end": self.tail(self.c[2](mid) + mid)}

    def objective(output, gt):
        return sum((output[name] - gt).square().flatten(1).sum(1) for name in taken)

    nets = pair(lambda: Outputs(None), torch.float32)
    data = images(2, dtype=torch.float32)
    compared(nets, data, ran, steps=3, objective=objective)
    assert ran


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


def chain_lengths(make, still=()):
    """Number of convolutions of each chain in a network, in order."""
    baseline, target = pair(make, torch.float32)
    state = baseline.state_dict()
    target.load_state_dict(
        {k: state[k] if k in still else v for k, v in target.state_dict().items()}
    )
    path = WeightPath(baseline, target)
    made = graphs.Graphs().plan_of(path, images(1, size=(7, 5), dtype=torch.float32)[0])
    assert made is not None
    parts = made.chains(made.sample)
    nodes = [n for part in parts for n in (part.nodes if isinstance(part, NodeChain) else [part])]
    assert nodes == made.sample
    return [len(part.parameters) for part in parts if isinstance(part, NodeChain)]


def stack(*layers):
    return lambda: nn.Sequential(conv(3), *(layer() for layer in layers), conv(outputs=3))


def normed():
    return parametrizations.weight_norm(conv())


# Operations between two chains of two 3×3 convolutions each.
BREAKS_CHAIN = {
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
    "5×5": lambda: conv(kernel=5, padding=1),
    "1×3": lambda: conv(kernel=(1, 3), padding=(0, 1)),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3, padding=1),
    "weight norm": normed,
}


@pytest.mark.parametrize("name", BREAKS_CHAIN)
def test_what_ends_a_chain(name):
    # The convolution before takes prelu or gelu as its activation and leaves the chain.
    taken = name in ("prelu", "gelu")
    assert chain_lengths(stack(conv, BREAKS_CHAIN[name], conv)) == ([2] if taken else [2, 2])


CONTINUES_CHAIN = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky relu": lambda: nn.LeakyReLU(0.2, inplace=True),
    "nothing": nn.Identity,
    "dropout": nn.Dropout,
    "shuffle": lambda: nn.Sequential(conv(4, 16), nn.PixelShuffle(2), nn.ReLU()),
    "no bias": lambda: conv(bias=False),
    "padding of two": lambda: conv(padding=(1, 1)),
}


@pytest.mark.parametrize("name", CONTINUES_CHAIN)
def test_what_does_not_end_a_chain(name):
    lengths = chain_lengths(stack(conv, CONTINUES_CHAIN[name], conv))
    assert lengths == [5 if name in ("shuffle", "no bias", "padding of two") else 4]


def test_one_is_no_chain():
    assert chain_lengths(stack(nn.Tanh)) == []


def test_negative_slopes_and_activations_before_a_sum_are_no_links():
    """The sign of the result does not determine the sign of the input."""
    assert chain_lengths(stack(conv, lambda: nn.LeakyReLU(-0.2), conv)) == [2, 2]

    def summed(net, x):
        return net.c[1](F.relu(net.c[0](x)) + x)

    assert chain_lengths(lambda: Net(summed)) == [2]


def test_what_stands_still_is_no_link():
    make = stack(conv, conv, conv, conv)
    assert chain_lengths(make) == [6]
    assert chain_lengths(make, ("2.weight",)) == [6]  # the bias moves
    assert chain_lengths(make, ("2.weight", "2.bias")) == [2, 3]
    assert chain_lengths(make, ("0.weight", "0.bias")) == [5]


def test_other_dimensions_are_no_links():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = nn.Sequential(conv(3), conv(), conv(outputs=3))

        def forward(self, x):
            return self.c(x[0])[None]

    assert chain_lengths(Flat) == []


def test_joins_belong_to_a_chain_only_before_its_last_link():
    def tanh_of_join(net, x):
        return net.shrink8(torch.tanh(torch.cat((x, net.c[0](x)), 1).contiguous()))

    for make in (lambda: Net(dense, grow=conv(8, 5), shrink=conv(13)),
                 lambda: Net(joined_and_added, eight=conv(8, 8), shrink8=conv(8))):  # fmt: skip
        assert chain_lengths(make) == [5]
    assert chain_lengths(lambda: Net(tanh_of_join, shrink8=conv(8))) == [2, 2]


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
    runs = chain_lengths(make)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in make().modules())
    assert sum(runs) >= convolutions - 3 and {len(chain.parameters) for chain in ran} >= set(runs)


def test_blocks_need_no_sum_of_images_in_backward():
    nets = pair(lambda: SRResNet(width=16, blocks=3, scale=2), torch.float32)
    batch, options = (torch.rand(1, 3, 12, 12), torch.rand(1, 3, 24, 24)), dict(steps=4)
    faigfast.attribute(*nets, batch, backend="cpu", **options)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        faigfast.attribute(*nets, batch, backend="cpu", **options)
    shapes = [list(event.input_shapes[0]) for event in seen.events() if event.name == "aten::add"]
    # Sums of features at all points. The network itself, which runs for comparison, has fewer axes.
    assert not [shape for shape in shapes if len(shape) > 4 and shape[-3:] == [16, 12, 12]]


def test_callers_without_gradients(ran):
    nets, data = pair(NETS["blocks"], torch.float32), images(2, dtype=torch.float32)
    expected = faigfast.attribute(*nets, data, backend="cpu", steps=3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            result = faigfast.attribute(*nets, data, backend="cpu", steps=3)
        assert relative(result, expected) < 1e-6
    assert ran


class Image(torch.Tensor):
    """A subclass of Tensor."""


def test_odd_inputs(ran):
    nets, (x, gt) = pair(NETS["dense"], torch.float32), images(2, dtype=torch.float32)
    expected = faigfast.attribute(*nets, (x, gt), backend="cpu", steps=3)
    for odd in (x.as_subclass(Image), x.mT.contiguous().mT, x.flip(3).flip(3),
                torch.stack((x, x + 1), -1)[..., 0], nn.Parameter(x)):  # fmt: skip
        result = faigfast.attribute(*nets, (odd, gt), backend="cpu", steps=3)
        assert relative(result, expected) < 1e-6
    expanded = tuple(part[:1].expand(3, -1, -1, -1) for part in (x, gt))
    result = faigfast.attribute(*nets, expanded, backend="cpu", steps=3)
    assert (result.scores() - expected.scores()[:1]).norm() < 1e-6 * expected.scores()[0].norm()


def test_a_loss_that_is_not_finite_is_told_as_without_chains(ran):
    nets, data = pair(NETS["blocks"], torch.float32), images(2, dtype=torch.float32)
    faigfast.attribute(*nets, data, backend="cpu", steps=3)
    with torch.no_grad():  # only the product of both weights between the ends is too large
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


def test_other_backends_group_no_chains(monkeypatch):
    """Only the C++ kernels serve chains, so that a GPU run does not look for them."""

    def looked(plan, nodes):
        raise RuntimeError("chains were looked for")

    monkeypatch.setattr("faigfast.engine.run.Plan.chains", looked)
    monkeypatch.setattr(integrate, "preferred_chunk", lambda *_: Chunk(2, images=1))
    models = pair(lambda: nn.Sequential(conv(3), conv(outputs=3)), torch.float32)
    batch = images(1, size=(5, 4), dtype=torch.float32)
    for backend in ("torch", "cpu"):
        notes = faigfast.attribute(*models, batch, steps=2, backend=backend).notes
        assert any("chains were looked for" in note for note in notes) == (backend == "cpu")
