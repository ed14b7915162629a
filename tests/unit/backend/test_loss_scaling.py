"""16-bit gradients stay in range from the loss to the first layer, tested in fp16 on a CPU."""

import pytest
import torch
from torch import nn

from faigfast.backend.gpu import loss_scaling as gradient_scale
from faigfast.backend.gpu import scaling_segments
from faigfast.backend.gpu.loss_scaling import (
    GradientScale,
    ScalingSegment,
    power_of_two,
    rescaled,
    unscaled,
)
from faigfast.engine import losses
from faigfast.engine.graph import Graphs
from faigfast.engine.losses import accumulate
from faigfast.engine.points import Points
from faigfast.engine.run import path_tensors, prepare, take_gradients, with_gradient_sums
from faigfast.integration.objective import squared_error
from faigfast.integration.path import WeightPath
from faigfast.ops import registry
from faigfast.ops.registry import Use, using
from faigfast.zoo.pairs import PAIRS, shipped_pair

ALPHAS, WEIGHTS = (0.2, 0.7), (0.6, 0.4)
HALF = torch.float16


class Deep(nn.Module):
    """Layers that each shrink gradients to a fifth, a residual, and one weight used twice."""

    def __init__(self, depth=20, width=4):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.tail = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        x = first = torch.tanh(self.head(x))
        for n, layer in enumerate(self.body):
            x = torch.tanh(layer(x))
            if n == len(self.body) // 2:
                x = x + 1e-3 * first
        return self.tail(torch.tanh(self.body[0](x)))


def deep_pair(depth):
    generator = torch.Generator().manual_seed(0)
    nets = []
    for _ in range(2):
        net = Deep(depth)
        with torch.no_grad():
            for name, value in net.named_parameters():
                gain = 2.0**-1.5 if name.startswith("body") else 1.0
                noise = torch.randn(value.shape, generator=generator)
                size = value[0].numel() ** -0.5 * gain if value.ndim > 1 else 0.5
                value.copy_(size * noise)
        nets.append(net.eval())
    return nets


def images(n=2):
    generator = torch.Generator().manual_seed(1)
    x, gt = (torch.rand(n, 3, 5, 6, generator=generator) for _ in range(2))
    gt[-1] *= 300  # gradients of the images differ in size
    return x, gt


def exact(nets, x, gt):
    """Σ_s w_s ∂L/∂γ of every image, in float64."""
    path = WeightPath(*nets, torch.float64)
    grads = {key: torch.zeros(len(x), *value.shape).double() for key, value in path.delta.items()}
    for alpha, weight in zip(ALPHAS, WEIGHTS, strict=True):
        for n in range(len(x)):
            point = path.at(alpha)
            path.call(
                point, x[n : n + 1].double(),
                lambda y, n=n: squared_error(y, gt[n : n + 1].double()).sum().backward(),
            )  # fmt: skip
            for key in grads:
                grads[key][n] += weight * point[key].grad
    return grads


def in_half(nets, x, gt, segments=1, scale=None):
    """Compute the gradients of `exact` by the engine with fp16 activations."""
    path = WeightPath(*nets, torch.float32)
    plan = Graphs().plan_of(path, x[:1])
    scale = scale or GradientScale()
    with using(Use(values=HALF, scale=scale)):
        given = with_gradient_sums(path_tensors(path, HALF), len(x))
        prepared = prepare(plan, given, x)
        for alpha, weight in zip(ALPHAS, WEIGHTS, strict=True):
            # Each point in two halves, so that every call chooses its exponents again.
            for share in (0.5, 0.5):
                points = Points.at([alpha, alpha], x)
                accumulate(
                    plan, prepared, points, [weight * share / 2] * 2, gt, squared_error, segments
                )
        return take_gradients(given), plan


def worst(grads, expected):
    """Worst relative L2 error over tensors and images, and all errors."""
    errors = {}
    for key, value in expected.items():
        for n, one in enumerate(value):
            errors[key, n] = float((grads[key][n].double() - one).norm() / one.norm())
    return max(errors.values()), errors


@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "at once"])
def test_every_layer_of_a_deep_network_has_its_gradient(monkeypatch, segments, together):
    if not together:
        monkeypatch.setattr(losses, "fits", lambda *_: False)
    nets, (x, gt) = deep_pair(20), images()
    expected = exact(nets, x, gt)
    # Too small for fp16, even after the scaling of the loss gradient.
    assert float(expected["body.1.weight"][0].norm()) < 2.0**-36
    grads, plan = in_half(nets, x, gt, segments)
    assert plan.scaling_segments == 3
    error, errors = worst(grads, expected)
    assert error < 2e-2, errors
    assert all(value.dtype == torch.float32 for value in grads.values())


def test_one_scale_for_all_layers_would_lose_the_first(monkeypatch):
    monkeypatch.setattr(scaling_segments, "LAYERS_PER_SEGMENT", 10**6)
    nets, (x, gt) = deep_pair(20), images()
    grads, plan = in_half(nets, x, gt)
    assert plan.scaling_segments == 1
    assert grads["body.1.weight"].abs().max() == 0
    assert worst(grads, exact(nets, x, gt))[0] > 0.9


def test_an_overflow_between_stretches_shows_in_the_sums(monkeypatch):
    nets, (x, gt) = deep_pair(12), images()
    expected = exact(nets, x, gt)
    monkeypatch.setattr(gradient_scale, "TOP", 17)  # above fp16's range
    scale = GradientScale()
    grads = in_half(nets, x, gt, scale=scale)[0]
    assert not all(value.isfinite().all() for value in grads.values())
    times = 0
    while scale.overflowed(grads):
        grads, times = in_half(nets, x, gt, scale=scale)[0], times + 1
    assert times >= 1 and scale.lowered == -gradient_scale.STEP * times
    assert worst(grads, expected)[0] < 2e-2


def test_a_change_of_scale_is_exact_and_the_same_for_all_that_passes():
    scale, before, after = GradientScale(), ScalingSegment(), ScalingSegment()
    after.exponents = torch.tensor([3, -5], dtype=torch.int32)
    values = [torch.zeros(2, 2, 4, dtype=HALF, requires_grad=True) for _ in range(3)]
    gradient_sums = torch.zeros(2, 3, requires_grad=True)
    one, other, _ = rescaled(values, scale, before, after)
    sizes = torch.tensor([2.0**-20, 3.0]).view(1, 2, 1)
    big = torch.tensor([5 * 2.0**-20, 1.0]).view(1, 2, 1)
    loss = (one * sizes.half()).sum() + (other * big.half()).sum()
    loss.backward()
    assert values[2].grad is None
    # The larger of the two maxima is below 2^8 and at least 2^7.
    largest = torch.stack([part.grad.abs().amax((0, 2)) for part in values[:2]]).amax(0)
    assert bool(((largest >= 2.0**7) & (largest < 2.0**8)).all())
    factor = power_of_two(before.exponents - after.exponents).view(1, 2, 1)
    assert torch.equal(values[0].grad.float(), (sizes.half() * factor).expand(2, 2, 4))
    assert torch.equal(values[1].grad.float(), (big.half() * factor).expand(2, 2, 4))
    unscaled(gradient_sums, before).backward(power_of_two(before.exponents).view(2, 1).expand(2, 3))
    assert torch.equal(gradient_sums.grad, torch.ones(2, 3))


@pytest.mark.parametrize("value", [0.0, float("inf"), float("nan")])
def test_what_has_no_size_is_not_scaled(value):
    scale, before, after = GradientScale(), ScalingSegment(), ScalingSegment()
    given = torch.zeros(1, 1, 2, dtype=HALF, requires_grad=True)
    (out,) = rescaled([given], scale, before, after)
    out.backward(torch.full((1, 1, 2), value, dtype=HALF))
    assert before.exponents.tolist() == [0]
    torch.testing.assert_close(given.grad, torch.full_like(given, value), equal_nan=True)


def test_without_gradients_nothing_is_cut():
    nets, (x, gt) = deep_pair(12), images()
    path = WeightPath(*nets, torch.float32)
    plan, scale = Graphs().plan_of(path, x[:1]), GradientScale()
    last = scale.last
    with using(Use(values=HALF, scale=scale)), torch.no_grad():
        prepared = prepare(plan, with_gradient_sums(path_tensors(path, HALF), 2), x)
        losses.losses_at(plan, prepared, Points.at(ALPHAS, x), gt, squared_error, 1)
    assert scale.last is last


def test_what_overflowed_on_one_image_does_not_lower_the_next(monkeypatch):
    scale = GradientScale()
    assert scale.overflowed({"w": torch.tensor(torch.inf)})
    scale.begin()
    assert scale.lowered == 0 and scale.least == -gradient_scale.STEP


@pytest.mark.parametrize("name", PAIRS)
def test_all_operations_of_the_trained_pairs_get_the_type_of_activations(name, monkeypatch):
    """The graph holds the type that a network takes from its images. It must not widen values."""
    nets = shipped_pair(name)
    types, run = {}, registry.choose

    def watched(operation, *args):
        types.setdefault(operation, set()).add(args[0].dtype)
        return run(operation, *args)

    monkeypatch.setattr(registry, "choose", watched)
    x = torch.rand(1, 3, 16, 16)
    in_half(nets, x, torch.rand(1, 3, 32, 32))
    paths = {op: dtypes for op, dtypes in types.items() if op in ("conv", "linear", "affine")}
    assert paths and all(dtypes == {HALF} for dtypes in paths.values()), types
