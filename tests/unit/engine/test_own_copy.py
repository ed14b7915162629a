"""Networks that run point by point, on a copy of the target where that gives the same."""

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, pair, untouched
from torch import nn
from torch.utils.checkpoint import checkpoint

from faigfast import attribute
from faigfast.engine import own_copy
from faigfast.engine.own_copy import OnCopy
from faigfast.integration.gradients import gradients_at
from faigfast.integration.objective import squared_error
from faigfast.integration.path import WeightPath


class ByValue(Body):
    """A number of the activations in Python; the image and a buffer that does not move written."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        x.mul_(0.5)
        self.calls.add_(1)
        y = self.head(x)
        return self.tail(y * (1 + y.mean().item()) * self.calls)


class Normalised(Body):
    """Batch norm whose statistics move: torch has no gradient for them."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def between(self, y):
        return self.norm(y) * (1 + y.mean().item())


class Checkpointed(Body):
    """A reentrant checkpoint, whose gradient needs an input that requires one."""

    def forward(self, x):
        y = checkpoint(self.head, x, use_reentrant=True)
        return self.tail(y * (1 + y.mean().item()))


class WritesOnWeight(Body):
    def forward(self, x):
        self.head.weight.mul_(0.5)  # autograd forbids it on a leaf
        y = self.head(x)
        return self.tail(y * (1 + y.mean().item()))


class Uncopied(ByValue):
    def __deepcopy__(self, memo):
        raise TypeError("not copied")


def evaluated(make, monkeypatch):
    """Evaluate three points on a copy; count the points that `gradients_at` served."""
    baseline, target = pair(make)
    path = WeightPath(baseline.eval(), target.eval())
    served = []

    def counted(*args):
        served.append(args[1])
        return gradients_at(*args)

    monkeypatch.setattr(own_copy, "gradients_at", counted)
    x, gt = images(1)
    on_copy = OnCopy()
    for alpha in (0.1, 0.5, 0.9):
        value, gradients = on_copy(path, alpha, x, gt, squared_error)
        expected, others = gradients_at(path, alpha, x, gt, squared_error)
        assert torch.allclose(value, expected, rtol=1e-12, atol=0)
        assert gradients.keys() == others.keys()
        for key, gradient in gradients.items():
            assert torch.allclose(gradient, others[key], rtol=1e-10, atol=1e-12)
    return len(served)


@pytest.mark.parametrize("make", [ByValue, Checkpointed])
def test_a_copy_serves_every_point(make, monkeypatch):
    assert evaluated(make, monkeypatch) == 0


@pytest.mark.parametrize("make", [Normalised, WritesOnWeight, Uncopied])
def test_networks_that_need_more_are_served_by_the_reference(make, monkeypatch):
    assert evaluated(make, monkeypatch) == 3


@pytest.mark.filterwarnings("ignore:None of the inputs")  # of torch, where gradients are disabled
@pytest.mark.parametrize("make", [ByValue, Normalised, Checkpointed, WritesOnWeight, Uncopied])
def test_scores_equal_the_reference_and_the_networks_stay(make):
    baseline, target = pair(make)
    x, gt = images(2)
    with untouched(baseline, target, data=(x, gt)):
        result = attribute(baseline, target, (x, gt), steps=4)
    reference = attribute(baseline, target, (x, gt), steps=4, backend="reference")
    assert torch.allclose(result.scores(), reference.scores(), rtol=1e-9, atol=1e-12)
    assert torch.allclose(result.losses, reference.losses, rtol=1e-12, atol=0)


def test_a_reason_is_remembered_without_running_the_networks(monkeypatch):
    baseline, target = pair(ByValue)
    batch = images(1)
    first = attribute(baseline, target, batch, steps=2)

    def not_called(*args):
        raise AssertionError("the state is not needed")

    monkeypatch.setattr("faigfast.engine.graph.Graphs.state", not_called)
    again = attribute(baseline, target, batch, steps=2)
    assert again.notes == first.notes
    assert torch.equal(again.scores(), first.scores())


def test_losses_before_the_comparison_are_those_of_the_reference(monkeypatch):
    baseline, target = pair(ByValue)
    path = WeightPath(baseline.eval(), target.eval())
    x, gt = images(1)
    on_copy = OnCopy()
    monkeypatch.setattr(on_copy, "_on_copy", lambda *args: pytest.fail("not compared yet"))
    with torch.no_grad():
        value, gradients = on_copy(path, 0.0, x, gt, squared_error)
        expected, _ = gradients_at(path, 0.0, x, gt, squared_error)
    assert torch.equal(value, expected) and not gradients
