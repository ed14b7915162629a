import copy
import math

import pytest
import torch
from cases.analysis import study_parts  # noqa: F401

from faigfast.analysis.data_frames import text_table
from faigfast.analysis.evaluation import measure
from faigfast.analysis.modulation import modulate, modulated, modulated_images
from faigfast.analysis.report.figures import modulation_curves
from faigfast.analysis.report.paper import svg
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex


@pytest.fixture(scope="module")
def sets(study_parts):  # noqa: F811
    *_, result = study_parts
    return {name: result.top(name, 0.2) for name in ("blur", "noise")}


def equal(one, other):
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_one_is_the_target_and_zero_masks(study_parts, sets):  # noqa: F811
    (baseline, target), *_ = study_parts
    assert equal(modulated(baseline, target, sets, {"blur": 1.0}), target)
    masked = modulated(baseline, target, sets, {"blur": 0.0})
    assert equal(masked, sets["blur"].swap(baseline, target))
    assert equal(modulated(baseline, target, sets, {}), target)
    assert modulated(baseline, target, sets, {}) is not target


def test_filters_of_two_sets_take_the_product(study_parts):  # noqa: F811
    (baseline, target), *_ = study_parts
    sets = {"a": FilterSet(torch.arange(4)), "b": FilterSet(torch.arange(2, 6))}
    key = next(iter(target.state_dict()))
    net = modulated(baseline, target, sets, {"a": 0.5, "b": 1.5})
    low, high, mixed = (n.state_dict()[key].flatten(0, 1) for n in (baseline, target, net))
    for flat, strength in enumerate([0.5, 0.5, 0.75, 0.75, 1.5, 1.5, 1.0]):
        expected = low[flat] + strength * (high[flat] - low[flat])
        torch.testing.assert_close(mixed[flat], expected)


def test_biases_move_with_whole_channels(study_parts):  # noqa: F811
    nets, _, kept, _ = study_parts
    baseline, target = nets
    every = {"all": FilterSet(torch.arange(len(FilterIndex.of(target))))}
    assert equal(modulated(*nets, every, {"all": 0.0}, biases=True), baseline)
    assert not equal(modulated(*nets, every, {"all": 0.0}), baseline)
    half = modulated(*nets, every, {"all": 0.5}, biases=True).state_dict()["conv_first.bias"]
    mean = (baseline.conv_first.bias + target.conv_first.bias) / 2
    torch.testing.assert_close(half, mean.detach())
    curve = modulate(*nets, every, kept, strengths=(0, 1), border=2, biases=True)
    expected = measure(baseline, kept, border=2)["psnr"]["blur"]
    assert torch.equal(curve.find(all=0)["psnr"]["blur"], expected)
    without = modulate(*nets, every, kept, strengths=(0, 1), border=2)
    assert not torch.equal(without.find(all=0)["psnr"]["blur"], expected)
    (image,) = modulated_images(*nets, every, kept.lq["blur"][:1], [{"all": 0.0}], biases=True)
    with torch.no_grad():
        assert torch.equal(image, baseline(kept.lq["blur"][:1])[0])


def test_curves_and_grids_are_measurements(study_parts, sets):  # noqa: F811
    nets, _, kept, _ = study_parts
    one = modulate(*nets, sets, kept, strengths=(0, 0.5, 1, 1.5), border=2)
    assert len(one.strengths) == 7  # strength 1 of both sets is one network
    strengths, values = one.curve("noise")
    assert strengths == [0, 0.5, 1, 1.5]
    expected = measure(sets["noise"].swap(*nets, 0.5), kept, border=2)["psnr"]
    assert torch.equal(values[1]["psnr"]["blur"], expected["blur"])
    assert torch.equal(one.find(noise=0.5)["psnr"]["blur"], expected["blur"])
    grid = modulate(*nets, sets, kept, strengths=(0.5, 1), together=True, border=2)
    assert grid.strengths == ((0.5, 0.5), (0.5, 1), (1, 0.5), (1, 1))
    assert torch.equal(grid.find(noise=0.5)["psnr"]["blur"], expected["blur"])
    rows = grid.to_frame()
    assert len(rows) == 4 * 3 and {"strength_blur", "strength_noise"} < set(rows.columns)
    assert text_table(rows)[0] == ["strength of blur", "strength of noise", "input", "PSNR, dB"]
    assert svg(modulation_curves(one)).startswith("<svg")


def test_images_follow_the_strength(study_parts, sets):  # noqa: F811
    nets, _, kept, _ = study_parts
    lq = kept.lq["blur"][:1]
    images = modulated_images(*nets, sets, lq, [{"blur": s} for s in (0, 1)])
    with torch.no_grad():
        torch.testing.assert_close(images[1], nets[1](lq)[0])
    assert not torch.allclose(images[0], images[1])


@pytest.mark.parametrize("strength", [math.nan, math.inf, "1", True])
def test_strengths_that_are_refused(study_parts, sets, strength):  # noqa: F811
    nets, _, kept, _ = study_parts
    with pytest.raises(ValueError, match="expected a finite number"):
        modulated(*nets, sets, {"blur": strength})
    with pytest.raises(ValueError, match="expected a finite number"):
        modulate(*nets, sets, kept, strengths=(0, strength), border=2)


def test_strengths_whose_weights_overflow_are_refused(study_parts, sets):  # noqa: F811
    nets = study_parts[0]
    with pytest.raises(ValueError, match=r"strength of 'blur' is 1e\+300; expected at most 1e\+09"):
        modulated(*nets, sets, {"blur": 1e300})
    halves = [copy.deepcopy(net).half() for net in nets]
    with pytest.raises(ValueError, match=r"weights at the strengths 'blur' 1e\+08 are not finite"):
        modulated(*halves, sets, {"blur": 1e8})


def test_names_without_a_set_are_refused(study_parts, sets):  # noqa: F811
    nets, _, kept, _ = study_parts
    with pytest.raises(ValueError, match="strength of 'fog'; expected some of blur, noise"):
        modulated(*nets, sets, {"fog": 1.0})
    with pytest.raises(ValueError, match="empty"):
        modulate(*nets, {}, kept, border=2)
