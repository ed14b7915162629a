import io
import math
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from faigfast.data.degradations import Degradation, RealESRGAN
from faigfast.data.degradations.real_esrgan import FIRST, SECOND, apply_parameters, draw_parameters

DRAWS = 800


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photograph(height, width, seed=0):
    noise = torch.rand(3, height, width, generator=generator(seed), dtype=torch.float64)
    return torch.nn.functional.avg_pool2d(noise[None], 5, 1, 2)[0]


@pytest.fixture(scope="module")
def draws():
    random = generator(7)
    return [draw_parameters(random) for _ in range(DRAWS)]


def share(flags):
    return np.mean([bool(flag) for flag in flags])


@pytest.mark.parametrize(
    ("name", "blurred", "sizes", "factors", "sigmas", "scales"),
    [
        ("first", 1.0, (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3)),
        ("second", 0.8, (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5)),
    ],
)
def test_stages_are_drawn_from_the_published_ranges(
    draws, name, blurred, sizes, factors, sigmas, scales
):
    stages = [getattr(draw, name) for draw in draws]
    near = {"abs": 0.06}
    assert share(stage.kernel is not None for stage in stages) == pytest.approx(blurred, **near)
    for chosen, size in zip(
        (lambda f: f > 1, lambda f: f < 1, lambda f: f == 1), sizes, strict=True
    ):
        assert share(chosen(stage.factor) for stage in stages) == pytest.approx(size, **near)
    assert share(stage.poisson for stage in stages) == pytest.approx(0.5, **near)
    assert share(stage.gray for stage in stages) == pytest.approx(0.4, **near)
    methods = Counter(stage.method for stage in stages)
    assert set(methods) == {"area", "bilinear", "bicubic"}
    assert min(methods.values()) > 0.28 * DRAWS
    gaussian = [255 * stage.strength for stage in stages if not stage.poisson]
    poisson = [stage.strength for stage in stages if stage.poisson]
    spans = [
        ([stage.factor for stage in stages], factors),
        (gaussian, sigmas),
        (poisson, scales),
        ([stage.quality for stage in stages], (30, 95)),
    ]
    for values, (low, high) in spans:
        width = high - low
        assert low <= min(values) < low + 0.03 * width and high - 0.03 * width < max(values) <= high


def test_the_last_filter_and_the_order_are_drawn_too(draws):
    assert share(draw.final is not None for draw in draws) == pytest.approx(0.8, abs=0.06)
    assert share(draw.jpeg_last for draw in draws) == pytest.approx(0.5, abs=0.06)


def test_kernels_have_21_pixels_a_sum_of_1_and_the_published_sizes(draws):
    sides = Counter()
    for draw in draws[:400]:
        kernel = draw.first.kernel
        assert kernel.shape == (21, 21) and kernel.sum().item() == pytest.approx(1)
        rows = kernel.abs().sum(1).nonzero()
        sides[int(rows.max() - rows.min()) + 1] += 1
        torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=1e-9, atol=1e-12)
    assert set(range(7, 22, 2)) <= set(sides) <= set(range(1, 22, 2)), "narrow bells are 0 outside"
    negative = share((draw.first.kernel < -1e-9).any() for draw in draws)
    assert negative == pytest.approx(0.1, abs=0.03), "sinc kernels have negative lobes"


def variance(kernel):
    offset = torch.arange(21, dtype=torch.float64) - 10
    return kernel.sum(0) @ offset**2, kernel.sum(1) @ offset**2


def test_widths_of_the_blur_are_within_the_ranges(draws):
    bells = [draw.second.kernel for draw in draws if draw.second.kernel is not None]
    widest = max(max(variance(k)) for k in bells if k.min() >= 0)
    assert widest < 1.2 * 21**2 / 12, "never wider than a uniform square"
    sharp = share(max(variance(k)) < 0.2 for k in bells if k.min() >= 0)
    assert 0 < sharp < 0.3
    assert (FIRST.sigma, SECOND.sigma) == ((0.2, 3.0), (0.2, 1.5))


# An independent pipeline, of SciPy and Pillow.


def resized(x, size, method):
    rows, columns = (matrix(new, old, method) for new, old in zip(size, x.shape[1:], strict=True))
    return rows @ x @ columns.T


def matrix(new, old, method):
    """Weights [new, old] of one axis."""
    if method == "area":
        spans = [(i * old // new, -(-(i + 1) * old // new)) for i in range(new)]
        return np.array([[(a <= j < b) / (b - a) for j in range(old)] for a, b in spans])
    weights = np.zeros((new, old))
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        if method == "bilinear":
            centre = max(centre, 0)
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(j, 0), old - 1)] += bell(abs(j - centre), method)
    return weights


def bell(distance, method):
    """Triangle, or Keys' cubic of a = -0.75."""
    if method == "bilinear":
        return max(0, 1 - distance)
    if distance < 1:
        return 1.25 * distance**3 - 2.25 * distance**2 + 1
    return -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4) if distance < 2 else 0


def coded(x, quality):
    file = io.BytesIO()
    levels = np.clip(np.rint(x * 255), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(levels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1) / 255


def filtered(x, kernel):
    if kernel is None:
        return x
    return np.stack([ndimage.correlate(c, kernel.numpy(), mode="mirror") for c in x])


def stage(x, drawn, size, random):
    x = filtered(x, drawn.kernel)
    x = resized(x, [max(1, int(side * drawn.factor)) for side in size], drawn.method)
    if not drawn.poisson:
        shape = x.shape[1:] if drawn.gray else x.shape
        x = x + drawn.strength * torch.randn(shape, generator=random).double().numpy()
        return np.clip(x, 0, 1)
    source = np.tensordot([0.2989, 0.587, 0.114], x, 1)[None] if drawn.gray else x
    source = np.clip(np.rint(source * 255), 0, 255) / 255
    seen = np.unique(source)
    levels = 2 ** math.ceil(math.log2(len(seen)))
    rate = torch.from_numpy(source.astype(np.float32)) * levels
    noise = (torch.poisson(rate, random).double().numpy() - rate.double().numpy()) / levels
    return np.clip(x + drawn.strength * noise, 0, 1)


def pipeline(x, drawn, scale, random):
    height, width = x.shape[1:]
    low = (height // scale, width // scale)
    x = coded(stage(x, drawn.first, (height, width), random), drawn.first.quality)
    x = stage(x, drawn.second, low, random)
    if drawn.jpeg_last:
        x = filtered(resized(x, low, drawn.final_method), drawn.final)
        return coded(x, drawn.second.quality)
    x = coded(x, drawn.second.quality)
    return np.clip(filtered(resized(x, low, drawn.final_method), drawn.final), 0, 1)


def test_the_pipeline_is_that_of_scipy_and_pillow():
    """JPEG rounds: a value on an edge may differ by a level, which the codec spreads."""
    x = photograph(40, 48)
    differences = []
    for seed in range(16):
        drawn = draw_parameters(generator(seed))
        own = apply_parameters(x, drawn, 2, generator(seed))
        other = pipeline(x.numpy(), drawn, 2, generator(seed))
        assert own.shape == (3, 20, 24) and own.min() >= 0 and own.max() <= 1
        differences.append(np.abs(own.numpy() - other).mean())
    assert np.median(differences) < 1e-4 and max(differences) < 3e-3


def test_recipes_hold_it_as_a_step_that_down_samples():
    gt = photograph(48, 64)[None].float()
    for scale in (1, 2, 4):
        recipe = Degradation.parse("realesrgan", scale)
        assert recipe.steps == (RealESRGAN(),) and recipe.text == "realesrgan"
        lq = recipe(gt, seed=3)
        assert lq.shape == (1, 3, 48 // scale, 64 // scale)
        torch.testing.assert_close(lq * 255, (lq * 255).round(), rtol=0, atol=1e-4)
        assert torch.equal(lq, recipe(gt, seed=3))
        assert not torch.equal(lq, recipe(gt, seed=4))
    assert Degradation.parse("realesrgan+jpeg=40", 2)(gt).shape == (1, 3, 24, 32)


def test_images_of_a_batch_have_parameters_of_their_own():
    gt = photograph(32, 32)[None].repeat(3, 1, 1, 1)
    lq = Degradation.parse("realesrgan", 2)(gt, seed=0)
    assert (lq[0] - lq[1]).abs().mean() > 0.01 and (lq[1] - lq[2]).abs().mean() > 0.01


@pytest.mark.parametrize("size", [(2, 2), (4, 6), (16, 2)])
def test_small_images(size):
    gt = photograph(*size)[None]
    for seed in range(6):
        lq = Degradation.parse("realesrgan", 2)(gt, seed=seed)
        assert lq.shape == (1, 3, size[0] // 2, size[1] // 2) and lq.isfinite().all()
