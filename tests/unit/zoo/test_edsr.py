"""EDSR: BasicSR's keys and mathematics."""

import pytest
import torch
from cases.basicsr import RGB, conv, shaken, shapes, weights
from torch.nn import functional as F

from faigfast.zoo import EDSR


def test_edsr_has_basicsrs_keys_in_their_order():
    by_key = shapes(EDSR(width=4, blocks=2, scale=4))
    assert list(by_key.items()) == list(
        weights(
            conv_first=(4, 3, 3, 3),
            body__0__conv1=(4, 4, 3, 3),
            body__0__conv2=(4, 4, 3, 3),
            body__1__conv1=(4, 4, 3, 3),
            body__1__conv2=(4, 4, 3, 3),
            conv_after_body=(4, 4, 3, 3),
            upsample__0=(16, 4, 3, 3),
            upsample__2=(16, 4, 3, 3),
            conv_last=(3, 4, 3, 3),
        ).items()
    )


@pytest.mark.parametrize("scale, factors", [(1, []), (2, [2]), (3, [3]), (4, [2, 2])])
@pytest.mark.parametrize("res_scale, img_range", [(1.0, 255.0), (0.1, 10.0)])
def test_edsr_is_the_formula(scale, factors, res_scale, img_range):
    options = {"scale": scale, "res_scale": res_scale, "img_range": img_range}
    net = shaken(EDSR(width=4, blocks=2, **options)).double()
    state = net.state_dict()
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    first = y = conv((x - RGB) * img_range, state, "conv_first")
    for block in ("body.0", "body.1"):
        y = y + res_scale * conv(F.relu(conv(y, state, f"{block}.conv1")), state, f"{block}.conv2")
    y = conv(y, state, "conv_after_body") + first
    for stage, factor in enumerate(factors):
        y = F.pixel_shuffle(conv(y, state, f"upsample.{2 * stage}"), factor)
    torch.testing.assert_close(net(x), conv(y, state, "conv_last") / img_range + RGB)
