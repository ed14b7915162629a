import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from skimage.util import random_noise

from faigfast.data.degradations import GrayNoise, Noise, Poisson, SaltAndPepper, Speckle, add_noise
from faigfast.data.degradations.noise import to_gray

SIDE = 200


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ramp(channels=3):
    """Values from 0.1 to 0.9, many times each."""
    return torch.linspace(0.1, 0.9, SIDE, dtype=torch.float64).expand(channels, SIDE, SIDE)


def test_noise_is_that_of_the_paper():
    x = ramp()
    assert torch.equal(Noise(0.1)(x, generator()), add_noise(x, 0.1, generator()))


def test_gray_noise_has_one_value_for_all_channels():
    noise = GrayNoise(0.1)(ramp(), generator()) - ramp()
    assert (noise - noise[:1]).abs().max() < 1e-12
    assert stats.kstest(noise[0].flatten().numpy() / 0.1, "norm").pvalue > 1e-3
    expected = 0.1 * torch.randn(SIDE, SIDE, generator=generator()).double()
    torch.testing.assert_close(noise[0], expected, rtol=0, atol=1e-12)


def spread(step, x):
    """Standard deviation of the noise by column of the ramp."""
    return (step(x, generator()) - x).transpose(1, 2).transpose(0, 1).flatten(1).std(1).numpy()


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_speckle_spreads_as_scikit_images(sigma):
    x = ramp()
    noisy = random_noise(x.numpy(), "speckle", rng=0, clip=False, mean=0, var=sigma**2)
    expected = (noisy - x.numpy()).transpose(2, 0, 1).reshape(SIDE, -1).std(1)
    np.testing.assert_allclose(spread(Speckle(sigma), x), expected, rtol=0.25)
    np.testing.assert_allclose(spread(Speckle(sigma), x), sigma * x[0, 0].numpy(), rtol=0.15)


def test_poisson_noise_is_as_numpy_counts_photons():
    x = ramp()
    noisy = Poisson(1)(x, generator())
    counts = (noisy * 256).numpy()
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    np.testing.assert_allclose(spread(Poisson(1), x), np.sqrt(x[0, 0].numpy() / 256), rtol=0.15)
    np.testing.assert_allclose(spread(Poisson(2.5), x), 2.5 * spread(Poisson(1), x), rtol=1e-6)
    column = (noisy[:, :, 100] * 256).round().flatten().numpy()
    by_numpy = np.random.default_rng(0).poisson(float(x[0, 0, 100]) * 256, 100_000)
    assert stats.ks_2samp(column, by_numpy).pvalue > 1e-3


def test_poisson_noise_is_scikit_images_where_it_counts_as_many_levels():
    levels = torch.randint(0, 256, (1, SIDE, SIDE), generator=generator()).double() / 255
    noise = random_noise(levels.numpy(), "poisson", rng=0, clip=False) - levels.numpy()
    own = (Poisson(1)(levels, generator()) - levels).numpy()
    assert own.std() == pytest.approx(noise.std(), rel=0.02)
    assert abs(own.mean()) < 1e-3


def test_gray_images_are_pillows():
    x = torch.rand(3, 20, 20, generator=generator())
    levels = (x * 255).round()
    pixels = levels.to(torch.uint8).permute(1, 2, 0).numpy()
    gray = np.asarray(Image.fromarray(pixels).convert("L"))
    np.testing.assert_allclose(to_gray(levels)[0].numpy(), gray, atol=1.01)
    assert torch.equal(to_gray(x[:1]), x[:1])


def test_values_outside_the_range_count_no_photons():
    x = torch.tensor([-0.5, 0.0, 1.0]).view(1, 1, 3)
    noisy = Poisson(1)(x, generator())
    assert noisy[0, 0, :2].tolist() == [-0.5, 0.0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_salt_and_pepper_are_as_many_as_scikit_images(share):
    x = ramp()
    own = SaltAndPepper(share)(x, generator()).numpy()
    other = random_noise(x.numpy(), "s&p", rng=0, amount=share)
    for value in (0.0, 1.0):
        assert (own == value).mean() == pytest.approx((other == value).mean(), abs=0.01)
        assert (own == value).mean() == pytest.approx(share / 2, abs=0.01)
    rest = (own != 0) & (own != 1)
    assert (own[rest] == x.numpy()[rest]).all()


STEPS = [Noise(0.1), GrayNoise(0.1), Poisson(1), Speckle(0.2), SaltAndPepper(0.3)]


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_noise_follows_the_generator_alone(step):
    x, state = ramp(1), torch.get_rng_state()
    assert torch.equal(step(x, generator(3)), step(x, generator(3)))
    assert not torch.equal(step(x, generator(3)), step(x, generator(4)))
    assert torch.equal(state, torch.get_rng_state())
    single = step(x.float(), generator(3))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), step(x, generator(3)), rtol=1e-5, atol=1e-5)
