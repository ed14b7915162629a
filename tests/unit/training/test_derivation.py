import math

import pytest
import torch
from torch import nn

from faigfast.data import Degradation
from faigfast.training.derivation import (
    Measurement,
    abilities,
    clean_settled,
    forgotten_reason,
    has_diverged,
)
from faigfast.training.derivation_run import relative_rate
from faigfast.training.held_out import HeldOut
from faigfast.training.photograph_source import divided
from faigfast.training.trainable import scale_of

BICUBIC = {"clean": 30.0, "noise": 25.0, "blur": 26.0}
TARGET = {"clean": 31.0, "noise": 29.0, "blur": 27.1}


def history(**values):
    names = list(values)
    rows = zip(*values.values(), strict=True)
    return [Measurement(n, dict(zip(names, row, strict=True))) for n, row in enumerate(rows)]


def test_an_ability_is_a_gain_beyond_that_on_clean_images():
    assert abilities(TARGET, BICUBIC, ("noise", "blur")) == ("noise",)
    assert abilities(TARGET | {"clean": 29.0}, BICUBIC, ("noise", "blur")) == ("noise", "blur")


@pytest.mark.parametrize(
    ("clean", "settled"),
    [
        ([30.0, 31.0, 31.0], False),
        ([30.0, 31.0, 31.01, 31.0, 31.015], True),
        ([30.0, 31.0, 31.01, 31.0, 31.03], False),
        ([31.0, 30.0, 29.0, 28.0], True),
    ],
)
def test_clean_settles_after_three_measurements_without_a_rise(clean, settled):
    assert clean_settled(history(clean=clean)) is settled


def test_why_nothing_more_is_forgotten():
    def reason(*names, **values):
        return forgotten_reason(history(**values), BICUBIC, TARGET, names)

    assert reason("noise", noise=[25.2]) == "noise is down to the level of bicubic enlargement"
    assert reason("noise", noise=[25.3]) == ""
    text = reason("noise", "blur", noise=[25.0] * 4, blur=[26.9, 26.88, 26.88, 26.87])
    assert "noise is down" in text and "blur no longer falls (0.87 dB above bicubic" in text
    assert reason("noise", "blur", noise=[25.0] * 4, blur=[26.9, 26.9, 26.9, 26.8]) == ""
    assert reason(clean=[30.0]) == "the target removes no degradation to be forgotten"


@pytest.mark.parametrize(
    ("clean", "diverged"),
    [([20.0], False), ([27.0, 27.9], False), ([27.9, 27.0], True), ([28.1, 20.0], False)],
)
def test_divergence_is_a_loss_without_recovery(clean, diverged):
    assert has_diverged(history(clean=clean), TARGET) is diverged


def test_the_rate_ramps_up_and_falls():
    rates = [relative_rate(done, 400) for done in range(400)]
    assert rates[0] < 0.03 and 0.95 < max(rates) <= 1 and rates[-1] < 1e-4
    assert rates.index(max(rates)) == 39
    assert relative_rate(0, 1) == pytest.approx(0.05)


def identity():
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(network.weight)
    return network


def test_held_out_crops_of_a_network_that_does_nothing():
    images = {"a": torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0))}
    recipes = {"noise": Degradation(noise=0.1, scale=1)}
    crops = HeldOut.of(images, recipes, scale=1, patch=8, pad=2, seed=0)
    assert crops.gt.shape == (9, 1, 8, 8) and list(crops.lq) == ["clean", "noise"]
    assert crops.psnr(identity()) == crops.psnr_without_network()
    assert crops.psnr(identity())["clean"] == 80.0
    assert crops.psnr(identity())["noise"] == pytest.approx(20, abs=1)
    start, target = identity(), identity()
    with torch.no_grad():
        start.weight.fill_(3.0)
        target.weight.fill_(2.0)
    barriers = crops.barriers(start, target)  # a convex loss has none
    assert barriers == {"clean": 0.0, "noise": 0.0}
    with torch.no_grad():
        start.weight.fill_(1.0)
    assert list(crops.only([]).lq) == ["clean"]


class Square(nn.Module):
    """Multiplies by the square of its weight: −1 and 1 agree, 0 does not."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return x * self.weight.square() * 0.5


def test_the_barrier_of_a_broken_middle():
    images = {"a": torch.rand(1, 16, 16)}
    crops = HeldOut.of(images, {}, scale=1, patch=8, pad=0, seed=0)
    # At the ends the error is x/2, in the middle x: four times the loss.
    assert crops.barriers(Square(-1.0), Square(1.0))["clean"] == pytest.approx(3.0, rel=0.02)


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (7, 1), (8, 2), (40, 4)])
def test_a_quarter_is_held_out(count, held_out):
    images = {str(n): torch.zeros(1, 20, 20) for n in range(count)}
    training, measured = divided(images, 1, 8)
    assert len(measured) == held_out and len(training) == count - held_out
    assert not training.keys() & measured.keys()


def test_photographs_that_are_too_small_are_left_out():
    images = {"small": torch.zeros(1, 7, 30), "a": torch.zeros(1, 20, 20), "b": torch.ones(1, 8, 9)}
    training, measured = divided(images, 1, 8)
    assert {*training, *measured} == {"a", "b"}


def test_the_scale_that_an_output_shows():
    network = nn.Sequential(nn.Conv2d(3, 27, 3), nn.PixelShuffle(3))
    assert scale_of(network, None, 3, 8, 0) == 3
    assert scale_of(network, 4, 3, 8, 0) == 4
    network.scale = math.nan
    assert scale_of(network, None, 3, 8, 0) == 3
