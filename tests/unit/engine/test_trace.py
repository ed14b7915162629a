"""Traces and glances: distinctions, refusals, and no side effects."""

import sys
from subprocess import run

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, kinked, pair, smooth, untouched
from torch import fx, nn
from torch.nn import functional as F

from faigfast import attribute
from faigfast.engine import integrate
from faigfast.engine.calls import record_calls
from faigfast.engine.capture import capture
from faigfast.engine.graph import _tensors
from faigfast.engine.not_captured import NeedsFunctional, NotCaptured
from faigfast.engine.trace import trace
from faigfast.integration.cautions import without_cautions
from faigfast.integration.path import WeightPath
from faigfast.zoo import EDSR, RCAN, RRDBNet, SRResNet, SwinIR


def traced(make, size=(6, 5), which=1, **options):
    nets = pair(make)
    path, x = WeightPath(*nets), images(1, size=size)[0]
    with untouched(*nets, data=[x]):
        return trace(path, nets[which], _tensors(path, nets[which]), x, **options)


ZOO = {
    "SRResNet": lambda: SRResNet(width=8, blocks=1, scale=2),
    "EDSR": lambda: EDSR(width=8, blocks=1, scale=3),
    "RRDBNet": lambda: RRDBNet(width=8, growth=4, blocks=1, scale=4),
    "RCAN": lambda: RCAN(width=8, groups=1, blocks=1, squeeze=2, scale=2),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_computation_has_one_digest_whatever_the_size(name):
    made = [traced(ZOO[name], size=size) for size in ((8, 8), (13, 10), (24, 40))]
    assert len({one.digest for one in made}) == 1
    assert len({tuple(one.sizes) for one in made}) == 3


@pytest.mark.parametrize("name", ZOO)
def test_both_networks_have_one_digest(name):
    assert traced(ZOO[name], which=0).digest == traced(ZOO[name], which=1).digest


def test_windows_are_of_one_size():
    make = lambda: SwinIR(width=8, depths=(1,), heads=(2,), window=4, image_size=16, scale=2)  # noqa: E731
    first, again, other = (traced(make, size=size).digest for size in ((8, 8), (8, 8), (8, 12)))
    assert first == again != other


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("size", [(8, 8), (13, 10)])
def test_a_graph_computes_what_the_network_does(name, size):
    nets, x = pair(ZOO[name]), images(1, size=(24, 40))[0]
    path = WeightPath(*nets)
    made = traced(ZOO[name], size=size)
    graph = fx.GraphModule(made.root, capture(made))
    with torch.no_grad():
        y = graph(*_tensors(path, nets[1]).values(), x)
        torch.testing.assert_close(y, nets[1](x), rtol=1e-12, atol=1e-12)


class Does(Body):
    """Runs a given function between its convolutions."""

    def __init__(self, between):
        super().__init__()
        self.body = between

    def between(self, y):
        return self.body(y)


def no_gradients(y):
    with torch.no_grad():
        return y * 1.0


ONES = torch.ones(4, 1, 1, dtype=torch.float64)
DIFFERENT = {
    "a number": (lambda y: y * 1.0, lambda y: y * 1.00001),
    "a type of number": (lambda y: y * 1, lambda y: y * 1.0),
    "an operation": (torch.tanh, torch.sin),
    "an order": (lambda y: (y + 1) * 2, lambda y: y * 2 + 2),
    "a gradient": (lambda y: y * 1.0, lambda y: (y * 1.0).detach()),
    "gradients that are off": (lambda y: y * 1.0, no_gradients),
    "data": (lambda y: y.view_as(y), lambda y: y.data),
    "a table": (lambda y: y * ONES, lambda y: y * (ONES + 1e-9)),
    "which input": (lambda y: y - y.sin(), lambda y: y.sin() - y),
    "a keyword": (lambda y: y + y.sum(1, keepdim=True), lambda y: y + y.sum(2, keepdim=True)),
    "a size that is broadcast": (lambda y: y + y[:, :, :1], lambda y: y + y[:, :1]),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_told_apart(name):
    one, other = (lambda body=body: Does(body) for body in DIFFERENT[name])
    assert traced(one).digest == traced(one).digest != traced(other).digest
    glances = []
    for make in (one, one, other):
        nets = pair(make)
        path = WeightPath(*nets)
        glances.append(record_calls(path, nets[1], _tensors(path, nets[1]), images(1)[0]).calls)
    assert glances[0] == glances[1] != glances[2]


def branches(y):
    return y if y.sum() > 0 else -y


REFUSED = {
    "a branch": (branches, "data-dependent"),
    "an item": (lambda y: y * int(y.mean().item()), "data-dependent"),
    "an index": (lambda y: y[:, y.argmax().item() % 4 :], "data-dependent: .item"),
    "a list": (lambda y: y * y.detach().mean((0, 1)).tolist()[0][0], "data-dependent: tolist"),
    "numpy": (lambda y: y * float(y.detach().numpy().mean()), "data-dependent: numpy"),
    "a mask": (lambda y: y * y[y > 0].mean(), "data-dependent: an index by a mask"),
    "places": (lambda y: y * len(y.nonzero()), "data-dependent: aten.nonzero"),
    "random numbers": (lambda y: y + torch.rand(()), "draws random numbers"),
    "dropout": (F.dropout, "draws random numbers"),
    "autocast": (
        lambda y: torch.autocast("cpu", torch.bfloat16)(torch.sin)(y),
        "changes types by autocast",
    ),
    "an error": (lambda y: y.view(7, 7, 7), "shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_tell_is_refused(name):
    body, words = REFUSED[name]
    try:
        with pytest.raises(NotCaptured, match=words):
            traced(lambda: Does(body))
    except NeedsFunctional:
        with pytest.raises(NotCaptured, match=words):
            traced(lambda: Does(body), functional=True)


def fills(y, zeros=torch.zeros_like):
    out = zeros(y)
    out[:, :2] = y[:, 2:]
    return out + y


def fills_a_constant(y):
    return fills(y, lambda y: torch.zeros(y.shape, dtype=y.dtype))


@pytest.mark.parametrize("body", [fills, fills_a_constant])
def test_writes_that_others_see_are_followed_by_functions(body):
    with pytest.raises(NeedsFunctional):
        capture(traced(lambda: Does(body)))
    capture(traced(lambda: Does(body), functional=True))
    nets, batch = pair(lambda: Does(body)), images(2)
    expected = attribute(*nets, batch, steps=2, backend="reference").scores()
    with untouched(*nets):
        result = attribute(*nets, batch, steps=2, backend="torch")
    torch.testing.assert_close(result.scores(), expected, rtol=1e-11, atol=1e-16)
    assert not without_cautions(result.notes)


def test_tables_are_constants_with_the_values_that_they_had():
    buffer = torch.ones(4, 1, 1, dtype=torch.float64)

    def twice(y):
        y = y * buffer
        buffer.mul_(2)
        return y * buffer

    made = traced(lambda: Does(twice))
    assert [
        float(value.flatten()[0]) for value in vars(made.root).values() if torch.is_tensor(value)
    ] == [1.0, 2.0]


def test_a_network_that_does_not_take_a_small_image():
    class Large(Body):
        def between(self, y):
            return F.avg_pool2d(y, 11, 1).mean((2, 3), keepdim=True) + y

    nets, batch = pair(Large), images(2, size=(24, 19))
    path = WeightPath(*nets)
    assert record_calls(path, nets[1], _tensors(path, nets[1]), batch[0][:1, :, :8, :8]) is None
    first, again = (attribute(*nets, batch, steps=2, backend="torch") for _ in range(2))
    assert torch.equal(first.scores(), again.scores()) and not without_cautions(first.notes)


def test_numbers_that_only_large_images_feel_are_noticed():
    class Tiled(Body):
        tile = 1000

        def __init__(self):
            super().__init__()
            self.tile = 1000

        def between(self, y):
            parts = y.split(self.tile, 3)
            return torch.cat([part * (1 + 0.1 * i) for i, part in enumerate(parts)], 3)

    nets, batch = pair(Tiled), images(1, size=(72, 72))
    attribute(*nets, batch, steps=1)
    for net in nets:
        net.tile = 40
    expected = attribute(*nets, batch, steps=1, backend="reference").scores()
    scores = attribute(*nets, batch, steps=1, backend="torch").scores()
    torch.testing.assert_close(scores, expected, rtol=1e-11, atol=1e-16)


def test_sizes_that_were_one_are_not_taken_for_others():
    """A 1×1 tensor matches a one-pixel image and is broadcast in larger ones."""

    class Pools(Body):
        def between(self, y):
            return self.extra(y) + y.mean((2, 3), keepdim=True)

        def __init__(self):
            super().__init__()
            self.extra = nn.Conv2d(4, 4, 3, padding=1)

    nets = pair(Pools)
    for size in ((1, 1), (1, 4), (5, 4), (1, 1)):
        batch = images(2, size=size)
        expected = attribute(*nets, batch, steps=2, backend="reference").scores()
        result = attribute(*nets, batch, steps=2, backend="torch")
        torch.testing.assert_close(result.scores(), expected, rtol=1e-11, atol=1e-16)
        assert not without_cautions(result.notes)


def test_graphs_of_one_kind_are_compared_once(monkeypatch):
    compared = []
    original = integrate.differs

    def counted(*args, **options):
        compared.append(1)
        return original(*args, **options)

    monkeypatch.setattr(integrate, "differs", counted)
    nets = pair(smooth)
    for side in (40, 41, 44):
        attribute(*nets, images(1, size=(side, 40)), steps=1, backend="torch")
    assert len(compared) == 1


IMPORTS = """
import sys, torch, faigfast
nets = [torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2)]
faigfast.attribute(*nets, (torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8)), steps=2)
print([name for name in ("sympy", "torch._dynamo", "triton") if name in sys.modules])
"""


def test_a_first_call_imports_no_compiler():
    completed = run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    assert completed.stdout == "[]\n"


def test_a_trace_keeps_no_values(monkeypatch):
    made = traced(kinked)
    held = [value for value in vars(made).values() if isinstance(value, torch.Tensor)]
    assert held == [made.output] and made.output.grad_fn is None
