"""Objectives by name: values by other libraries, gradients, shapes, and the engine's scores."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import faigfast
from faigfast.integration.image_losses import SSIM_WINDOW
from faigfast.integration.objective import OBJECTIVES, is_ours, resolve_objective

NAMES = tuple(OBJECTIVES)
SHAPES = [(3, 2, 17), (2, 3, 13, 19), (2, 1, 7, 8, 9)]
SIDE_BY_SIDE = {"squared_error", "absolute_error", "charbonnier", "gradient", "laplacian"}


def images(shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))


def by_numpy(name, a, b):
    """One image's loss in numpy and SciPy."""
    ndimage = pytest.importorskip("scipy.ndimage")
    d = a - b
    axes = range(1, d.ndim)
    if name == "squared_error":
        return (d**2).sum()
    if name == "absolute_error":
        return np.abs(d).sum()
    if name == "charbonnier":
        return np.sqrt(d**2 + 1e-6).sum()
    if name == "gradient":
        return sum(np.abs(np.diff(a, axis=n) - np.diff(b, axis=n)).sum() for n in axes)
    inner = tuple([slice(1, -1)] * (d.ndim - 1))
    maps = [[ndimage.laplace(channel)[inner] for channel in image] for image in (a, b)]
    return np.abs(np.subtract(*maps)).sum()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", sorted(SIDE_BY_SIDE))
def test_values_are_those_of_numpy_and_scipy(name, shape):
    output, gt = images(shape)
    values = OBJECTIVES[name](output, gt)
    expected = [by_numpy(name, a.numpy(), b.numpy()) for a, b in zip(output, gt, strict=True)]
    assert values.shape == (shape[0],)
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 24, 31), (1, 1, 11, 11), (2, 4, 40, 12)], ids=str)
def test_ssim_is_that_of_torchmetrics_and_of_skimage(shape):
    metrics = pytest.importorskip("torchmetrics.functional.image")
    skimage = pytest.importorskip("skimage.metrics")
    gt, noise = images(shape)
    output = (gt + 0.2 * (noise - 0.5)).clamp(0, 1)
    values = OBJECTIVES["ssim"](output, gt)
    _, maps = metrics.structural_similarity_index_measure(
        output, gt, data_range=1.0, reduction="none", return_full_image=True
    )
    edge = SSIM_WINDOW // 2
    expected = 1 - maps[..., edge:-edge, edge:-edge].flatten(1).mean(1)
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)
    for one, x, y in zip(values, output.numpy(), gt.numpy(), strict=True):
        other = skimage.structural_similarity(
            x, y, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip
        assert 1 - float(one) == pytest.approx(other, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_equal_images_have_the_least_loss_with_a_finite_gradient(name, dtype):
    gt, other = images((2, 3, 13, 12), dtype)
    output = gt.clone().requires_grad_()
    least = OBJECTIVES[name](output, gt)
    (gradient,) = torch.autograd.grad(least.sum(), output)
    assert gradient.isfinite().all() and least.dtype == dtype
    expected = 1e-3 * gt[0].numel() if name == "charbonnier" else 0
    torch.testing.assert_close(
        least.detach(), torch.full_like(least, expected), rtol=1e-4, atol=1e-5
    )
    assert (OBJECTIVES[name](other, gt) > least).all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    output, gt = images((2, 2, 11, 12))
    assert torch.autograd.gradcheck(lambda x: OBJECTIVES[name](x, gt), output.requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_its_own_loss(name):
    output, gt = images((3, 2, 12, 14))
    together = OBJECTIVES[name](output, gt)
    apart = [OBJECTIVES[name](output[n : n + 1], gt[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(together, torch.cat(apart))


def test_gradient_and_laplacian_do_not_see_what_they_say():
    gt, _ = images((1, 1, 9, 8))
    ramp = torch.arange(8.0, dtype=torch.float64)
    assert OBJECTIVES["gradient"](gt + 0.3, gt).item() == pytest.approx(0, abs=1e-12)
    assert OBJECTIVES["laplacian"](gt + ramp, gt).item() == pytest.approx(0, abs=1e-10)
    assert OBJECTIVES["gradient"](gt + ramp, gt).item() == pytest.approx(9 * 7)


def test_a_side_of_one_pixel_has_no_differences():
    output, gt = images((2, 1, 1, 9))
    expected = (output - gt).diff(dim=3).abs().flatten(1).sum(1)
    torch.testing.assert_close(OBJECTIVES["gradient"](output, gt), expected)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("gradient", (1, 3, 1, 1), "objective 'gradient' gets images \\[1, 3, 1, 1\\]"),
        ("gradient", (1, 3), "two pixels along one axis"),
        ("laplacian", (1, 3, 2, 8), "sides of three pixels or more"),
        ("laplacian", (1, 3), "objective 'laplacian'"),
        ("ssim", (1, 3, 10, 40), "sides of 11 pixels or more"),
        ("ssim", (1, 3, 40), "objective 'ssim' gets images \\[1, 3, 40\\]"),
        ("ssim", (1, 3, 12, 12, 12), "expected \\[B, C, H, W\\]"),
    ],
)
def test_images_without_such_a_loss_are_refused(name, shape, words):
    with pytest.raises(ValueError, match=words):
        OBJECTIVES[name](*images(shape))


@pytest.mark.parametrize("name", NAMES)
def test_other_outputs_are_refused(name):
    gt, _ = images((1, 3, 16, 16))
    with pytest.raises(ValueError, match="gt does not fit"):
        OBJECTIVES[name](gt[..., :15], gt)
    with pytest.raises(TypeError, match="the network returns a tuple"):
        OBJECTIVES[name]((gt,), gt)


@pytest.mark.parametrize("name", NAMES)
def test_threads_may_call_it(name):
    assert is_ours(OBJECTIVES[name]) and resolve_objective(name) == (name, OBJECTIVES[name])
    pairs = [tuple(images((1, 2, 16, 16), seed=n)) for n in range(12)]
    expected = [OBJECTIVES[name](*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: OBJECTIVES[name](*pair), pairs))
    assert all(torch.equal(a, b) for a, b in zip(expected, together, strict=True))


def pair_of(dimensions):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dimensions - 1]

    def network(seed):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            layers = convolution(2, 3, 3, padding=1), nn.ReLU(), convolution(3, 2, 3, padding=1)
            return nn.Sequential(*layers)

    return network(0), network(1)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize(
    ("name", "dimensions"),
    [(name, d) for name in NAMES for d in (1, 2, 3) if name != "ssim" or d == 2],
)
def test_the_engine_gives_the_loops_scores(name, dimensions, backend):
    x, gt = images((2, 2, *[(14,), (12, 13), (5, 6, 7)][dimensions - 1]), torch.float32)
    pair = pair_of(dimensions)
    options = {"objective": name, "steps": 3}
    result = faigfast.attribute(*pair, (x, gt), backend=backend, **options)
    expected = faigfast.attribute(*pair, (x, gt), backend="reference", **options)
    assert result.setting.objective == name and result.backend != "reference"
    torch.testing.assert_close(result.losses, expected.losses, rtol=1e-5, atol=1e-6)
    scores, reference = result.by_degradation["lq"], expected.by_degradation["lq"]
    assert float((scores - reference).norm() / reference.norm()) < 1e-4
    assert not any("point by point" in text for text in result.notes), result.notes


@pytest.mark.parametrize("name", NAMES)
def test_a_smooth_objective_is_complete_and_acts_on_the_middle(name):
    x, gt = images((1, 2, 15, 15))
    pair = [net.double() for net in pair_of(2)]
    result = faigfast.attribute(*pair, (x, gt), objective=name, steps=400, pad=2)
    padded = nn.functional.pad(x, (2,) * 4, mode="reflect")
    with torch.no_grad():
        losses = [float(OBJECTIVES[name](net(padded)[..., 2:-2, 2:-2], gt)) for net in pair]
    assert result.losses[0, 0].tolist() == pytest.approx(losses, rel=1e-9)
    assert math.isfinite(float(result.completeness.max()))
    assert float(result.completeness.max()) < 0.02


def test_names_are_offered_when_one_is_unknown():
    with pytest.raises(ValueError, match="charbonnier, gradient, laplacian, ssim, or a function"):
        resolve_objective("ms_ssim")
