"""Networks that change between two calls: the engine drops old plans."""

from types import SimpleNamespace

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, kinked, pair, untouched
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.hooks import RemovableHandle

from faigfast import attribute
from faigfast.engine import graph as graphs
from faigfast.models.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("wide_chunks")


class Changes(Body):
    def __init__(self):
        super().__init__()
        self.gain, self.detached, self.inner = 1.0, False, {"power": [1.0]}
        self.shift = torch.full((4, 1, 1), 0.1, dtype=torch.float64)
        self.act = nn.Tanh()
        self.helper = lambda y: y * self.gain

    def between(self, y):
        y = self.act(self.helper(y) + self.shift) * self.inner["power"][0]
        return y.detach() if self.detached else y


def _hook(net):
    net.act.register_forward_hook(lambda module, args, y: y * 1.00001)


def _replace_helper(net, factor=1.00001):
    net.helper = lambda y: y * factor


CHANGES = {
    "a number": lambda net: setattr(net, "gain", 1.00001),
    "a flag that only gradients show": lambda net: setattr(net, "detached", True),
    "a number in a list in a dict": lambda net: net.inner["power"].__setitem__(0, 1.00001),
    "a tensor": lambda net: setattr(net, "shift", net.shift + 1e-6),
    "a tensor in place": lambda net: net.shift.mul_(1.00001),
    "a tensor's data": lambda net: net.shift.data.mul_(1.00001),
    "a weight's data": lambda net: net.head.weight.data.mul_(1.1),
    "a submodule": lambda net: setattr(net, "act", nn.Sigmoid()),
    "a hook": _hook,
    "a closure": _replace_helper,
    "a method": lambda net: setattr(net, "between", lambda y: y * 0.5),
    "a padding": lambda net: (
        setattr(net.head, "padding_mode", "circular")
        or setattr(net.head, "_reversed_padding_repeated_twice", [1, 1, 1, 1])
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_network_that_changed_is_not_taken_for_what_it_was(name):
    nets, batch = pair(Changes), images(3)
    before = attribute(*nets, batch, steps=3)
    for net in nets:
        CHANGES[name](net)
    expected = attribute(*nets, batch, backend="reference", steps=3)
    assert not torch.equal(before.scores(), expected.scores())
    result = attribute(*nets, batch, steps=3)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)
    assert not [note for note in result.notes if "point by point" in note]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["a number", "a tensor in place", "a submodule", "a closure"])
def test_one_of_two_networks_that_changed_is_refused(which, name):
    nets, batch = pair(Changes), images(3)
    attribute(*nets, batch, steps=3)
    CHANGES[name](nets[which])
    with untouched(*nets), pytest.raises(ValueError, match="differ in their tensors alone"):
        attribute(*nets, batch, steps=3)


HIDDEN = [SimpleNamespace(factor=1.0)]


class Hidden(Body):
    def between(self, y):
        return y * HIDDEN[0].factor


@pytest.mark.parametrize("size", [(6, 5), (24, 19)], ids=str)
def test_what_no_attribute_shows_is_noticed_by_the_losses(size, monkeypatch):
    nets, batch = pair(Hidden), images(3, size=size)
    attribute(*nets, batch, steps=3)
    monkeypatch.setattr(HIDDEN[0], "factor", 1.001)
    expected = attribute(*nets, batch, backend="reference", steps=3)
    result = attribute(*nets, batch, steps=3)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)


def windows(output, gt):
    """Squared errors of means over 11×11 pixels."""
    return F.avg_pool2d(output - gt, 11, 1).square().flatten(1).sum(1)


def test_an_objective_that_takes_no_part_of_an_image(monkeypatch):
    nets, batch = pair(Hidden), images(2, size=(24, 19))
    options = dict(objective=windows, steps=3)
    first, again = (attribute(*nets, batch, **options) for _ in range(2))
    assert torch.equal(first.scores(), again.scores())
    monkeypatch.setattr(HIDDEN[0], "factor", 1.001)
    expected = attribute(*nets, batch, backend="reference", **options)
    result = attribute(*nets, batch, **options)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("size", [(6, 5), (24, 19)], ids=str)
def test_a_call_without_a_change_captures_nothing_again(size, monkeypatch):
    nets, batch = pair(Changes), images(3, size=size)
    first = attribute(*nets, batch, steps=3)
    monkeypatch.setattr(graphs, "_plan", None)
    again = attribute(*nets, batch, steps=3)
    assert torch.equal(first.scores(), again.scores())


def test_weights_are_never_kept():
    nets, batch = pair(kinked), images(3)
    attribute(*nets, batch, steps=3)
    for factor in (1.5, 0.5):
        for net in nets:
            net[0].weight.data.mul_(factor)
        expected = attribute(*nets, batch, backend="reference", steps=3)
        result = attribute(*nets, batch, steps=3)
        torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)


class Slotted:
    __slots__ = ("stop",)

    def __init__(self):
        self.stop = False


STOP, SETTINGS = False, {"stop": False}


def helper(y):
    return y


class ByGlobals(Body):
    stop = False

    def __init__(self):
        super().__init__()
        self.slotted = Slotted()

    def between(self, y):
        stop = STOP or SETTINGS["stop"] or self.stop or self.slotted.stop
        return helper(y.detach() if stop else y)


# Only the gradients show these changes, not the network's attributes.
OUTSIDE = {
    "a global": lambda nets, patch: patch.setitem(globals(), "STOP", True),
    "a global setting": lambda nets, patch: patch.setitem(SETTINGS, "stop", True),
    "a global function": lambda nets, patch: patch.setitem(
        globals(), "helper", lambda y: y.detach()
    ),
    "a class": lambda nets, patch: patch.setattr(ByGlobals, "stop", True),
    "a method of a class": lambda nets, patch: patch.setattr(
        ByGlobals, "between", lambda self, y: y.detach()
    ),
    "a class of torch": lambda nets, patch: patch.setattr(
        nn.Conv2d, "forward", lambda self, x: self._conv_forward(x.detach(), self.weight, self.bias)
    ),
    "a slot": lambda nets, patch: [setattr(net.slotted, "stop", True) for net in nets],
    "a hook of all modules": lambda nets, patch: register_module_forward_hook(
        lambda module, args, y: y.detach() if getattr(module, "out_channels", 0) == 4 else y
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_the_network_is_seen_too(name, monkeypatch, request):
    nets, batch = pair(ByGlobals), images(3)
    before = attribute(*nets, batch, steps=3)
    hook = OUTSIDE[name](nets, monkeypatch)
    if isinstance(hook, RemovableHandle):
        request.addfinalizer(hook.remove)
    expected = attribute(*nets, batch, steps=3, backend="reference").scores()
    assert not torch.equal(before.scores(), expected)
    scores = attribute(*nets, batch, steps=3).scores()
    torch.testing.assert_close(scores, expected, rtol=1e-11, atol=1e-16)


class Caches(Body):
    """Caches a value computed from its weights."""

    def __init__(self):
        super().__init__()
        self.logits, self.known = nn.Parameter(torch.randn(4)), {}

    def between(self, y):
        if y.shape not in self.known:
            self.known[y.shape] = self.logits.softmax(0).view(4, 1, 1)
        return y * self.known[y.shape]


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_network_that_keeps_what_it_made_of_its_weights_is_refused(backend):
    nets, batch = pair(Caches), images(1)
    with pytest.raises(ValueError, match="differ in their tensors alone"):
        attribute(*nets, batch, steps=3, backend=backend)
    with torch.no_grad():
        again = nets[1](batch[0])
        nets[1].known.clear()
        torch.testing.assert_close(nets[1](batch[0]), again)


class Tiled(Body):
    """Computes differently for large images."""

    def __init__(self):
        super().__init__()
        self.tile = 1000

    def between(self, y):
        return torch.cat([part * (1 + 0.1 * i) for i, part in enumerate(y.split(self.tile, 3))], 3)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_difference_that_only_large_images_show_is_refused(backend):
    nets = pair(Tiled)
    nets[0].tile = 70
    with pytest.raises(ValueError, match="differ in their tensors alone"):
        attribute(*nets, images(1, size=(72, 72)), steps=2, backend=backend)


def test_a_fingerprint_follows_values_however_they_are_written():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    first = fingerprint(net)
    assert fingerprint(net) == first
    net[0].weight.data[0, 0, 0, 0] += 1
    second = fingerprint(net)
    net[0].bias.detach().numpy()[1] += 1  # does not change the tensor's version
    third = fingerprint(net)
    net[0].bias.detach().numpy()[1] -= 1
    net[0].weight.data = net[0].weight.data.to(torch.bfloat16)
    assert len({first, second, third, fingerprint(net)}) == 4
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    other.load_state_dict(net.state_dict())
    other[0].weight.data = net[0].weight.data.clone()
    assert fingerprint(other) == fingerprint(net)
