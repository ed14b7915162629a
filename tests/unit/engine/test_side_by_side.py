"""Networks whose convolutions take computed weights."""

import pytest
import torch
from cases.networks import images, pair
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from faigfast import attribute
from faigfast.integration.cautions import without_cautions


def normed(convolution):
    return weight_norm(convolution)


def network(*wrap):
    first, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)
    wrappers = dict(zip((0, 1), wrap, strict=True))
    return nn.Sequential(wrappers[0](first), nn.Tanh(), wrappers[1](last))


def plain(convolution):
    return convolution


NOTE = "aten.conv2d.default runs sample by sample: computed weights"


@pytest.mark.parametrize(
    "wraps, notes", [((normed, normed), ()), ((normed, plain), (NOTE,)), ((plain, plain), ())]
)
def test_computed_weights_run_side_by_side_or_with_a_note(wraps, notes):
    nets = pair(lambda: network(*wraps), torch.float32)
    batch = images(3, dtype=torch.float32)
    expected = attribute(*nets, batch, steps=3, backend="reference")
    result = attribute(*nets, batch, steps=3, backend="cpu")
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-4, atol=1e-6)
    assert without_cautions(result.notes) == list(notes)
