import math

import numpy as np
import pytest
import torch
from scipy import ndimage, special, stats
from skimage.measure import block_reduce
from skimage.morphology import disk

from faigfast.data.degradations import Anisotropic, Defocus, Motion, Sinc
from faigfast.data.degradations.blur import filter_image
from faigfast.data.degradations.kernels import (
    anisotropic_kernel,
    disk_kernel,
    motion_kernel,
    padded_kernel,
    sinc_kernel,
)

GENERATOR = torch.Generator()


def image(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def by_scipy(x, kernel):
    return np.stack([ndimage.correlate(c, kernel, mode="mirror") for c in x.numpy()])


@pytest.mark.parametrize("size", [(24, 31), (9, 7), (3, 2), (1, 5), (1, 1)])
def test_images_of_any_size_are_mirrored_as_scipy_does(size):
    x, kernel = image(2, *size), image(13, 13, seed=1)
    np.testing.assert_allclose(
        filter_image(x, kernel).numpy(), by_scipy(x, kernel.numpy()), rtol=1e-11
    )


@pytest.mark.parametrize("widths", [(2.0, 0.8, 30.0), (0.5, 3.0, -75.0), (1.5, 1.5, 10.0)])
def test_anisotropic_blur_is_scipys_normal_density(widths):
    sigma_x, sigma_y, angle = widths
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = np.array([[cos, -sin], [sin, cos]])  # x to the right, y up
    normal = stats.multivariate_normal(cov=turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T)
    margin = math.ceil(4 * max(sigma_x, sigma_y))
    y, x = np.mgrid[margin : -margin - 1 : -1, -margin : margin + 1]
    kernel = normal.pdf(np.stack([x, y], -1))
    kernel /= kernel.sum()
    photograph = image(3, 30, 40)
    blurred = Anisotropic(*widths)(photograph, GENERATOR)
    np.testing.assert_allclose(blurred.numpy(), by_scipy(photograph, kernel), atol=1e-12)


def test_angles_turn_anticlockwise_on_the_screen():
    for kernel in (anisotropic_kernel(3, 0.5, 45), motion_kernel(9, 45), motion_kernel(9, -135)):
        middle = kernel.shape[0] // 2
        assert kernel[middle - 2, middle + 2] > 10 * kernel[middle + 2, middle + 2]
    wide = anisotropic_kernel(3, 0.5)
    assert wide[wide.shape[0] // 2].sum() > 0.5


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.5])
def test_generalised_and_plateau_shapes(beta):
    y, x = np.mgrid[-5:6, -5:6]
    q = (x / 1.5) ** 2 + (y / 0.7) ** 2
    for shape, values in (("generalized", np.exp(-(q**beta) / 2)), ("plateau", 1 / (1 + q**beta))):
        kernel = anisotropic_kernel(1.5, 0.7, size=11, shape=shape, beta=beta)
        np.testing.assert_allclose(kernel.numpy(), values / values.sum(), rtol=1e-12)
    torch.testing.assert_close(
        anisotropic_kernel(1.5, 0.7, 20, size=11, shape="generalized"),
        anisotropic_kernel(1.5, 0.7, 20, size=11),
    )
    with pytest.raises(ValueError, match="shape is 'square'"):
        anisotropic_kernel(1, 1, shape="square")


@pytest.mark.parametrize("length, angle", [(5, 0), (5, 90), (7, 30), (4.5, -60), (12, 135), (1, 9)])
def test_motion_is_the_mean_of_scipys_interpolated_samples(length, angle):
    x = image(1, 25, 33)
    count = math.ceil(length)
    rows, columns = np.mgrid[:25, :33].astype(float)
    samples = []
    for t in np.linspace(-(length - 1) / 2, (length - 1) / 2, count):
        place = (
            rows - t * math.sin(math.radians(angle)),
            columns + t * math.cos(math.radians(angle)),
        )
        samples.append(ndimage.map_coordinates(x[0].numpy(), place, order=1, mode="mirror"))
    moved = Motion(length, angle)(x, GENERATOR)
    np.testing.assert_allclose(moved[0].numpy(), np.mean(samples, 0), atol=1e-12)


def test_motion_of_whole_pixels_along_an_axis_is_even():
    torch.testing.assert_close(motion_kernel(5)[2], torch.full((5,), 0.2, dtype=torch.float64))
    torch.testing.assert_close(motion_kernel(5, 90), motion_kernel(5).T, atol=1e-15, rtol=0)
    assert motion_kernel(1).tolist() == [[1.0]]


@pytest.mark.parametrize("radius", [1.5, 2.5, 4.5])
def test_defocus_is_skimages_disk_at_a_higher_resolution(radius):
    zoom = 15  # odd: a pixel of the fine disk lies in the middle of a pixel of the kernel
    fine = disk(radius * zoom - 0.5).astype(float)
    side = zoom * (2 * math.ceil(radius - 0.5) + 1)
    margin = (side - fine.shape[0]) // 2
    fine = np.pad(fine, margin) if margin > 0 else fine
    assert fine.shape[0] == side
    kernel = block_reduce(fine, (zoom, zoom), np.mean)
    kernel /= kernel.sum()
    np.testing.assert_allclose(disk_kernel(radius).numpy(), kernel, atol=0.02 / radius**2)
    x = image(3, 20, 22)
    np.testing.assert_allclose(
        Defocus(radius)(x, GENERATOR).numpy(),
        by_scipy(x, disk_kernel(radius).numpy()),
        atol=1e-12,
    )


@pytest.mark.parametrize("radius", [0.01, 0.5])
def test_a_disk_within_a_pixel_blurs_nothing(radius):
    assert disk_kernel(radius).tolist() == [[1.0]]


@pytest.mark.parametrize("cutoff, size", [(math.pi / 3, 7), (1.9, 21), (math.pi, 13)])
def test_sinc_is_the_circular_low_pass_filter_of_scipys_bessel_function(cutoff, size):
    y, x = np.mgrid[:size, :size] - size // 2
    r = np.hypot(x, y)
    r[size // 2, size // 2] = 1e-9
    kernel = cutoff * special.j1(cutoff * r) / (2 * np.pi * r)
    kernel /= kernel.sum()
    photograph = image(3, 26, 24)
    filtered = Sinc(cutoff, size)(photograph, GENERATOR)
    np.testing.assert_allclose(filtered.numpy(), by_scipy(photograph, kernel), atol=1e-6)


def test_sinc_passes_low_and_stops_high_frequencies():
    phase = torch.arange(200, dtype=torch.float64)
    kernel = sinc_kernel(1.5, 51)
    for frequency, gain in ((0.5, 1.0), (1.2, 1.0), (2.0, 0.0), (2.8, 0.0)):
        wave = torch.cos(frequency * phase).expand(1, 1, -1)
        passed = filter_image(wave, kernel)
        assert (passed - gain * wave)[..., 60:140].abs().max() < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_types_are_kept(dtype):
    x = image(3, 12, 15)
    for step in (Motion(2.5, 20), Defocus(3.3)):
        blurred = step(x.to(dtype), GENERATOR)
        assert blurred.dtype == dtype
        tolerance = 4 * torch.finfo(dtype).eps
        torch.testing.assert_close(blurred.double(), step(x, GENERATOR), rtol=0, atol=tolerance)


def test_kernels_keep_constants_and_sum_to_1():
    flat = torch.full((3, 12, 15), 0.37, dtype=torch.float64)
    for step in (Anisotropic(2, 0.8, 30), Motion(7.5, 20), Defocus(3.3), Sinc(1.0)):
        torch.testing.assert_close(step(flat, GENERATOR), flat, rtol=1e-12, atol=0)
    padded = padded_kernel(motion_kernel(3), 7)
    assert padded.shape == (7, 7) and padded[3, 2:5].sum() == pytest.approx(1)
