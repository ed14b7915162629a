"""Networks whose points run one by one, side by side."""

import pytest
import torch
from cases.networks import images, pair
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from faigfast import attribute
from faigfast.engine.graph import Graphs
from faigfast.integration.cautions import without_cautions
from faigfast.integration.path import WeightPath
from faigfast.zoo import RRDBNet, SRCNNStyle, SRResNet, SwinIR


class Attention(nn.Module):
    """Attention of all pixels, after a convolution."""

    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 24)

    def forward(self, x):
        y = self.head(x)
        q, k, v = self.qkv(self.norm(y.flatten(2).transpose(1, 2))).chunk(3, -1)
        a = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.tail(y + a.transpose(1, 2).reshape(y.shape))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: SRResNet(width=8, blocks=1), False),
        (lambda: SRCNNStyle((8,)), False),
        (lambda: RRDBNet(width=8, blocks=1, growth=4), False),
        (lambda: nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(5))), False),
        (Attention, True),
        (lambda: SwinIR(width=32, depths=(2,), heads=(2,)), True),
    ],
)
def test_attention_runs_side_by_side(make, expected):
    path = WeightPath(*(net.eval() for net in pair(make, torch.float32)))
    plan = Graphs().plan_of(path, images(1, size=(16, 16), dtype=torch.float32)[0])
    assert plan.side_by_side is expected


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
