"""Networks whose convolutions take computed weights."""

import pytest
import torch
from cases.networks import images, pair
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from faigfast import attribute
from faigfast.integration.cautions import without_cautions

NOTE = "aten.conv2d.default runs sample by sample: computed weights"


def network(normed, plain):
    """Convolutions with weight norm, then convolutions without."""
    layers = [nn.Conv2d(3, 3, 3, padding=1) for _ in range(normed + plain)]
    layers[:normed] = map(weight_norm, layers[:normed])
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))


@pytest.mark.parametrize("normed, plain, notes", [(2, 1, []), (1, 4, [NOTE]), (0, 2, [])])
def test_computed_weights_run_side_by_side_or_with_a_note(normed, plain, notes):
    nets = pair(lambda: network(normed, plain), torch.float32)
    batch = images(3, dtype=torch.float32)
    expected = attribute(*nets, batch, steps=3, backend="reference")
    result = attribute(*nets, batch, steps=3, backend="cpu")
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-4, atol=1e-6)
    assert without_cautions(result.notes) == notes
