"""SSIM, the difference of outputs, and intervals over photographs."""

import copy

import numpy as np
import pytest
import torch
from cases.analysis import study_parts  # noqa: F401
from skimage.color import rgb2ycbcr
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from faigfast.analysis.evaluation import evaluate, measure, over_photographs, restore
from faigfast.analysis.metrics import gradient_map, output_difference, ssim
from faigfast.data.degradations import round_to_8_bit


def noisy_pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    gt = round_to_8_bit(F.avg_pool2d(torch.rand(2, 3, 30, 37, generator=generator), 3, 1, 1))
    return round_to_8_bit(gt + 0.05 * torch.randn(gt.shape, generator=generator)), gt


@pytest.mark.parametrize("border", [0, 3])
@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_ssim_is_skimages(border, channel):
    output, gt = noisy_pair()
    inner = (slice(border, 30 - border), slice(border, 37 - border))
    for n, value in enumerate(ssim(output, gt, border=border, channel=channel).tolist()):
        a, b = (x[n].permute(1, 2, 0).double().numpy()[inner] for x in (output, gt))
        if channel == "y":
            a, b = (rgb2ycbcr(x)[..., :1] / 255 for x in (a, b))
        expected = structural_similarity(
            a, b, data_range=1.0, gaussian_weights=True, use_sample_covariance=False, channel_axis=2
        )
        assert value == pytest.approx(expected, abs=2e-4)


def test_ssim_of_equal_images_is_one_and_small_ones_are_refused():
    _, gt = noisy_pair()
    assert ssim(gt, gt).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(ValueError, match="border 10 leaves \\[10, 17\\] of an image \\[30, 37\\]"):
        ssim(gt, gt, border=10)


def authors_map(image):
    """The published steps on one RGB image [3, H, W], written out."""
    bgr = np.round(image.flip(0).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    x = np.repeat(bgr.astype(np.float32) / 255, 3, axis=2)  # the authors repeat the channels
    x = torch.from_numpy(x).permute(2, 0, 1)[None, :3]
    v = torch.tensor([[0.0, -1, 0], [0, 0, 0], [0, 1, 0]]).expand(3, 1, 3, 3)
    maps = [F.conv2d(x, k, padding=1, groups=3) for k in (v, v.transpose(2, 3).contiguous())]
    return (maps[0] ** 2 + maps[1] ** 2 + 1e-6).sqrt()


def test_output_difference_in_the_authors_form():
    one, other = noisy_pair()
    for n, value in enumerate(output_difference(one, other, form="authors").tolist()):
        a, b = authors_map(one[n]), authors_map(other[n])
        assert value == pytest.approx(1000 * float(((a - b) ** 2).mean()), rel=1e-5)


def test_output_difference_on_gray():
    one, other = noisy_pair()
    gray = one.clone()
    gray[:] = (one * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    rounded = round_to_8_bit(gray)
    # Both forms agree for a gray image.
    torch.testing.assert_close(gradient_map(rounded), gradient_map(rounded, "authors"))
    assert (output_difference(one, one) == 0).all()
    assert (output_difference(one, other) > 0).all()
    with pytest.raises(ValueError, match="form is 'grey'"):
        output_difference(one, other, form="grey")


def test_measure_restores_once_and_agrees_with_evaluate(study_parts):  # noqa: F811
    (_, target), _, kept, _ = study_parts
    calls = []
    counting = copy.deepcopy(target)
    counting.register_forward_hook(lambda *_: calls.append(1))
    reference = {name: restore(target, lq) for name, lq in kept.lq.items()}
    values = measure(
        counting, kept, border=2, metrics=("psnr", "ssim", "difference"), reference=reference
    )
    assert len(calls) == len(kept.lq) * -(-len(kept.names) // 8)
    for name, expected in evaluate(target, kept, border=2).items():
        assert torch.equal(values["psnr"][name], expected)
        assert (values["difference"][name] < 1e-6).all()
    with pytest.raises(ValueError, match="metric is 'lpips'"):
        measure(target, kept, border=2, metrics=("lpips",))


def test_intervals_over_photographs_are_students():
    values = torch.tensor([1.0, 3.0, 4.0, 6.0, 0.0])
    mean, half, positive, count = over_photographs(values, ["a", "a", "b", "b", "c"])
    means = torch.tensor([2.0, 5.0, 0.0])
    assert mean == pytest.approx(float(means.mean()))
    assert half == pytest.approx(4.302653 * float(means.std()) / 3**0.5)
    assert (positive, count) == (2, 3)
    assert np.isnan(over_photographs(values, ["a"] * 5)[1])
