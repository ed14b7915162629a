"""Networks with merged branches."""

import random

import torch
from cases.networks import untouched
from torch import nn

from faigfast.models.fused import fused


def test_a_copy_in_eval_mode_is_merged():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    net.faigfast_source = "file"
    modes = []

    def fuse(own):
        modes.append((own.training, torch.is_grad_enabled()))
        return nn.Sequential(nn.utils.fuse_conv_bn_eval(*own))

    with untouched(net):
        merged = fused(fuse, net, "model_a")
    assert modes == [(False, False)]
    assert [type(part) for part in merged] == [nn.Conv2d] and merged.faigfast_source == "file"
    assert all(parameter.is_leaf for parameter in merged.parameters())


def test_without_fuse_the_network_itself_is_given():
    net = nn.Conv2d(3, 4, 3)
    assert fused(None, net, "model_a") is net


def test_layers_that_fuse_makes_draw_no_random_numbers():
    net = nn.Conv2d(3, 4, 1)
    states = torch.get_rng_state(), random.getstate()
    fused(lambda own: nn.Conv2d(3, 4, 3), net, "model_a")
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
