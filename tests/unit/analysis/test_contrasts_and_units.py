"""Contrasts, the overlap of sets, and units larger than a kernel."""

import copy

import pytest
import torch
from cases.analysis import study_parts  # noqa: F401
from torch import nn

from faigfast.analysis.contrasts import Contrast, check_contrasts, overlap
from faigfast.analysis.swap_units import output_channels, swap_unit_numbers, top_swap_units
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex


def test_contrasts_are_read_and_checked(study_parts):  # noqa: F811
    *_, result = study_parts
    assert Contrast.parse("blur:") == Contrast("blur:", "blur", ())
    named = Contrast.parse("mine = blur : noise, clean".replace(" = ", "=").replace(" : ", ":"))
    assert named == Contrast("mine", "blur", ("noise", "clean"))
    assert torch.equal(named.scores(result), result.contrast("blur"))
    assert torch.equal(Contrast.parse("blur:").scores(result), result.mean("blur"))
    for text, words in (
        ("fog", "names the degradation 'fog'"),
        ("blur:fog", "names the degradation 'fog'"),
        ("blur:blur", "against itself"),
    ):
        with pytest.raises(ValueError, match=words):
            check_contrasts([Contrast.parse(text)], result.degradations)
    with pytest.raises(ValueError, match="given twice"):
        check_contrasts([Contrast.parse("blur")] * 2, result.degradations)
    with pytest.raises(ValueError, match="expected \\[NAME=\\]"):
        Contrast.parse("a:b:c")


def test_overlap_of_sets(study_parts):  # noqa: F811
    *_, result = study_parts
    one = result.top("blur", 0.1)
    half = one[: len(one) // 2]
    shares = overlap({"one": one, "half": half})
    expected = [[1.0, len(half) / len(one)], [1.0, 1.0]]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64))
    other = FilterSet(one.indices, one.total, "0" * 16)
    with pytest.raises(ValueError, match="belong to the networks"):
        overlap({"one": one, "other": other})


@pytest.mark.parametrize("groups", [1, 2])
def test_output_channels_of_every_kind_of_layer(groups):
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=groups),
        nn.ConvTranspose2d(6, 4, 3, groups=groups),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 2, 1)),
    )
    index = FilterIndex.of(net)
    channels = output_channels(net, index)
    x = torch.rand(1, 4, 7, 7)
    before = [x]
    for layer in net:
        before.append(layer(before[-1]))
    for n, key in enumerate(list(channels)[:2]):
        for flat, expected in enumerate(channels[key].tolist()):
            layer = copy.deepcopy(net[n])
            row, column = divmod(flat, layer.weight.shape[1])
            with torch.no_grad():
                layer.weight[row, column] += 1
            moved = (layer(before[n]) - before[n + 1]).abs().amax((0, 2, 3)) > 1e-6
            assert moved.nonzero().flatten().tolist() == [expected]
    assert len(channels) == 3 and len(channels[index.layers[2]]) == 8


def test_units_are_whole_and_best_first(study_parts):  # noqa: F811
    (_, target), *_, result = study_parts
    blur = Contrast("blur", "blur")
    kernels = top_swap_units(target, result, blur, 0.2, "kernel")
    assert torch.equal(kernels.indices, result.top("blur", 0.2).indices)
    score = result.contrast("blur")
    for by in ("channel", "layer"):
        unit = swap_unit_numbers(target, result.index, by)
        chosen = top_swap_units(target, result, blur, 0.2, by)
        assert len(chosen) <= len(kernels) or len(unit[chosen.indices].unique()) == 1
        picked = unit[chosen.indices].unique_consecutive()
        assert len(picked.unique()) == len(picked)
        for number in picked.tolist():
            assert torch.isin((unit == number).nonzero().flatten(), chosen.indices).all()
        means = torch.stack([score[unit == n].mean() for n in range(int(unit.max()) + 1)])
        assert torch.equal(picked, means.argsort(descending=True, stable=True)[: len(picked)])
    assert len(swap_unit_numbers(target, result.index, "layer").unique()) == len(
        result.index.layers
    )
    with pytest.raises(ValueError, match="by is 'pixel'"):
        swap_unit_numbers(target, result.index, "pixel")
