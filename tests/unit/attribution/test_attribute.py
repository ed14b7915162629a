import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from cases.networks import authors_scores, images, kinked, pair, same, smooth
from torch import nn

import faigfast
from faigfast import attribute

RULES = [
    ("left", 7),
    ("right", 7),
    ("midpoint", 7),
    ("trapezoid", 7),
    ("gauss-legendre", 7),
    ("gauss-kronrod", 7),
]


# --- closed forms


def test_scores_of_a_1x1_convolution_by_hand():
    baseline, target = (nn.Conv2d(2, 1, 1).double() for _ in range(2))
    with torch.no_grad():
        for net, weights, bias in ((baseline, (1.0, -2.0), 0.5), (target, (3.0, 1.0), -1.0)):
            net.weight.copy_(torch.tensor(weights).view(1, 2, 1, 1))
            net.bias.fill_(bias)
    x = torch.tensor([[[[1.0, 2.0]], [[0.0, -1.0]]]], dtype=torch.float64)
    gt = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    # In the middle w = (2, -1/2), b = -1/4: the output is (7/4, 17/4), the residual (3/4, 17/4).
    # dL/dw_1 = 2(3/4 · 1 + 17/4 · 2) = 37/2; dL/dw_2 = 2(17/4 · -1) = -17/2; dL/db = 10.
    # Δ = (2, 3), -3/2: I = 37, -51/2, -15.
    result = attribute(baseline, target, (x, gt), rule="midpoint", steps=1)
    assert result.scores().tolist() == [[37.0, 25.5]]
    # Baseline: residual (1/2, 9/2), loss 41/2. Target: (2 - 1, 4), loss 17. Σ I = -7/2.
    assert result.losses.tolist() == [[[20.5, 17.0]]]
    assert result.completeness.tolist() == [[0.0]]
    assert result.evaluations == 1 and result.degradations == ("lq",)
    assert result.contrast("lq").tolist() == [37.0, 25.5]
    assert result.top("lq", 0.5).indices.tolist() == [0]


def test_scores_of_a_2x2_convolution_sum_absolute_values_within_a_kernel():
    baseline, target = (nn.Conv2d(1, 1, 2, bias=False).double() for _ in range(2))
    with torch.no_grad():
        baseline.weight.zero_()
        target.weight.copy_(torch.tensor([[[[1.0, -2.0], [0.0, 1.0]]]]))
    x = torch.tensor([[[[1.0, 1.0], [3.0, 2.0]]]], dtype=torch.float64)
    gt = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    # In the middle the output is (1 - 2 + 2) / 2 = 1/2, the residual -1/2 and dL/dw = -x:
    # I = (-1, 2, 0, -2).
    result = attribute(baseline, target, (x, gt), rule="midpoint", steps=1)
    assert result.scores().tolist() == [[5.0]]
    assert result.losses.tolist() == [[[1.0, 0.0]]]
    assert result.completeness.item() == 0


@pytest.mark.parametrize("rule, steps", [("midpoint", 1), ("midpoint", 4), ("trapezoid", 2),
                                         ("gauss-legendre", 1), ("gauss-kronrod", 3)])  # fmt: skip
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 3, 3, padding=1),
        lambda: nn.Conv2d(3, 3, 1, bias=False),
        lambda: nn.ConvTranspose2d(3, 3, 3, padding=1),
        lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3, padding_mode="reflect"),
    ],
)
def test_a_net_linear_in_its_weights_is_exact_with_any_symmetric_rule(make, rule, steps):
    baseline, target = pair(make)
    x, gt = images(3)
    result = attribute(baseline, target, (x, gt), rule=rule, steps=steps)
    # The gradient is linear in α, so its mean over the path is the mean at the two ends.
    for n in range(3):
        grads = []
        for net in (baseline, target):
            net.zero_grad()
            (net(x[n : n + 1]) - gt[n : n + 1]).square().sum().backward()
            grads.append(net.weight.grad)
            net.weight.grad = None
        weight_scores = (target.weight - baseline.weight) * (grads[0] + grads[1]) / 2
        expected = weight_scores.abs().flatten(2).sum(2).flatten()
        torch.testing.assert_close(result.scores()[n], expected.detach(), rtol=1e-13, atol=1e-13)
    assert result.completeness.max() < 1e-13
    if rule == "gauss-kronrod":
        assert result.error.max() < 1e-13
    else:
        assert result.error.isnan().all()


def test_absolute_error_of_a_net_without_sign_changes_is_exact():
    baseline, target = pair(lambda: nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        for net, weight, bias in ((baseline, 1.0, 2.0), (target, 3.0, 4.0)):
            net.weight.fill_(weight)
            net.bias.fill_(bias)
    x = torch.tensor([[[[1.0, 2.0, 5.0]]]], dtype=torch.float64)
    result = attribute(
        baseline, target, (x, torch.zeros_like(x)), objective="absolute_error", steps=1
    )
    assert result.scores().tolist() == [[16.0]]  # Δw Σx
    assert result.losses.tolist() == [[[14.0, 36.0]]]
    assert result.completeness.item() == 0
    assert result.setting.objective == "absolute_error"


# --- properties


@pytest.mark.parametrize("rule", ["midpoint", "trapezoid", "gauss-legendre", "gauss-kronrod"])
def test_smooth_networks_converge(rule):
    baseline, target = pair(smooth)
    batch = images()
    exact = attribute(baseline, target, batch, rule="gauss-legendre", steps=40)
    assert exact.completeness.max() < 1e-12
    errors = []
    for steps in (3, 9, 27):
        result = attribute(baseline, target, batch, rule=rule, steps=steps)
        errors.append(
            ((result.scores() - exact.scores()).abs().sum() / exact.scores().sum()).item()
        )
        assert result.evaluations == steps
    if rule.startswith("gauss"):
        assert errors[1] < errors[0] / 100 and errors[2] < 1e-12
    else:  # second order: a ninth for three times as many
        assert errors[1] < errors[0] / 5 and errors[2] == pytest.approx(errors[1] / 9, rel=0.4)


def test_completeness_of_the_one_sided_rules_is_of_first_order():
    baseline, target = pair(smooth)
    batch = images()
    few, many = (
        attribute(baseline, target, batch, rule="left", steps=s).completeness for s in (20, 200)
    )
    torch.testing.assert_close(many, few / 10, rtol=0.1, atol=0)


@pytest.mark.parametrize("make, slack", [(smooth, 1), (kinked, 5)])
def test_gauss_kronrods_error_is_of_the_true_ones_size(make, slack):
    baseline, target = pair(make)
    batch = images(3)
    exact = attribute(baseline, target, batch, rule="midpoint", steps=300).scores()
    result = attribute(baseline, target, batch, rule="gauss-kronrod", steps=7)
    true = (result.scores() - exact).abs().sum(1) / exact.sum(1)
    assert result.error.shape == (1, 3)
    assert (true <= slack * result.error[0]).all()
    assert (result.error > 0).all() and result.error.max() < 0.1


@pytest.mark.parametrize("make", [smooth, kinked])
def test_exchanging_the_models_exchanges_left_and_right(make):
    baseline, target = pair(make)
    batch = images()
    for there, back in (("left", "right"), ("right", "left")):
        one = attribute(baseline, target, batch, rule=there, steps=6)
        two = attribute(target, baseline, batch, rule=back, steps=6)
        torch.testing.assert_close(one.scores(), two.scores(), rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(one.losses, two.losses.flip(2), rtol=1e-14, atol=0)
    for rule in ("midpoint", "trapezoid", "gauss-legendre", "gauss-kronrod"):
        one = attribute(baseline, target, batch, rule=rule, steps=5)
        two = attribute(target, baseline, batch, rule=rule, steps=5)
        torch.testing.assert_close(one.scores(), two.scores(), rtol=1e-12, atol=1e-14)
    left, right = (attribute(baseline, target, batch, rule=r, steps=6) for r in ("left", "right"))
    assert (left.scores() - right.scores()).abs().max() > 1e-3


def test_trapezoid_is_the_mean_of_left_and_right_before_the_absolute_value():
    baseline, target = pair(lambda: nn.Conv2d(3, 3, 1))
    batch = images()
    trapezoid = attribute(baseline, target, batch, rule="trapezoid", steps=5)
    middle = attribute(baseline, target, batch, steps=1)
    torch.testing.assert_close(trapezoid.scores(), middle.scores(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("rule", ["left", "right"])
def test_emulation_predicts_the_authors_scores(rule):
    baseline, target = pair(smooth)
    batch = images()
    many = attribute(baseline, target, batch, rule=rule, steps=100)
    few = attribute(baseline, target, batch, rule=rule, steps=100, emulate=True)
    exact = attribute(baseline, target, batch, rule="gauss-legendre", steps=12)
    assert few.evaluations == 17 and few.setting.steps == 100 and few.setting.emulate
    distance = (many.scores() - few.scores()).abs().sum()
    assert distance < (many.scores() - exact.scores()).abs().sum() / 50
    torch.testing.assert_close(few.completeness, many.completeness, rtol=2e-2, atol=0)


@pytest.mark.parametrize("rule, steps", RULES)
def test_the_order_of_images_does_not_matter(rule, steps):
    baseline, target = pair(kinked)
    x, gt = images(4)
    result = attribute(baseline, target, (x, gt), rule=rule, steps=steps)
    order = [2, 0, 3, 1]
    other = attribute(baseline, target, (x[order], gt[order]), rule=rule, steps=steps)
    assert torch.equal(other.scores(), result.scores()[order])
    assert torch.equal(other.losses, result.losses[:, order])
    assert torch.equal(other.completeness, result.completeness[:, order])
    for n in range(4):
        alone = attribute(baseline, target, (x[n : n + 1], gt[n : n + 1]), rule=rule, steps=steps)
        assert torch.equal(alone.scores()[0], result.scores()[n])


def test_the_absolute_value_is_taken_for_each_image():
    baseline, target = pair(smooth)
    x, gt = images(6)
    x[3:] *= -1
    result = attribute(baseline, target, (x, gt), steps=20)
    mean_grad = 0
    nodes = (np.arange(20) + 0.5) / 20
    net = smooth().double()
    for alpha in nodes:
        net.load_state_dict(
            {
                k: v + float(alpha) * (target.state_dict()[k] - v)
                for k, v in baseline.state_dict().items()
            }
        )
        net.zero_grad()
        (net(x) - gt).square().sum().backward()
        mean_grad = mean_grad + net[0].weight.grad / 20
    inside = ((target[0].weight - baseline[0].weight) * mean_grad).abs().flatten(2).sum(2).flatten()
    outside = result.scores()[:, : len(inside)].sum(0)
    assert (outside >= inside - 1e-12).all()
    assert (outside - inside).sum() > 0.1 * outside.sum()


@pytest.mark.parametrize("rule, steps", RULES)
def test_every_rule_is_its_sum_over_the_nodes(rule, steps):
    """The engine uses nodes and weights as in §2."""
    baseline, target = pair(smooth)
    x, gt = images(1)
    nodes = faigfast.integration.quadrature.quadrature(rule, steps)
    first, last = baseline.state_dict(), target.state_dict()
    grads = {}
    net = smooth().double()
    for alpha, weight in zip(nodes.nodes.tolist(), nodes.weights.tolist(), strict=True):
        net.load_state_dict({k: first[k] + alpha * (last[k] - first[k]) for k in first})
        net.zero_grad()
        (net(x) - gt).square().sum().backward()
        for key, value in net.named_parameters():
            grads[key] = grads.get(key, 0) + weight * value.grad
    expected = torch.cat(
        [
            ((last[k] - first[k]) * grads[k]).abs().flatten(2).sum(2).flatten()
            for k in ("0.weight", "2.weight")
        ]
    )
    result = attribute(baseline, target, (x, gt), rule=rule, steps=steps)
    torch.testing.assert_close(result.scores()[0], expected, rtol=1e-12, atol=1e-15)
    total = sum(((last[k] - first[k]) * grads[k]).sum().item() for k in first)
    change = (result.losses[0, 0, 1] - result.losses[0, 0, 0]).item()
    assert result.completeness.item() == pytest.approx(
        abs(total - change) / abs(change), rel=1e-6, abs=1e-13
    )


def test_losses_are_those_of_the_two_models():
    baseline, target = pair(kinked)
    x, gt = images(3)
    result = attribute(baseline, target, (x, gt), steps=1)
    for n, (net, model) in itertools.product(range(3), enumerate((baseline, target))):
        expected = (model(x[n : n + 1]) - gt[n : n + 1]).square().sum()
        assert result.losses[0, n, net].item() == pytest.approx(expected.item(), rel=1e-13)
    assert result.losses.shape == (1, 3, 2) and result.completeness.shape == (1, 3)
    assert result.losses.dtype == result.completeness.dtype == torch.float64


def test_the_defaults():
    baseline, target = pair(kinked, torch.float32)
    batch = images(dtype=torch.float32)
    result = attribute(baseline, target, batch)
    explicit = attribute(
        baseline, target, batch, rule="averaged", steps=15, objective="squared_error",
        backend="auto", precision="auto", emulate=False, tol=None, memory=None,
    )  # fmt: skip
    assert result.setting.steps is None and explicit.setting.steps == 15
    asked = dataclasses.replace(result.setting, steps=15)
    assert same(dataclasses.replace(result, setting=asked), explicit)
    assert (result.setting.rule, result.evaluations, result.precision) == ("averaged", 15, "fp32")
    assert result.backend in faigfast.backends()
    assert not result.scores().requires_grad and result.scores().device.type == "cpu"
    reference = attribute(baseline, target, batch, backend="reference")
    torch.testing.assert_close(result.scores(), reference.scores(), rtol=1e-4, atol=1e-6)
    assert reference.backend == "reference"


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("rule, small, large", [("midpoint", 20, 15), ("graded", 16, 14)])
def test_the_default_points_of_an_image_follow_from_its_size(rule, small, large, backend, tmp_path):
    nets = [nn.Conv2d(1, 2, 3, padding=1, bias=False) for _ in range(2)]
    for number, net in enumerate(nets):
        nn.init.constant_(net.weight, number)
    sizes = [(64, 64), (63, 65), (2, 2048)]
    batches = [(torch.rand(1, 1, *size), torch.rand(1, 2, *size)) for size in sizes]
    together = attribute(*nets, batches, rule=rule, backend=backend)
    assert together.points.tolist() == [[large, small, large]] and together.evaluations == small
    parts = []
    for batch, points in zip(batches, (large, small, large), strict=True):
        parts.append(attribute(*nets, batch, rule=rule, backend=backend))
        asked = attribute(*nets, batch, rule=rule, steps=points, backend=backend)
        assert torch.equal(parts[-1].scores(), asked.scores())
    assert same(parts[0].merge(parts[1:]), together)
    together.save(tmp_path / "scores.safetensors")
    assert same(faigfast.Attribution.load(tmp_path / "scores.safetensors"), together)
    degradations = {"lq": {"a": batches[0][0], "b": batches[1][0]}}
    truths = {"gt": {"a": batches[0][1], "b": batches[1][1]}}
    both = attribute(*nets, degradations | truths, rule=rule, backend=backend)
    assert both.points.tolist() == [[large], [small]]


@pytest.mark.parametrize("rule", ["left", "trapezoid", "gauss-legendre", "gauss-kronrod"])
def test_other_rules_take_as_many_points_of_every_image(rule):
    nets = [nn.Conv2d(1, 1, 1) for _ in range(2)]
    batches = [(torch.rand(1, 1, *size),) * 2 for size in ((64, 64), (2, 2))]
    result = attribute(*nets, batches, rule=rule)
    assert result.points.unique().tolist() == [result.setting.steps]


def test_the_default_points_of_inputs_of_one_dimension():
    nets = [nn.Conv1d(2, 1, 3) for _ in range(2)]
    for length, points in ((4095, 20), (4096, 15)):
        batch = torch.rand(1, 2, length), torch.rand(1, 1, length - 2)
        assert attribute(*nets, batch, rule="midpoint").evaluations == points


def test_the_documented_example_and_repeatability():
    baseline, target = pair(kinked, torch.float32)
    batch = images(dtype=torch.float32)
    assert same(attribute(baseline, target, batch), attribute(baseline, target, batch))


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_memory_does_not_change_the_result(backend):
    nets, options = pair(kinked), {"backend": backend, "memory": 10**12}
    assert same(attribute(*nets, images(), backend=backend), attribute(*nets, images(), **options))


def test_progress_counts_points_of_images(capsys):
    baseline, target = pair(kinked)
    attribute(baseline, target, images(3), steps=4, progress=True)
    captured = capsys.readouterr()
    assert "12/12" in captured.err and not captured.out
    attribute(baseline, target, images(3), steps=4)
    assert capsys.readouterr().err == ""
    large = [torch.rand(2, x.shape[1], 64, 64, dtype=x.dtype) for x in images(1)]
    attribute(baseline, target, [images(3), large], rule="midpoint", progress=True)
    assert "90/90" in capsys.readouterr().err


def test_one_image_of_the_literal_loop():
    baseline, target = pair(kinked)
    x, gt = images(1)
    expected = authors_scores(
        lambda: kinked().double(), baseline.state_dict(), target.state_dict(), x, gt, 13
    )
    result = attribute(baseline, target, (x, gt), rule="left", steps=13)
    torch.testing.assert_close(result.scores()[0], expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_loss_of_zero_against_the_own_output_is_rounding(backend):
    baseline, target = pair(dtype=torch.float32)
    x = torch.rand(2, 3, 7, 9)
    with torch.no_grad():
        gt = target(x)
    result = attribute(baseline, target, (x, gt), steps=3, backend=backend)
    assert not any("point by point" in note for note in result.notes)
    exact = attribute(
        copy.deepcopy(baseline).double(), copy.deepcopy(target).double(),
        (x.double(), gt.double()), steps=3, backend="reference",
    )  # fmt: skip
    torch.testing.assert_close(result.scores().double(), exact.scores(), rtol=1e-3, atol=1e-9)
