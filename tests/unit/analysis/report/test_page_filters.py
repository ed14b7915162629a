"""The filter browser holds the weights, scores and ranks of the pair, within a size."""

import base64
from dataclasses import replace

import pytest
import torch
from cases.analysis import study_parts  # noqa: F401
from cases.attributions import made
from torch import nn

from faigfast.analysis.contrasts import one_against_rest
from faigfast.analysis.report.filter_browser import LEVELS, browse_filters
from faigfast.filters.index import FilterIndex


def numbers(text, dtype):
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=dtype)


def test_weights_scores_and_ranks_of_every_layer(study_parts):  # noqa: F811
    (baseline, target), _, _, result = study_parts
    contrasts = one_against_rest(result.degradations)
    browser = browse_filters(baseline, target, result, contrasts)
    assert browser.note == "" and len(browser.layers) == len(result.index.layers)
    ranking = contrasts[0].ranking(result).indices
    for n, layer in enumerate(browser.layers):
        weight = target.state_dict()[result.index.layers[n]]
        shape = (layer["out"], layer["in"], layer["height"], layer["width"])
        after = numbers(layer["after"], torch.int16).view(shape).float() * layer["scale"] / LEVELS
        assert float((after - weight).abs().max()) <= layer["scale"] / LEVELS
        part = slice(result.index.offsets[n], result.index.offsets[n + 1])
        scores = numbers(layer["scores"]["blur"], torch.float32)
        torch.testing.assert_close(scores, result.mean("blur")[part].float())
        ranks = numbers(layer["ranks"]["blur"], torch.int32).tolist()
        assert ranks == [ranking.tolist().index(k) + 1 for k in range(part.start, part.stop)]
    place, row, column = browser.top["blur"][0]
    assert result.index.locate(int(ranking[0])) == (result.index.layers[place], row, column)


def test_a_size_keeps_the_layers_of_the_best_filters(study_parts):  # noqa: F811
    nets, _, _, result = study_parts
    contrasts = one_against_rest(result.degradations)
    every = browse_filters(*nets, result, contrasts)
    small = browse_filters(*nets, result, contrasts, most_bytes=6000)
    assert 0 < len(small.layers) < len(every.layers)
    left_out = len(every.layers) - len(small.layers)
    assert small.note.startswith(f"{left_out} of {len(every.layers)} layers are left out")
    assert all(place < len(small.layers) for places in small.top.values() for place, *_ in places)
    assert browse_filters(*nets, result, contrasts, most_bytes=0).layers == []


@pytest.mark.parametrize(
    ("conv", "height", "width"), [(nn.Conv1d(1, 2, 3), 1, 3), (nn.Conv3d(1, 2, (2, 3, 4)), 3, 8)]
)
def test_kernels_of_other_dimensions_are_flat(conv, height, width):
    net = nn.Sequential(conv)
    index = FilterIndex.of(net)
    result = replace(made({"a": [[1.0, 2.0]], "b": [[2.0, 0.0]]}, index=index))
    browser = browse_filters(net, net, result, one_against_rest(result.degradations))
    assert (browser.layers[0]["height"], browser.layers[0]["width"]) == (height, width)
