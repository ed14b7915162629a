"""RCAN: BasicSR's keys and mathematics."""

import torch
from cases.basicsr import RGB, conv, shaken, shapes, weights
from torch.nn import functional as F

from faigfast.zoo import RCAN
from faigfast.zoo.rcan import ChannelAttention


def test_rcan_has_basicsrs_keys_in_their_order():
    by_key = shapes(RCAN(width=6, groups=1, blocks=2, scale=3, squeeze=4))
    assert list(by_key.items()) == list(
        weights(
            conv_first=(6, 3, 3, 3),
            body__0__residual_group__0__rcab__0=(6, 6, 3, 3),
            body__0__residual_group__0__rcab__2=(6, 6, 3, 3),
            body__0__residual_group__0__rcab__3__attention__1=(1, 6, 1, 1),
            body__0__residual_group__0__rcab__3__attention__3=(6, 1, 1, 1),
            body__0__residual_group__1__rcab__0=(6, 6, 3, 3),
            body__0__residual_group__1__rcab__2=(6, 6, 3, 3),
            body__0__residual_group__1__rcab__3__attention__1=(1, 6, 1, 1),
            body__0__residual_group__1__rcab__3__attention__3=(6, 1, 1, 1),
            body__0__conv=(6, 6, 3, 3),
            conv_after_body=(6, 6, 3, 3),
            upsample__0=(54, 6, 3, 3),
            conv_last=(3, 6, 3, 3),
        ).items()
    )


def test_channel_attention_is_the_formula():
    layer = shaken(ChannelAttention(6, squeeze=2)).double()
    state = {key: value.squeeze() for key, value in layer.state_dict().items()}
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    for sample, scaled in zip(x, layer(x), strict=True):
        mean = sample.sum((1, 2)) / 15
        narrow = state["attention.1.weight"] @ mean + state["attention.1.bias"]
        factor = state["attention.3.weight"] @ narrow.clamp(min=0) + state["attention.3.bias"]
        torch.testing.assert_close(scaled, sample / (1 + torch.exp(-factor))[:, None, None])


def test_rcan_is_the_formula():
    net = shaken(RCAN(width=4, groups=2, blocks=2, scale=2, squeeze=2, res_scale=0.5)).double()
    state = net.state_dict()
    x = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    first = y = conv((x - RGB) * 255, state, "conv_first")
    for group in (0, 1):
        start = y
        for block in (0, 1):
            name = f"body.{group}.residual_group.{block}.rcab"
            z = conv(F.relu(conv(y, state, f"{name}.0")), state, f"{name}.2")
            squeezed = F.relu(conv(z.mean((2, 3), keepdim=True), state, f"{name}.3.attention.1"))
            y = y + 0.5 * z * conv(squeezed, state, f"{name}.3.attention.3").sigmoid()
        y = start + conv(y, state, f"body.{group}.conv")
    y = F.pixel_shuffle(conv(conv(y, state, "conv_after_body") + first, state, "upsample.0"), 2)
    torch.testing.assert_close(net(x), conv(y, state, "conv_last") / 255 + RGB)
