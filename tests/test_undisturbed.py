"""Whatever the caller does, results are the same; models, images and generators stay."""

import math

import pytest
import torch
from helpers import images, kinked, pair, same, untouched
from torch import nn

from faigfast import attribute


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.enable_grad,
        lambda: torch.random.fork_rng([]),
    ],
)
@pytest.mark.parametrize(
    "objective", ["squared_error", lambda o, g: (o * g).flatten(1).sum(1).square()]
)
def test_the_callers_context_does_not_reach_inside(context, objective):
    baseline, target = pair(kinked, torch.float32)
    batch = images(dtype=torch.float32)
    expected = attribute(baseline, target, batch, objective=objective)
    with context(), untouched(baseline, target, data=batch):
        result = attribute(baseline, target, batch, objective=objective)
    assert same(result, expected)
    with context():  # images and networks that were made inside
        inner = tuple(t.clone() for t in batch)
        nets = pair(kinked, torch.float32)
        result = attribute(*nets, inner, objective=objective)
    assert torch.equal(result.scores(), expected.scores())


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(default):
    baseline, target = pair(kinked, torch.float32)
    batch = images(dtype=torch.float32)
    expected = attribute(baseline, target, batch, rule="gauss-kronrod", steps=3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        result = attribute(baseline, target, batch, rule="gauss-kronrod", steps=3)
    finally:
        torch.set_default_dtype(before)
    assert same(result, expected)
    assert torch.equal(result.error, expected.error)


def test_models_are_untouched_in_every_mode():
    baseline, target = pair(lambda: nn.Sequential(kinked(), nn.Dropout(0.5), nn.BatchNorm2d(3)))
    batch = images()
    expected = attribute(baseline, target, batch)
    baseline.train()
    target.train()
    target[2].eval()
    for net in (baseline, target):
        net[0][0].weight.grad = torch.ones_like(net[0][0].weight)
        net[0][0].bias.requires_grad_(False)
        net.register_forward_hook(lambda *_: None)
    with untouched(baseline, target, data=batch):
        result = attribute(baseline, target, batch)
    assert same(result, expected)


def test_images_that_require_gradients_and_odd_layouts():
    baseline, target = pair(kinked)
    x, gt = images(2, size=(6, 6))
    expected = attribute(baseline, target, (x, gt))
    wide_x, wide_gt = torch.zeros(2, 3, 12, 12).double(), torch.zeros(4, 3, 6, 6).double()
    wide_x[..., ::2, ::2], wide_gt[1::2] = x, gt
    views = [
        (x.clone().requires_grad_(), gt.clone().requires_grad_()),
        (x.contiguous(memory_format=torch.channels_last), gt),
        (wide_x[..., ::2, ::2], wide_gt[1::2]),
        (x.transpose(2, 3).contiguous().transpose(2, 3), gt),
    ]
    for batch in views:
        with untouched(baseline, target, data=batch):
            result = attribute(baseline, target, batch)
        torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-12, atol=1e-14)
    expanded = attribute(
        baseline, target, (x[:1].expand(2, -1, -1, -1), gt[:1].expand(2, -1, -1, -1))
    )
    torch.testing.assert_close(expanded.scores(), expected.scores()[[0, 0]], rtol=1e-12, atol=1e-14)


def test_both_networks_may_share_parts_that_do_not_move():
    baseline, target = pair(kinked)
    baseline[2] = target[2]
    with untouched(baseline, target):
        result = attribute(baseline, target, images(), steps=200)
    assert not result.scores()[:, 12:].any() and (result.scores()[:, :12] > 0).all()
    assert result.completeness.max() < 1e-2


def test_a_difference_in_a_bias_alone_moves_the_loss_and_scores_nothing():
    baseline, target = pair(lambda: nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        baseline.weight.copy_(target.weight)
    result = attribute(baseline, target, images(), steps=1)
    assert not result.scores().any() and result.completeness.max() < 1e-13


def test_an_error_estimate_of_nothing_is_not_a_number():
    baseline, target = pair(lambda: nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        baseline.weight.copy_(target.weight)
    result = attribute(baseline, target, images(), rule="gauss-kronrod", steps=3)
    assert all(math.isnan(value) or value == 0 for value in result.error.flatten().tolist())


def test_a_loss_that_does_not_change_makes_the_ratio_meaningless_not_an_error():
    baseline, target = pair(lambda: nn.Conv2d(1, 1, 1, bias=False))
    with torch.no_grad():
        baseline.weight.fill_(-1)
        target.weight.fill_(1)
    x = torch.ones(1, 1, 2, 2).double()
    result = attribute(baseline, target, (x, torch.zeros_like(x)), steps=2)
    assert result.losses.tolist() == [[[4.0, 4.0]]]
    assert not result.completeness.isfinite().all() or result.completeness.item() < 1e-12
