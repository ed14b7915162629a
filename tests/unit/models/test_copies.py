"""Copies of modules that hold computed tensors."""

import torch
from torch import nn

from faigfast.models.state import copy_of


class Keeps:
    """Keeps the output of a layer, as hooks for skip connections do."""

    def __init__(self, layer):
        self.feature = None
        layer.register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.feature = output


def test_a_network_whose_hooks_keep_outputs_is_copied():
    network = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 1)), nn.Conv2d(4, 3, 1))
    keeps = Keeps(network[0])
    x = torch.rand(1, 3, 4, 4)
    expected = network(x)
    assert not keeps.feature.is_leaf
    copied = copy_of(network)
    assert torch.equal(copied(x), expected) and copied[0].weight_v is not network[0].weight_v
