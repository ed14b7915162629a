"""Findings about networks that lose pixels: crops with padding, and training patches that fit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from faigfast.analysis.evaluation import Crops, crops, evaluate, evenly_spaced, measure, restore
from faigfast.analysis.fitted_patches import FittedPatches
from faigfast.analysis.masking import mask
from faigfast.analysis.metrics import psnr
from faigfast.analysis.modulation import modulated_images
from faigfast.analysis.prediction import own_output_scores
from faigfast.analysis.study import Study, study_identity
from faigfast.data.degradations import Degradation
from faigfast.data.patches import Patches


class Valid(nn.Module):
    """×2, loses 6 pixels of its input."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.up = nn.ConvTranspose2d(4, 3, 4, 2, 3)

    def forward(self, x):
        return self.up(F.leaky_relu(self.first(x), 0.1))


class Padded(nn.Module):
    """The same, with its padding inside."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        y = self.network(F.pad(x, [3] * 4, mode="reflect"))
        trim = (y.shape[-1] - 2 * x.shape[-1]) // 2
        return y[..., trim:-trim, trim:-trim] if trim else y


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    baseline = Valid()
    target = copy.deepcopy(baseline)
    with torch.no_grad():
        for parameter in target.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return baseline, target


@pytest.fixture(scope="module")
def data():
    images = {"one": torch.rand(3, 32, 48), "two": torch.rand(3, 32, 32)}
    recipes = {"blur": Degradation(blur=0.5), "noise": Degradation(noise=0.1)}
    cut = crops(images, recipes, 16)
    return Crops(cut.lq, cut.gt, cut.names, pad=3)


def test_parts_keep_the_padding(data):
    every = slice(0, None, 2)
    for part in (data.part(every), data.without(every), data.at([0, 1]), evenly_spaced(data, 2)):
        assert part.pad == 3 and len(part.names) < len(data.names)


def test_measurements_are_those_of_a_network_that_pads(pair, data):
    plain = Crops(data.lq, data.gt, data.names)
    network = Padded(pair[1])
    for name, values in evaluate(pair[1], data, border=1).items():
        assert torch.equal(values, psnr(restore(network, data.lq[name]), data.gt, border=1))
    one = measure(pair[1], data, border=1, reference={n: data.gt for n in data.lq})
    assert one["psnr"].keys() == data.lq.keys()
    with pytest.raises(ValueError, match="expected one"):
        evaluate(pair[1], plain, border=1)


def test_restored_images_are_the_own_part_of_the_output(pair, data):
    lq = data.lq["blur"][:2]
    expected = Padded(pair[0])(lq)
    torch.testing.assert_close(restore(pair[0], lq, 3), expected)
    torch.testing.assert_close(restore(pair[0], lq, 3, (16, 16)), expected)


def test_masking_a_study(pair, data):
    options = {"pad": data.pad, "backend": "cpu"}
    study = Study(*pair, data, data, border=1, steps=2, options=options)
    result = study.attribution()
    assert result.setting.pad == 3
    masking = mask(*pair, result, data, border=1, fractions=(0.2,), metrics=("psnr", "difference"))
    assert masking.target["blur"].shape == (len(data.names),)
    assert study_identity(*pair, data, data)["pad"] == 3
    sets = {c.name: c.top(result, 0.2) for c in study.contrasts}
    strengths = [{name: 0.5 for name in sets}]
    (image,) = modulated_images(*pair, sets, data.lq["blur"][:1], strengths, 3)
    assert image.shape == (3, 16, 16)


def test_prediction(pair, data):
    shares = own_output_scores(*pair, data.lq["noise"][:2], steps=2, pad=3)
    expected = own_output_scores(*map(Padded, pair), data.lq["noise"][:2], steps=2)
    torch.testing.assert_close(shares, expected, rtol=1e-4, atol=1e-7)


def test_patches_fit_the_output(pair):
    images = [torch.rand(3, 64, 64)]
    patches = Patches(images, scale=2, patch=12, noise=(0.1,), probability=1.0)
    fitted = FittedPatches(patches, pair[0])
    lq, gt = fitted.batch(2, 5)
    whole = patches.batch(2, 5)
    assert torch.equal(lq, whole[0]) and torch.equal(gt, whole[1][..., 4:-4, 4:-4])
    assert pair[0](lq).shape == gt.shape == (2, 3, 16, 16)
    same = FittedPatches(patches, _Twice())
    assert torch.equal(same.batch(1, 0)[1], patches.batch(1, 0)[1])
    with pytest.raises(ValueError, match=r"makes \[1, 3, 36, 36\] of a patch \[1, 3, 12, 12\]"):
        FittedPatches(patches, _Twice(3))
    small = Patches(images, scale=2, patch=2)
    with pytest.raises(ValueError, match=r"does not take a patch \[1, 3, 2, 2\]"):
        FittedPatches(small, pair[0])


class _Twice(nn.Module):
    def __init__(self, factor=2):
        super().__init__()
        self.factor, self.weight = factor, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.weight * F.interpolate(x, scale_factor=self.factor)


def test_errors_of_a_degradation_name_the_photograph():
    with pytest.raises(ValueError, match=r"photograph 'tiny': .* too small"):
        crops({"tiny": torch.rand(3, 8, 8)}, {"blur": Degradation(blur=2.0)}, 8)
