import copy

import pytest
import torch
from cases.networks import kinked, pair, randomise, smooth
from torch import nn

from faigfast.integration.path import WeightPath


class Holder(nn.Module):
    """Buffers of several kinds around a convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("flags", torch.tensor([True]))
        self.register_buffer("cache", torch.full((1,), 2.0), persistent=False)

    def forward(self, x):
        return self.conv(x) * self.scale + self.offset + self.count + self.cache


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_ends_are_the_models_to_the_bit(dtype):
    baseline, target = pair(kinked, dtype)
    with torch.no_grad():  # θ̄ + 1·(θ − θ̄) loses the small one
        baseline[0].weight[0, 0, 0, 0], target[0].weight[0, 0, 0, 0] = 1e4, 1e-4
    path = WeightPath(baseline, target)
    for alpha, model in ((0.0, baseline), (1.0, target)):
        point = path.at(alpha)
        assert point.keys() == model.state_dict().keys()
        for key, value in model.state_dict().items():
            assert torch.equal(point[key].detach(), value), key


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.7, 1.0])
def test_points_between_and_their_difference(alpha):
    baseline, target = pair()
    path = WeightPath(baseline, target)
    first, last = baseline.state_dict(), target.state_dict()
    for key, value in path.at(alpha).items():
        expected = first[key] + alpha * (last[key] - first[key])
        torch.testing.assert_close(value.detach(), expected, rtol=1e-15, atol=1e-15)
        assert torch.equal(path.delta[key], last[key] - first[key])
        assert value.requires_grad and value.is_leaf


def test_points_are_independent_of_each_other_and_of_the_models():
    baseline, target = pair()
    path = WeightPath(baseline, target)
    point = path.at(0.0)
    with torch.no_grad():
        for value in point.values():
            value.fill_(7)
    assert torch.equal(path.at(0.0)["0.weight"].detach(), baseline[0].weight)
    before = path.at(0.5)["0.weight"].detach().clone()
    with torch.no_grad():
        baseline[0].weight.zero_()
        target[0].weight.zero_()
    assert torch.equal(path.at(0.5)["0.weight"].detach(), before)


def test_a_call_gives_what_the_module_with_these_weights_gives():
    baseline, target = pair(smooth)
    path = WeightPath(baseline, target)
    x = torch.rand(2, 3, 6, 5, dtype=torch.float64)
    assert torch.equal(path.call(path.at(0.0), x), baseline(x))
    assert torch.equal(path.call(path.at(1.0), x), target(x))
    middle = copy.deepcopy(target)
    middle.load_state_dict({k: v.detach() for k, v in path.at(0.3).items()})
    assert torch.equal(path.call(path.at(0.3), x), middle(x))


def test_parameters_and_floating_buffers_move_and_others_are_the_targets():
    baseline, target = pair(Holder)
    with torch.no_grad():
        target.count.fill_(5)
        target.flags.fill_(False)
    path = WeightPath(baseline, target)
    assert set(path.delta) == {"conv.weight", "conv.bias", "scale", "offset"}
    assert "count" not in path.at(0.5) and "flags" not in path.at(0.5)
    x = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    expected = baseline.conv(x) * baseline.scale + baseline.offset + 5 + 2
    torch.testing.assert_close(path.call(path.at(0.0), x), expected, rtol=1e-14, atol=0)


def test_tensors_that_are_equal_stand_still():
    baseline, target = pair()
    with torch.no_grad():
        target[0].weight.copy_(baseline[0].weight)
    path = WeightPath(baseline, target)
    assert "0.weight" not in path.delta
    assert not path.at(0.5)["0.weight"].requires_grad
    assert torch.equal(path.at(0.5)["0.weight"], baseline[0].weight)


def test_a_line_in_another_dtype_leaves_integers_alone():
    baseline, target = pair(Holder, torch.float32)
    path = WeightPath(baseline, target, torch.float64)
    assert {value.dtype for value in path.at(0.3).values()} == {torch.float64}
    assert path.fixed["count"].dtype == torch.int64
    assert path.fixed["cache"].dtype == torch.float64
    out = path.call(path.at(1.0), torch.rand(1, 1, 2, 2, dtype=torch.float64))
    assert out.dtype == torch.float64


@pytest.mark.parametrize("differ", [False, True])
def test_integer_parameters_are_not_interpolated(differ):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.order = nn.Parameter(torch.tensor([1, 0]), requires_grad=False)

        def forward(self, x):
            return self.conv(x)[:, self.order]

    baseline, target = (randomise(Table(), seed) for seed in (1, 2))
    if differ:
        baseline.order.data = torch.tensor([0, 1])
    path = WeightPath(baseline, target, torch.float64)
    x = torch.rand(1, 2, 3, 3, dtype=torch.float64)
    expected = copy.deepcopy(target).double()
    torch.testing.assert_close(path.call(path.at(1.0), x), expected(x))
    assert "order" not in path.delta


class Tied(nn.Module):
    """One tensor under two names, used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 2, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def test_a_shared_tensor_stands_once_under_its_first_name():
    baseline, target = pair(Tied)
    path = WeightPath(baseline, target)
    assert list(path.delta) == ["first.weight", "first.bias", "second.bias"]
    x = torch.rand(1, 2, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(path.call(path.at(1.0), x), target(x), rtol=1e-14, atol=0)


def test_a_tensor_that_only_the_target_shares_is_refused():
    baseline, target = pair(Tied)
    baseline.second.weight = nn.Parameter(torch.ones_like(baseline.first.weight))
    with pytest.raises(ValueError, match=r"'second\.weight' and 'first\.weight'.*one tensor"):
        WeightPath(baseline, target)


@pytest.mark.parametrize("make", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_of_batch_norms_statistics_are_those_of_finite_differences(make, affine):
    rank = {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2, nn.BatchNorm3d: 3}[make]
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    baseline, target = pair(lambda: nn.Sequential(conv(2, 3, 1), make(3, affine=affine), nn.Tanh()))
    x = torch.rand(1, 2, *(3,) * rank, dtype=torch.float64)
    path = WeightPath(baseline, target)
    assert {"1.running_mean", "1.running_var"} <= set(path.delta)
    assert "1.num_batches_tracked" not in path.delta
    point = path.at(0.4)
    gradients = torch.autograd.grad(
        path.call(point, x).square().sum(), [point[k] for k in path.delta]
    )
    plain = copy.deepcopy(target)
    for key, gradient in zip(path.delta, gradients, strict=True):
        for i in range(gradient.numel()):
            values = []
            for step in (1e-6, -1e-6):
                state = {k: v.detach().clone() for k, v in point.items()}
                state[key].view(-1)[i] += step
                plain.load_state_dict(state, strict=False)
                values.append(plain(x).square().sum().item())
            slope = (values[0] - values[1]) / 2e-6
            assert gradient.view(-1)[i].item() == pytest.approx(slope, rel=1e-6, abs=1e-8), key


@pytest.mark.parametrize("through", ["module", "functional", "keywords", "torch"])
def test_batch_norm_in_every_spelling(through):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 1)
            self.norm = nn.BatchNorm2d(2, eps=0.1)

        def forward(self, x):
            y, n = self.conv(x), self.norm
            if through == "module":
                return n(y)
            if through == "functional":
                return nn.functional.batch_norm(
                    y, n.running_mean, n.running_var, n.weight, n.bias, False, 0.1, 0.1
                )
            if through == "keywords":
                return nn.functional.batch_norm(
                    running_var=n.running_var, running_mean=n.running_mean, input=y, eps=0.1
                )
            return torch.batch_norm(
                y, n.weight, n.bias, n.running_mean, n.running_var, False, 0.1, 0.1, True
            )

    baseline, target = pair(Net)
    x = torch.rand(1, 2, 3, 3, dtype=torch.float64)
    path = WeightPath(baseline, target)
    point = path.at(1.0)
    out = path.call(point, x)
    torch.testing.assert_close(out, target(x), rtol=1e-13, atol=1e-14)
    (gradient,) = torch.autograd.grad(out.sum(), [point["norm.running_mean"]])
    assert gradient.abs().min() > 0


def test_the_input_is_not_written_on():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.conv(x.mul_(2))

    baseline, target = pair(Writes)
    path = WeightPath(baseline, target)
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    assert torch.equal(path.call(path.at(1.0), x), path.call(path.at(1.0), x))
    assert torch.equal(x, torch.ones_like(x))


def test_a_buffer_the_network_writes_on_starts_afresh_at_every_call():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)
            self.register_buffer("calls", torch.tensor(0))
            self.register_buffer("level", torch.tensor([1.0]))

        def forward(self, x):
            self.calls += 1
            self.level.mul_(2)
            return self.conv(x) * self.level * self.calls

    baseline, target = pair(Counts)
    for net in (baseline, target):
        net.level.fill_(1)
    path = WeightPath(baseline, target)
    x = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    first, second = (path.call(path.at(0.5), x) for _ in range(2))
    assert torch.equal(first, second)
    assert (target.calls.item(), target.level.item()) == (0, 1)


def test_channels_last_weights_and_empty_tensors():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)
            self.none = nn.Parameter(torch.empty(0))
            self.nothing = nn.Parameter(torch.empty(0, 4))

        def forward(self, x):
            return self.conv(x)

    baseline, target = (net.to(memory_format=torch.channels_last) for net in pair(Net))
    path = WeightPath(baseline, target)
    assert set(path.delta) == {"conv.weight", "conv.bias"}
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    assert torch.equal(path.call(path.at(1.0), x), target(x))
