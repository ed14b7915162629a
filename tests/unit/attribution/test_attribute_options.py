"""Objectives, selections of parameters and precisions."""

from functools import partial

import pytest
import torch
from cases.networks import images, kinked, pair, smooth, untouched
from torch import nn

from faigfast import attribute


def test_objectives_of_ones_own():
    baseline, target = pair(kinked)
    x, gt = images()

    def squares(output, gt):
        return ((output - gt) ** 2).sum((1, 2, 3))

    named = attribute(baseline, target, (x, gt))
    own = attribute(baseline, target, (x, gt), objective=squares)
    torch.testing.assert_close(own.scores(), named.scores(), rtol=1e-12, atol=0)
    assert own.setting.objective.endswith("test_objectives_of_ones_own.<locals>.squares")
    half = attribute(baseline, target, (x, gt), objective=lambda o, g: squares(o, g) / 2)
    torch.testing.assert_close(half.scores(), named.scores() / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_an_objective_may_take_a_gradient_of_its_own(backend):
    def through_the_output(output, gt):
        (grad,) = torch.autograd.grad((output - gt).pow(4).sum(), output, create_graph=True)
        return grad.square().flatten(1).sum(1)

    def written_out(output, gt):
        return (4 * (output - gt).pow(3)).square().flatten(1).sum(1)

    nets, batch = pair(), images(2)
    result, expected = (
        attribute(*nets, batch, objective=objective, steps=3, backend=used)
        for objective, used in ((through_the_output, backend), (written_out, "reference"))
    )
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(result.losses, expected.losses, rtol=1e-5, atol=0)


def weighted(weight, output, gt):
    return weight * (output - gt).square().flatten(1).sum(1)


def test_an_objective_that_is_a_module_keeps_its_own_gradients():
    class Weighted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, output, gt):
            return weighted(self.weight, output, gt)

    objective, nets, batch = Weighted(), pair(), images(2)
    result = attribute(*nets, batch, objective=objective, steps=2)
    assert objective.weight.grad is None and objective.weight.requires_grad
    expected = attribute(*nets, batch, steps=2)
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-4, atol=1e-7)
    around = (lambda output, gt: objective(output, gt), partial(weighted, objective.weight))
    for function in around:
        assert attribute(*nets, batch, objective=function, steps=2)
        assert objective.weight.grad is None and objective.weight.requires_grad


@pytest.mark.parametrize(
    "objective, words",
    [
        (nn.MSELoss, "objective is the <class"),
        (lambda output: output, r"objective is a function, but not of \(output, gt\)"),
        (lambda output, gt: next(iter(())), "objective raises StopIteration"),
        (lambda output, gt: torch.empty(1, device="meta"), r"objective gives .* on meta"),
        (lambda output, gt: torch.ones(1).to_sparse(), r"objective gives torch\.sparse_coo"),
    ],
)
def test_objectives_that_are_refused(objective, words):
    with pytest.raises((TypeError, ValueError), match=words):
        attribute(*pair(), images(1), objective=objective, steps=2)


@pytest.mark.parametrize("tol", [10**400, 0, -1.0])
def test_tolerances_that_are_refused(tol):
    with pytest.raises(ValueError, match="tol is"):
        attribute(*pair(), images(1), tol=tol)


def test_an_objective_may_write_on_what_it_is_given():
    baseline, target = pair(kinked)
    x, gt = images()

    def careless(output, gt):
        return gt.sub_(output.detach()).mul(output).flatten(1).sum(1)

    with untouched(baseline, target, data=(x, gt)):
        attribute(baseline, target, (x, gt), objective=careless)


def test_an_objective_that_ignores_the_weights_is_refused():
    baseline, target = pair(kinked)
    with pytest.raises(ValueError, match="does not depend on any weight"):
        attribute(baseline, target, images(), objective=lambda o, g: g.flatten(1).sum(1))


# --- parameters


def expected_layers(parameters):
    baseline, target = pair(lambda: nn.Sequential(kinked(), kinked()))
    batch = images()
    everything = attribute(baseline, target, batch)
    chosen = attribute(baseline, target, batch, parameters=parameters)
    assert chosen.index == everything.index
    kept = []
    for layer, low, high in zip(
        everything.index.layers, everything.index.offsets, everything.index.offsets[1:],
        strict=False,
    ):  # fmt: skip
        part = chosen.scores()[:, low:high]
        if part.any():
            assert torch.equal(part, everything.scores()[:, low:high])
            assert chosen.scored[low:high].all()
            kept.append(layer)
        else:
            assert not chosen.scored[low:high].any()
    assert torch.equal(chosen.losses, everything.losses)
    assert torch.equal(chosen.completeness, everything.completeness), "all others still move"
    ranked = chosen.top(None, 1 / 48).indices
    assert chosen.scored[ranked].all()
    return kept


@pytest.mark.parametrize(
    "parameters, kept",
    [
        ("0.0.weight", ["0.0.weight"]),
        ("1.*", ["1.0.weight", "1.2.weight"]),
        ("*.2.weight", ["0.2.weight", "1.2.weight"]),
        (["0.0.weight", "1.2.*"], ["0.0.weight", "1.2.weight"]),
        (("*",), ["0.0.weight", "0.2.weight", "1.0.weight", "1.2.weight"]),
        (iter(["0.2.weight"]), ["0.2.weight"]),
        (lambda name, tensor: name.startswith("1"), ["1.0.weight", "1.2.weight"]),
        (lambda name, tensor: tensor.shape[0] == 3, ["0.2.weight", "1.2.weight"]),
    ],
)
def test_parameters_select_without_renumbering(parameters, kept):
    assert expected_layers(parameters) == kept


def test_filters_that_are_not_scored_are_never_ranked():
    baseline, target = pair(kinked)
    x, gt = images()
    result = attribute(
        baseline, target, {"lq": {"a": x, "b": 3 * x}, "gt": gt}, parameters="2.weight"
    )
    # Contrasts below 0 would rank behind the zeros of filters that were left out.
    assert result.contrast("a").min() < 0
    assert result.top("a", 0.5).indices.min() >= 12
    assert set(result.top("a", 0.5).indices.tolist()) == set(range(12, 24))
    with pytest.raises(ValueError, match=r"fraction 0\.75 asks for 18 filters; 12 were scored"):
        result.top("a", 0.75)


# --- precision


@pytest.mark.parametrize(
    "precision, bound", [("fp64", 1e-13), ("fp32", 1e-4), ("bf16", 0.1), ("fp16", 0.02)]
)
@pytest.mark.parametrize("own", [torch.float64, torch.float32])
def test_precisions(precision, bound, own):
    baseline, target = pair(smooth, torch.float32)
    batch = images(dtype=torch.float32)
    exact = attribute(
        *(net.double() for net in pair(smooth, torch.float32)), tuple(t.double() for t in batch)
    )
    baseline, target = baseline.to(own), target.to(own)
    batch = tuple(t.to(own) for t in batch)
    with untouched(baseline, target, data=batch):
        result = attribute(baseline, target, batch, precision=precision)
    assert result.precision == precision
    distance = (result.scores() - exact.scores()).abs().sum() / exact.scores().sum()
    assert distance < bound
    assert result.scores().dtype == (torch.float64 if precision == "fp64" else torch.float32)
    torch.testing.assert_close(result.losses, exact.losses, rtol=bound, atol=0)


@pytest.mark.parametrize("dtype, name", [(torch.bfloat16, "bf16"), (torch.float16, "fp16")])
def test_networks_of_16_bit(dtype, name):
    baseline, target = pair(smooth, dtype)
    batch = images(dtype=dtype)
    result = attribute(baseline, target, batch)
    assert result.precision == name and result.scores().dtype == torch.float32
    wide = attribute(baseline, target, batch, precision="fp64")
    assert ((result.scores() - wide.scores()).abs().sum() / wide.scores().sum()) < 0.1
    assert wide.completeness.max() < 0.1
