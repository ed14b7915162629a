"""Custom autograd functions: traced where their gradient is the ordinary one."""

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, pair
from torch import nn
from torch.utils.checkpoint import checkpoint

from faigfast import attribute
from faigfast.engine.own_functions import as_ordinary_code, own_gradients


class ChannelNorm(torch.autograd.Function):
    """Layer norm over channels, as several restoration networks write it."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        ctx.eps = eps
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        y = (x - mean) / (variance + eps).sqrt()
        ctx.save_for_backward(y, variance, weight)
        return weight.view(1, -1, 1, 1) * y

    @staticmethod
    def backward(ctx, gradient):
        y, variance, weight = ctx.saved_tensors
        g = gradient * weight.view(1, -1, 1, 1)
        mean, with_y = g.mean(1, keepdim=True), (g * y).mean(1, keepdim=True)
        gx = (g - y * with_y - mean) / torch.sqrt(variance + ctx.eps)
        return gx, (gradient * y).sum((0, 2, 3)), None


class InTwoParts(torch.autograd.Function):
    """The sine, with a context of its own method."""

    @staticmethod
    def forward(x):
        return x.sin(), x.sign()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, gradient, _):
        (x,) = ctx.saved_tensors
        return gradient * x.cos()


class Normalised(Body):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def between(self, y):
        return ChannelNorm.apply(y, self.weight, 1e-6)


class Sine(Body):
    def between(self, y):
        y, sign = InTwoParts.apply(y)
        return y + 0.1 * sign


class Checkpointed(Body):
    def between(self, y):
        return checkpoint(lambda y: y.tanh() * 2, y, use_reentrant=True)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("make", [Normalised, Sine, Checkpointed])
def test_functions_with_the_ordinary_gradient_are_folded(make, backend):
    nets, batch = pair(make), images(3)
    expected = attribute(*nets, batch, backend="reference", steps=3)
    result = attribute(*nets, batch, backend=backend, precision="fp64", steps=3)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-9, atol=1e-14)
    assert not [note for note in result.notes if "point by point" in note]


def clamped(low, high):
    class Clamped(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clamp(low, high)

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    return Clamped


def scaled_back(change):
    class ScaledBack(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, gradient):
            return change(gradient)

    return ScaledBack


@pytest.mark.parametrize(
    "function, names",
    [
        (clamped(-1.5, 1.5), ["clamped.<locals>.Clamped"]),
        (scaled_back(lambda g: g.clamp(-10, 10)), ["scaled_back.<locals>.ScaledBack"]),
        (scaled_back(lambda g: g * (g.abs() > 1e-3)), ["scaled_back.<locals>.ScaledBack"]),
        (scaled_back(lambda g: -g), ["scaled_back.<locals>.ScaledBack"]),
        (scaled_back(lambda g: g), []),
    ],
)
def test_gradients_that_differ_at_some_scale_are_noticed(function, names):
    x = torch.linspace(-1, 1, 24).view(2, 3, 4).requires_grad_()
    with as_ordinary_code() as calls:
        function.apply(x)
    assert own_gradients(calls) == names


class WritesOnSaved(Body):
    """Overwrites channels that its own convolution saved, as PLKSR does in eval mode."""

    def __init__(self):
        super().__init__()
        self.part = nn.Conv2d(2, 2, 3, padding=1)

    def between(self, y):
        y[:, :2] = self.part(y[:, :2])
        return y


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_a_network_may_overwrite_what_autograd_saved(backend):
    class Copies(WritesOnSaved):
        def between(self, y):
            return torch.cat([self.part(y[:, :2]), y[:, 2:]], 1)

    batch = images(2)
    expected = attribute(*pair(Copies), batch, backend="reference", steps=3)
    result = attribute(*pair(WritesOnSaved), batch, backend=backend, precision="fp64", steps=3)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-9, atol=1e-14)
    assert not [note for note in result.notes if "point by point" in note]
