"""faigfast against the authors' algorithm in `cases.networks.authors_scores`."""

import numpy as np
import pytest
import torch
from cases.networks import authors_scores, images, pair
from skimage import data

from faigfast import attribute
from faigfast.data.degradations import Degradation
from faigfast.zoo import SRCNNStyle, SRResNet


def blurred_and_noisy(n, size, scale, dtype, seed=0):
    """(blur, noise, gt) from smooth random images."""
    generator = torch.Generator().manual_seed(seed)
    gt = torch.rand(n, 3, size // 2, size // 2, generator=generator, dtype=torch.float64)
    gt = torch.nn.functional.interpolate(gt, size=(size * scale,) * 2, mode="bilinear")
    clean = torch.nn.functional.interpolate(gt, size=(size, size), mode="bilinear")
    blur = torch.nn.functional.avg_pool2d(clean, 3, 1, 1, count_include_pad=False)
    noise = clean + 0.1 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return blur.to(dtype), noise.to(dtype), gt.to(dtype)


def authors_contrast(make, baseline, target, blur, noise, gt, steps=100):
    """Mean over images of FAIG(blur) - FAIG(noise), one image at a time, averaged by NumPy."""
    scores = {"blur": [], "noise": []}
    for n in range(len(gt)):
        for name, x in (("blur", blur), ("noise", noise)):
            scores[name].append(
                authors_scores(make, baseline, target, x[n : n + 1], gt[n : n + 1], steps)
            )
    stacked = {name: torch.stack(parts) for name, parts in scores.items()}
    average = sum(
        (b - n).numpy() for b, n in zip(stacked["blur"], stacked["noise"], strict=True)
    ) / len(gt)
    return stacked, average


def assert_parity(make, baseline, target, batch, scores_within, contrast_within, overlap=None):
    blur, noise, gt = batch
    expected, contrast = authors_contrast(
        make, baseline.state_dict(), target.state_dict(), blur, noise, gt
    )
    result = attribute(
        baseline,
        target,
        {"lq": {"blur": blur, "noise": noise}, "gt": gt},
        rule="left",
        steps=100,
        backend="reference",
    )
    assert result.evaluations == 100
    for name in ("blur", "noise"):
        scores = result.scores(name)
        distance = (scores - expected[name]).abs().sum(1) / expected[name].sum(1)
        assert distance.max() <= scores_within, name
    blur_contrast = result.contrast("blur").numpy()
    assert np.abs(blur_contrast - contrast).sum() <= contrast_within * np.abs(contrast).sum()
    assert np.array_equal(result.contrast("noise").numpy(), -blur_contrast)
    for name, sign in (("blur", 1), ("noise", -1)):
        ranking = result.top(name, 1.0).indices.numpy()
        theirs = np.argsort(sign * contrast)[::-1]
        if overlap is None:
            # Filters that differ only by rounding may come in either order.
            gap = np.abs(contrast[ranking] - contrast[theirs])
            assert gap.max() <= 1e-12 * np.abs(contrast).max()
        for share in (0.01, 0.03, 0.1):
            count = max(1, int(share * len(theirs)))
            # The authors' contrast of our filters and of theirs; unreached filters tie at zero.
            ours, best = ((sign * contrast)[order[:count]].sum() for order in (ranking, theirs))
            assert ours >= best * (1 - contrast_within)
        count = max(1, int(0.01 * len(theirs)))
        common = set(ranking[:count].tolist()) & set(theirs[:count].tolist())
        assert len(common) >= (overlap or 1) * count
    return result


CASES = {
    "srresnet x2": (lambda: SRResNet(width=6, blocks=2, scale=2), 2),
    "srresnet x3": (lambda: SRResNet(width=4, blocks=1, scale=3), 3),
    "srresnet x4": (lambda: SRResNet(width=4, blocks=1, scale=4), 4),
    "srcnn-style": (lambda: SRCNNStyle(widths=(6, 8), scale=2), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_float64_to_1e_10(case):
    make, scale = CASES[case]
    baseline, target = pair(make)
    batch = blurred_and_noisy(2 if scale == 2 else 1, 6, scale, torch.float64)
    result = assert_parity(make, baseline, target, batch, 1e-10, 1e-10)
    assert (result.scores("blur").sum(1) > 0).all()


@pytest.mark.parametrize("case", ["srresnet x2", "srcnn-style"])
def test_float32_to_rounding(case):
    make, scale = CASES[case]
    baseline, target = pair(make, torch.float32)
    batch = blurred_and_noisy(2, 6, scale, torch.float32)
    assert_parity(make, baseline, target, batch, 2e-4, 2e-3, overlap=0.9)


def test_the_other_rules_are_not_the_authors():
    make, scale = CASES["srresnet x2"]
    baseline, target = pair(make)
    x, _, gt = blurred_and_noisy(1, 8, scale, torch.float64)
    expected = authors_scores(make, baseline.state_dict(), target.state_dict(), x, gt, 10)
    for rule in ("right", "midpoint", "trapezoid", "gauss-legendre"):
        other = attribute(baseline, target, (x, gt), rule=rule, steps=10).scores()[0]
        assert (other - expected).abs().sum() > 1e-3 * expected.sum()


def test_sources_of_the_difference_between_one_backward_and_many():
    """One backward of a batch does not give the authors' mean over images."""
    make, scale = CASES["srresnet x2"]
    baseline, target = pair(make)
    blur, _, gt = blurred_and_noisy(4, 8, scale, torch.float64)
    one_by_one = attribute(baseline, target, (blur, gt), rule="left", steps=5).scores().sum(0)
    together = authors_scores(make, baseline.state_dict(), target.state_dict(), blur, gt, 5)
    assert (one_by_one >= together * (1 - 1e-12)).all()
    assert (one_by_one - together).sum() > 0.01 * one_by_one.sum()


def test_a_state_dict_of_images_with_one_channel():
    def make():
        return SRCNNStyle(widths=(4, 4), scale=2, in_channels=1, out_channels=1)

    baseline, target = pair(make)
    x, gt = images(1, 1, (3, 4))[0], images(1, 1, (6, 8))[1]
    expected = authors_scores(make, baseline.state_dict(), target.state_dict(), x, gt)
    result = attribute(baseline, target, (x, gt), rule="left", steps=100)
    torch.testing.assert_close(result.scores()[0], expected, rtol=1e-10, atol=1e-14)


def photographs(dtype, side, count):
    """Crops of photographs, blurred and noisy by the paper's recipe: (blur, noise, gt)."""
    sources = ((data.chelsea(), 100, 120), (data.astronaut(), 60, 180))
    crops = [image[top : top + side, left : left + side] for image, top, left in sources[:count]]
    gt = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).double() / 255
    blur, noise = (Degradation.parse(text)(gt, seed=1) for text in ("blur=2", "noise=0.1"))
    return blur.to(dtype), noise.to(dtype), gt.to(dtype)


def wide():
    return SRResNet(width=32, blocks=8, scale=2)


@pytest.fixture(scope="module")
def trained():
    """The package's trained pair, since random weights hide errors."""
    from faigfast.zoo.pairs import shipped_pair

    return shipped_pair()


def test_trained_pair_in_float64(trained):
    nets = [wide().double() for _ in trained]
    for net, source in zip(nets, trained, strict=True):
        net.load_state_dict(source.state_dict())
    result = assert_parity(wide, *nets, photographs(torch.float64, 16, 1), 1e-10, 1e-10)
    assert (result.losses[:, :, 1] < result.losses[:, :, 0]).all(), "the target restores"


@pytest.mark.slow
def test_trained_pair_in_float32(trained):
    assert_parity(wide, *trained, photographs(torch.float32, 32, 2), 2e-3, 5e-3, overlap=0.95)


def test_ten_midpoints_do_the_work_of_the_authors_hundred(trained):
    blur, noise, gt = photographs(torch.float32, 48, 2)
    batch = {"lq": {"blur": blur, "noise": noise}, "gt": gt}
    fine = attribute(*trained, batch, steps=50)
    few = attribute(*trained, batch, steps=10)
    assert few.completeness.max() < 0.05
    for name in ("blur", "noise"):
        exact = fine.scores(name)
        distance = (few.scores(name) - exact).abs().sum(1) / exact.sum(1)
        assert distance.max() < 0.05
        theirs, ours = (set(r.top(name, 0.01).indices.tolist()) for r in (fine, few))
        assert len(theirs & ours) >= 0.95 * len(theirs)
