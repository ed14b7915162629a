"""Things that a graph of operations does not show: custom gradients, hooks and objectives."""

import gc
import weakref

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, pair, smooth
from cases.verification import fall_back, wrong
from torch import nn
from torch.utils.checkpoint import checkpoint

from faigfast import attribute
from faigfast.integration.cautions import without_cautions

aten = torch.ops.aten

pytestmark = pytest.mark.usefixtures("wide_chunks")


class Clamps(torch.autograd.Function):
    """A clamp to [0, 1] whose gradient is always the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, gy):
        return gy


class ClampsGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gy):
        return gy.clamp(-1, 1)


class StraightThrough(Body):
    def forward(self, x):
        return Clamps.apply(self.tail(self.head(x)) * 0.1 + 0.5)


class Clipped(Body):
    def between(self, y):
        return ClampsGradient.apply(y)


class InCheckpoint(Body):
    def between(self, y):
        return checkpoint(ClampsGradient.apply, y, use_reentrant=False)


class TensorHook(Body):
    def between(self, y):
        y = y * 1
        if y.requires_grad:
            y.register_hook(lambda gy: gy.clamp(-1, 1))
        return y


class NodeHook(Body):
    def between(self, y):
        y = y * 1
        if y.grad_fn is not None:
            y.grad_fn.register_prehook(lambda grads: (grads[0].clamp(-1, 1),))
        return y


class ModuleHook(Body):
    def __init__(self):
        super().__init__()
        self.middle = nn.Conv2d(4, 4, 1)
        self.middle.register_full_backward_hook(
            lambda module, gx, gy: tuple(g.clamp(-1, 1) for g in gx)
        )

    def between(self, y):
        return self.middle(y)


class ModulePreHook(Body):
    def __init__(self):
        super().__init__()
        self.middle = nn.Conv2d(4, 4, 1)
        self.middle.register_full_backward_pre_hook(lambda module, gy: (gy[0].clamp(-1, 1),))

    def between(self, y):
        return self.middle(y)


OWN = {
    StraightThrough: "Clamps may have a gradient of its own",
    Clipped: "ClampsGradient may have a gradient of its own",
    InCheckpoint: "ClampsGradient may have a gradient of its own",
    TensorHook: "a hook may change its gradients",
    NodeHook: "a hook may change its gradients",
    ModuleHook: "a hook may change its gradients",
    ModulePreHook: "a hook may change its gradients",
}


@pytest.mark.parametrize("make", OWN)
def test_gradients_that_only_later_images_show_are_not_lost(make):
    """The clamp changes no value of the first image, which is the compared one."""
    nets, (x, gt) = pair(make), images(3)
    x[0] *= 0.2
    x[1:] *= 12
    with torch.no_grad():
        gt[0] = nets[1](x[:1])[0] + 1e-3
    fall_back(nets, OWN[make], (x, gt))


def test_functions_of_torch_itself_are_captured():
    class Saves(Body):
        def between(self, y):
            return checkpoint(torch.sin, y, use_reentrant=False)

    before = vars(torch.autograd.Function)["apply"]
    result = attribute(*pair(Saves), images(), steps=3)
    assert not [note for note in result.notes if "point by point" in note]
    assert vars(torch.autograd.Function)["apply"] is before


class TwoOutputs(Body):
    def forward(self, x):
        return {"y": super().forward(x), "x": x + 0}

    def between(self, y):
        return y


def _reads(output, gt):
    return (output["y"] - output["x"] * gt).square().flatten(1).sum(1)


def _writes(output, gt):
    return (output["y"] - output["x"].mul_(2) * gt).square().flatten(1).sum(1)


def test_an_objective_may_write_on_what_points_share():
    nets, batch = pair(TwoOutputs), images(3)
    for objective in (_writes, _reads, _writes):
        options = {"objective": objective, "steps": 3}
        expected = attribute(*nets, batch, backend="reference", **options)
        result = attribute(*nets, batch, **options)
        torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)
        assert not [note for note in result.notes if "point by point" in note]


def test_what_was_checked_for_one_objective_is_checked_for_another(monkeypatch):
    """A wrong gradient behind an output that the first objective does not read."""
    wrong(monkeypatch, aten.conv2d.default, lambda y: 2 * y - y.detach() if y.shape[3] == 5 else y)

    class Aside(Body):
        def __init__(self):
            super().__init__()
            self.aside = nn.Conv2d(3, 5, 1)

        def forward(self, x):
            return self.tail(torch.tanh(self.head(x))), self.aside(x)

    nets, batch = pair(Aside), images(3)
    first = lambda o, gt: (o[0] - gt).square().flatten(1).sum(1)  # noqa: E731
    both = lambda o, gt: first(o, gt) + o[1].flatten(1).sum(1)  # noqa: E731
    options = {"steps": 3, "backend": "torch"}
    for _ in range(2):
        result = attribute(*nets, batch, objective=first, **options)
        (note,) = without_cautions(result.notes)
        assert note.startswith("gradient: exactly 0 in every image for 'aside.weight'")
        result = attribute(*nets, batch, objective=both, **options)
        assert "gradient of" in result.notes[0]


def test_an_objective_is_not_kept_alive():
    nets, batch = pair(smooth), images(1)
    objective = lambda o, gt: (o - gt).square().flatten(1).sum(1)  # noqa: E731
    gone = weakref.ref(objective)
    attribute(*nets, batch, steps=1, objective=objective)
    del objective
    gc.collect()
    assert gone() is None


def test_an_objective_without_weak_references():
    class Slotted:
        __slots__ = ()

        def __call__(self, output, gt):
            return (output - gt).square().flatten(1).sum(1)

    nets, batch = pair(smooth), images(2)
    expected = attribute(*nets, batch, steps=2)
    for _ in range(2):
        result = attribute(*nets, batch, steps=2, objective=Slotted())
        assert torch.equal(result.scores(), expected.scores())
