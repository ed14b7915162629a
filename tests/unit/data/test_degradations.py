import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from faigfast.data.degradations import (
    Degradation,
    add_noise,
    downsample,
    gaussian_blur,
    gaussian_kernel,
    round_to_8_bit,
)
from faigfast.data.patches import Patches, crop_to_multiple


def image(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- blur


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0, 5.5])
def test_the_kernel_is_the_normalised_gaussian_over_21_by_21(sigma):
    kernel = gaussian_kernel(sigma)
    assert kernel.shape == (21,) and kernel.dtype == torch.float64
    y, x = np.mgrid[-10:11, -10:11]
    plane = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    plane /= plane.sum()
    np.testing.assert_allclose(torch.outer(kernel, kernel).numpy(), plane, rtol=1e-12, atol=1e-18)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0])
@pytest.mark.parametrize("size", [(24, 31), (11, 11), (40, 13)])
def test_blur_is_scipys_with_mirrored_borders(sigma, size):
    x = image(2, 3, *size)
    y, z = np.mgrid[-10:11, -10:11]
    kernel = np.exp(-(y**2 + z**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    expected = np.stack(
        [[ndimage.correlate(c, kernel, mode="mirror") for c in n] for n in x.numpy()]
    )
    np.testing.assert_allclose(gaussian_blur(x, sigma).numpy(), expected, rtol=0, atol=1e-13)


def test_blur_keeps_constants_means_nothing_at_0_and_the_input():
    flat = torch.full((1, 3, 20, 20), 0.37, dtype=torch.float64)
    torch.testing.assert_close(gaussian_blur(flat, 2.0), flat, rtol=1e-14, atol=0)
    x = image(1, 3, 20, 20)
    before = x.clone()
    assert torch.equal(gaussian_blur(x, 0), x)
    assert not torch.equal(gaussian_blur(x, 2.0), x) and torch.equal(x, before)


def test_blur_of_one_pixel_is_the_kernel():
    x = torch.zeros(1, 2, 41, 41, dtype=torch.float64)
    x[0, 1, 20, 20] = 1
    out = gaussian_blur(x, 2.0)
    kernel = gaussian_kernel(2.0)
    torch.testing.assert_close(out[0, 1, 10:31, 10:31], torch.outer(kernel, kernel))
    assert not out[0, 0].any() and out.sum().item() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blur_keeps_dtype_and_takes_odd_layouts(dtype):
    x = image(2, 3, 16, 18, dtype=dtype)
    expected = gaussian_blur(x, 1.5)
    assert expected.dtype == dtype
    torch.testing.assert_close(
        gaussian_blur(x.contiguous(memory_format=torch.channels_last), 1.5), expected
    )


@pytest.mark.parametrize("size", [(10, 30), (30, 10), (1, 1)])
def test_images_too_small_to_blur(size):
    with pytest.raises(ValueError, match=f"{size[0]}×{size[1]} is too small to blur.*above 10"):
        gaussian_blur(image(1, 3, *size), 2.0)
    with pytest.raises(ValueError, match="too small"):
        Degradation(blur=2)(image(1, 3, *size))


# --- down-sampling


def test_bilinear_by_2_is_the_mean_of_2_by_2():
    x = image(2, 3, 8, 10)
    expected = x.reshape(2, 3, 4, 2, 5, 2).mean((3, 5))
    torch.testing.assert_close(downsample(x, 2), expected, rtol=1e-14, atol=0)


def test_bilinear_by_3_picks_the_centre_and_by_4_the_middle_four():
    x = image(1, 3, 12, 24)
    torch.testing.assert_close(downsample(x, 3), x[..., 1::3, 1::3], rtol=1e-14, atol=0)
    middle = sum(x[..., i::4, j::4] for i in (1, 2) for j in (1, 2)) / 4
    torch.testing.assert_close(downsample(x, 4), middle, rtol=1e-13, atol=0)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(24, 36), (12, 12)])
def test_bicubic_is_pillows(scale, size):
    x = image(1, 3, *size, dtype=torch.float32)
    out = downsample(x, scale, "bicubic")
    for channel, downsampled in zip(x[0], out[0], strict=True):
        small = Image.fromarray(channel.numpy())
        assert small.mode == "F"
        resized = small.resize((size[1] // scale, size[0] // scale), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(downsampled.numpy(), np.asarray(resized), rtol=0, atol=2e-6)


def test_bicubic_is_antialiased_and_bilinear_is_not():
    stripes = torch.tensor([0.0, 1.0, 0.0]).repeat(8).expand(1, 1, 24, 24)
    assert downsample(stripes, 3, "bilinear").min() == 1
    torch.testing.assert_close(
        downsample(stripes, 3, "bicubic")[..., 2:-2], torch.full((1, 1, 8, 4), 1 / 3),
        rtol=0, atol=0.05,
    )  # fmt: skip


def test_scale_1_changes_nothing():
    x = image(1, 3, 5, 7)
    for method in ("bilinear", "bicubic"):
        assert torch.equal(downsample(x, 1, method), x)


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (1, 1), (0, 2)])
def test_sizes_that_do_not_divide(size):
    with pytest.raises(ValueError, match=f"{size[0]}×{size[1]} does not divide by the scale 2"):
        downsample(torch.zeros(1, 3, *size), 2)


@pytest.mark.parametrize("method", ["nearest", "", None])
def test_unknown_methods(method):
    with pytest.raises(ValueError, match=r"downsampling is .*bilinear.*bicubic"):
        downsample(image(1, 3, 4, 4), 2, method)
    with pytest.raises(ValueError, match=r"downsampling is .*bilinear.*bicubic"):
        Degradation(downsampling=method)


# --- noise and rounding


def test_noise_is_seeded_white_and_of_its_sigma():
    x = torch.full((1, 3, 200, 200), 0.5)
    first, second = (add_noise(x, 0.1, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, second)
    noise = (first - x).flatten()
    other = (add_noise(x, 0.1, torch.Generator().manual_seed(8)) - x).flatten()
    error = 0.1 / math.sqrt(len(noise))
    assert abs(noise.mean()) < 5 * error and noise.std() == pytest.approx(0.1, rel=0.02)
    assert abs((noise * other).mean()) < 5 * 0.1 * error
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 * 0.1 * error
    assert ((noise.abs() > 0.2).float().mean() - 0.0455).abs() < 0.005
    assert add_noise(x, 5.0, torch.Generator().manual_seed(0)).min() < -1, "not clipped"


def test_noise_does_not_touch_the_global_generator_or_the_input():
    x = image(1, 3, 8, 8)
    before, state = x.clone(), torch.get_rng_state()
    Degradation(noise=0.1)(x, seed=3)
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)


def test_noise_is_the_same_in_every_dtype():
    x = torch.zeros(1, 3, 8, 8)
    noisy32 = add_noise(x, 0.1, torch.Generator().manual_seed(1))
    noisy64 = add_noise(x.double(), 0.1, torch.Generator().manual_seed(1))
    torch.testing.assert_close(noisy32.double(), noisy64, rtol=1e-6, atol=0)


def test_rounding_is_that_of_a_png():
    levels = torch.arange(256, dtype=torch.float64) / 255
    assert torch.equal(round_to_8_bit(levels), levels)
    assert torch.equal(round_to_8_bit(levels.float()), levels.float())
    x = torch.tensor([-0.3, 1.7, 0.4999 / 255, 0.5001 / 255, 254.4 / 255, 254.6 / 255]).double()
    assert (round_to_8_bit(x) * 255).round().tolist() == [0, 255, 0, 1, 254, 255]
    many = image(1, 3, 40, 40)
    by_numpy = np.clip((many.numpy() * 255.0).round(), 0, 255) / 255.0
    np.testing.assert_allclose(round_to_8_bit(many).numpy(), by_numpy, rtol=0, atol=0)


# --- the recipe


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_the_recipe_is_its_parts_in_order(method):
    gt = image(2, 3, 24, 32)
    out = Degradation(blur=2, noise=0.1, scale=2, downsampling=method)(gt, seed=5)
    noise = torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(5)).double()
    blurred = gaussian_blur(gt, 2.0)
    small = F.interpolate(
        blurred, size=(12, 16), mode=method, align_corners=False, antialias=method == "bicubic"
    )
    expected = ((small + 0.1 * noise) * 255).round().clamp(0, 255) / 255
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    levels = out * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-9)
    assert out.min() >= 0 and out.max() <= 1


def test_seeds_repeat_and_differ():
    gt, noise = image(1, 3, 24, 24), Degradation(noise=0.1)
    assert torch.equal(noise(gt, seed=1), noise(gt, seed=1))
    assert not torch.equal(noise(gt, seed=1), noise(gt, seed=2))
    assert torch.equal(noise(gt), noise(gt, seed=0))
    blur = Degradation(blur=2)
    assert torch.equal(blur(gt, seed=1), blur(gt, seed=2))


def test_clean_is_down_sampling_and_rounding():
    gt = image(1, 3, 4, 4)
    clean = Degradation.parse("clean")
    assert torch.equal(clean(gt), round_to_8_bit(downsample(gt, 2)))
    assert clean(image(1, 3, 2, 2)).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    "text, blur, noise",
    [
        ("clean", 0, 0),
        ("blur=2", 2, 0),
        ("noise=0.1", 0, 0.1),
        ("blur=2+noise=0.1", 2, 0.1),
        ("noise=0.1+blur=2", 2, 0.1),
        (" blur=1.5 + noise=2e-2 ", 1.5, 0.02),
    ],
)
def test_recipes_that_are_read(text, blur, noise):
    expected = Degradation(blur=blur, noise=noise, scale=3, downsampling="bicubic")
    assert Degradation.parse(text, scale=3, downsampling="bicubic") == expected


@pytest.mark.parametrize(
    "text", ["", "jpeg", "jpg=30", "blur", "blur=2,noise=0.1", "blur=1+blur=2", "clean+blur=2",
             "blur=2+", "blur=two", "noise=", "=2", "Blur=2"],
)  # fmt: skip
def test_recipes_that_are_not(text):
    with pytest.raises(ValueError, match=r"degradation .*expected"):
        Degradation.parse(text)


@pytest.mark.parametrize("name", ["blur", "noise"])
@pytest.mark.parametrize("strength", [-1, -0.1, float("nan"), float("inf"), "2", None])
def test_strengths_that_are_refused(name, strength):
    with pytest.raises((ValueError, TypeError), match=f"{name} is .*expected a finite number"):
        Degradation(**{name: strength})


@pytest.mark.parametrize("text", ["blur=-1", "noise=nan", "blur=inf"])
def test_strengths_that_are_refused_as_text(text):
    with pytest.raises(ValueError, match="expected a finite number from 0 up"):
        Degradation.parse(text)


@pytest.mark.parametrize("scale", [0, -2, 1.5, 2.0, "2", True, None])
def test_scales_that_are_refused(scale):
    with pytest.raises((ValueError, TypeError), match=r"scale is .*expected a positive integer"):
        Degradation(scale=scale)


# --- patches


def photographs():
    """Two images that are not square. Float levels avoid ties when means of bytes are rounded."""
    return [image(3, *size, seed=i) for i, size in enumerate(((40, 55), (61, 38)))]


@pytest.mark.parametrize("scale", [2, 4])
def test_sharp_patches_are_the_degraded_gt(scale):
    patches = Patches(photographs(), scale=scale, patch=8, resizes=(1.0,))
    lq, gt = patches.batch(20, seed=3)
    assert lq.shape == (20, 3, 8, 8) and gt.shape == (20, 3, 8 * scale, 8 * scale)
    assert torch.equal(lq, round_to_8_bit(downsample(gt, scale)))


def test_blurred_patches_are_the_blurred_gt_inside():
    """Compare only far from the patch's border: the image continues there, the patch mirrors."""
    patches = Patches(
        photographs(), scale=2, patch=14, blur=(1.0,), probability=1.0, resizes=(1.0,)
    )
    lq, gt = patches.batch(10, seed=0)
    again = Degradation(blur=1.0)(gt)
    inside = (..., slice(5, 9), slice(5, 9))
    # Taps five standard deviations away change less than one level.
    assert (lq[inside] - again[inside]).abs().max() <= 1.01 / 255
    assert (lq - Degradation()(gt)).abs().max() > 0.1


def test_patches_come_from_the_photographs_turned_and_mirrored():
    source = torch.arange(3 * 24 * 24, dtype=torch.float64).view(3, 24, 24) / (3 * 24 * 24)
    patches = Patches([source], scale=2, patch=6, resizes=(1.0,))
    _, gt = patches.batch(60, seed=1)
    crops = source.unfold(1, 12, 2).unfold(2, 12, 2).permute(1, 2, 0, 3, 4).reshape(-1, 3, 12, 12)
    seen = set()
    for patch in gt:
        for turns in range(4):
            for mirrored in (False, True):
                turned = patch.flip(2) if mirrored else patch
                if (torch.rot90(turned, turns, (1, 2)) == crops).all((1, 2, 3)).any():
                    seen.add((turns, mirrored))
                    break
            else:
                continue
            break
        else:
            raise AssertionError("a patch is no crop of the photograph")
    assert len(seen) == 8


def test_patches_repeat_by_seed():
    patches = Patches(photographs(), scale=2, patch=6, blur=(2.0,), noise=(0.1, 0.2))
    first, second = (patches.batch(6, seed=11) for _ in range(2))
    again = Patches(photographs(), scale=2, patch=6, blur=(2.0,), noise=(0.1, 0.2)).batch(6, 11)
    for a, b, c in zip(first, second, again, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert not torch.equal(first[0], patches.batch(6, seed=12)[0])
    state = torch.get_rng_state()
    patches.batch(2, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_blur_and_noise_come_with_their_probability():
    def share(**options):
        patches = Patches(photographs(), scale=2, patch=6, resizes=(1.0,), **options)
        lq, gt = patches.batch(400, seed=2)
        clean = round_to_8_bit(downsample(gt, 2))
        return (lq != clean).flatten(1).any(1).double().mean().item()

    assert share() == 0
    assert share(blur=(2.0,), noise=(0.1,), probability=0.0) == 0
    assert share(noise=(0.1,), probability=1.0) == 1
    assert share(blur=(2.0,), probability=0.5) == pytest.approx(0.5, abs=0.1)
    assert share(blur=(2.0,), noise=(0.1,), probability=0.5) == pytest.approx(0.75, abs=0.1)


def test_resized_photographs_serve_beside_each_other():
    patches = Patches(photographs(), scale=2, patch=6, resizes=(1.0, 0.5))
    sizes = [tuple(gt.shape[1:]) for gt, _ in patches.sources]
    assert sizes == [(40, 54), (20, 26), (60, 38), (30, 18)]
    assert all(gt.min() >= 0 and gt.max() <= 1 for gt, _ in patches.sources)


def test_photographs_without_a_patch():
    with pytest.raises(ValueError, match="no photograph holds a patch of 100×100"):
        Patches(photographs(), scale=2, patch=50)
    with pytest.raises(ValueError, match="no photograph"):
        Patches([], scale=2, patch=5)


@pytest.mark.parametrize("size, expected", [((7, 9), (6, 8)), ((8, 8), (8, 8)), ((1, 5), (0, 4))])
def test_crop_to_multiple(size, expected):
    x = image(2, 3, *size)
    assert torch.equal(crop_to_multiple(x, 2), x[..., : expected[0], : expected[1]])
