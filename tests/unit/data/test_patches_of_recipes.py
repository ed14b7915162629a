"""Training patches that recipes degrade."""

import pytest
import torch

from faigfast.data import Degradation
from faigfast.data.degradations import downsample, round_to_8_bit
from faigfast.data.patches import Patches


def photographs():
    sizes = ((40, 55), (61, 38))
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator, dtype=torch.float64) for size in sizes]


def patches(recipes, **options):
    given = {"scale": 2, "patch": 8, "resizes": (1.0,), "probability": 1.0, **options}
    return Patches(photographs(), recipes=recipes, **given)


def shifted(x, generator):
    return x.roll(4, 2)


def test_a_patch_is_its_ground_truth_degraded():
    lq, gt = patches(["resize=1:nearest"]).batch(30, seed=1)
    assert lq.shape == (30, 3, 8, 8) and gt.shape == (30, 3, 16, 16)
    assert torch.equal(lq, round_to_8_bit(downsample(gt, 2)))


def test_the_photograph_around_a_patch_is_degraded_with_it():
    recipe = Degradation.parse("motion=5")
    lq, gt = patches([recipe]).batch(30, seed=1)
    alone = recipe(gt)
    inside = (..., slice(2, -2))
    assert (lq[inside] - alone[inside]).abs().max() < 1e-9 and (lq != alone).any()


def test_directions_do_not_turn_with_the_patch():
    lq, gt = patches([shifted]).batch(30, seed=1)
    moved = downsample(gt, 2).roll(2, 3)
    assert (lq[..., 2:] - moved[..., 2:]).abs().max() < 0.51 / 255


def test_patches_have_random_numbers_of_their_own():
    flat = [torch.full((3, 40, 40), 0.5)]
    made = Patches(flat, scale=2, patch=8, recipes=["noise=0.1"], probability=1.0)
    lq, _ = made.batch(8, seed=0)
    assert len(lq.flatten(1).unique(dim=0)) == 8
    assert torch.equal(lq, made.batch(8, seed=0)[0])
    assert not torch.equal(lq, made.batch(8, seed=1)[0])


def test_recipes_have_a_probability_and_the_others_are_blurred_and_noisy():
    made = patches(["salt-and-pepper=1", "resize=1"], noise=(5.0,), probability=0.5)
    lq, gt = made.batch(400, seed=2)
    extreme = ((lq == 0) | (lq == 1)).double().flatten(1).mean(1)
    clean = (lq == round_to_8_bit(downsample(gt, 2))).flatten(1).all(1)
    assert (extreme == 1).double().mean() == pytest.approx(0.25, abs=0.07)
    noisy = (extreme < 1) & (extreme > 0.5)
    assert noisy.double().mean() == pytest.approx(0.25, abs=0.07)
    assert clean.double().mean() == pytest.approx(0.5, abs=0.07)


def test_without_recipes_patches_are_as_before():
    first = patches((), noise=(0.1,), blur=(1.0,), patch=6)
    again = Patches(
        photographs(), scale=2, patch=6, resizes=(1.0,), noise=(0.1,), blur=(1.0,), probability=1.0
    )
    for a, b in zip(first.batch(9, 3), again.batch(9, 3), strict=True):
        assert torch.equal(a, b)


def test_realesrgan_serves_small_patches():
    lq, gt = patches(["realesrgan"], patch=4).batch(5, seed=0)
    assert lq.shape == (5, 3, 4, 4) and lq.isfinite().all() and gt.shape == (5, 3, 8, 8)


@pytest.mark.parametrize(
    ("recipes", "error", "words"),
    [
        (["jpg=3"], ValueError, "did you mean 'jpeg'"),
        ([Degradation.parse("jpeg=3", 4)], ValueError, "has the scale 4; expected 2"),
        ([3], TypeError, "a degradation is 3"),
        ([lambda x, g: x[:, 1:]], ValueError, "returns"),
    ],
)
def test_refused_before_the_first_patch(recipes, error, words):
    with pytest.raises(error, match=words):
        patches(recipes)
