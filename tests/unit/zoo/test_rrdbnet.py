"""RRDBNet: BasicSR's keys and mathematics, and its own scales."""

import itertools

import pytest
import torch
from cases.basicsr import conv, shaken, shapes, weights
from torch.nn import functional as F

from faigfast.cli.main import build_parser, main
from faigfast.cli.train import _network
from faigfast.zoo import RRDBNet
from faigfast.zoo.rrdbnet import RRDB


def test_rrdbnet_has_basicsrs_keys_in_their_order():
    by_key = shapes(RRDBNet(width=4, blocks=1, scale=2, growth=2))
    dense = {
        f"body__0__rdb{i}__conv{j}": (2 if j < 5 else 4, 2 + 2 * j, 3, 3)
        for i in (1, 2, 3)
        for j in (1, 2, 3, 4, 5)
    }
    plain = ("conv_body", "conv_up1", "conv_up2", "conv_hr")
    assert list(by_key.items()) == list(
        weights(
            conv_first=(4, 12, 3, 3),
            **dense,
            **dict.fromkeys(plain, (4, 4, 3, 3)),
            conv_last=(3, 4, 3, 3),
        ).items()
    )


def test_rrdb_scales_its_residuals_by_a_fifth():
    block = shaken(RRDB(4, growth=3)).double()
    state = block.state_dict()
    x = y = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    for name in ("rdb1", "rdb2", "rdb3"):
        seen = [y]
        for i in (1, 2, 3, 4):
            seen.append(F.leaky_relu(conv(torch.cat(seen, 1), state, f"{name}.conv{i}"), 0.2))
        y = y + conv(torch.cat(seen, 1), state, f"{name}.conv5") / 5
    torch.testing.assert_close(block(x), x + y / 5)


@pytest.mark.parametrize("scale, factor", [(4, 1), (2, 2), (1, 4)])
def test_rrdbnet_is_the_formula(scale, factor):
    net = shaken(RRDBNet(width=4, blocks=1, scale=scale, growth=2)).double()
    state = net.state_dict()
    x = torch.rand(1, 3, 8, 12, dtype=torch.float64)
    corners = itertools.product(range(factor), repeat=2)
    phases = [x[:, :, i::factor, j::factor] for i, j in corners]
    y = conv(torch.stack(phases, 2).flatten(1, 2), state, "conv_first")
    y = y + conv(net.body(y), state, "conv_body")
    for name in ("conv_up1", "conv_up2"):
        y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = F.leaky_relu(conv(y, state, name), 0.2)
    y = conv(F.leaky_relu(conv(y, state, "conv_hr"), 0.2), state, "conv_last")
    torch.testing.assert_close(net(x), y)


def test_train_builds_rrdbnet_at_its_own_scales(tmp_path, capsys):
    words = ["train", "--network", "rrdbnet", "--width", "6", "--depth", "2"]
    words += ["--output", str(tmp_path / "pair"), "--quiet"]
    net = _network(build_parser().parse_args(words).train)
    assert type(net) is RRDBNet and net.scale == 2
    assert shapes(net)["body.1.rdb3.conv5.weight"] == (6, 18, 3, 3)
    assert main([*words, "--scale", "3"]) == 1
    assert capsys.readouterr().err == (
        "faigfast: error: --scale is 3; RRDBNet enlarges by 1, 2 or 4\n"
    )
