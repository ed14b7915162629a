import pytest
import torch
from torch import nn
from torch.nn import functional as F

from faigfast.zoo import SRCNNStyle, SRResNet, infer_network


def shapes(net):
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def test_srcnn_has_the_papers_layers():
    by_key = shapes(SRCNNStyle(scale=2))
    wide = {f"features.{i}.weight": (128, 128, 3, 3) for i in (4, 6, 8, 10, 15)}
    assert {key: shape for key, shape in by_key.items() if key.endswith("weight")} == {
        "features.0.weight": (64, 3, 3, 3),
        "features.2.weight": (128, 64, 3, 3),
        **wide,
        "features.12.weight": (512, 128, 3, 3),
        "features.17.weight": (3, 128, 3, 3),
    }
    assert all(
        by_key[key.replace("weight", "bias")] == (by_key[key][0],) for key in list(by_key)[::2]
    )


@pytest.mark.parametrize("scale, stages", [(1, []), (2, [2]), (3, [3]), (4, [2, 2])])
def test_srcnn_is_the_plain_stack(scale, stages):
    net = SRCNNStyle(widths=(4, 6), scale=scale, out_channels=2)
    state = net.state_dict()
    x = torch.rand(2, 3, 5, 7)

    def conv(y, position):
        name = f"features.{position}"
        return F.conv2d(y, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)

    y = F.leaky_relu(conv(F.leaky_relu(conv(x, 0), 0.1), 2), 0.1)
    position = 4
    for factor in stages:
        y = F.leaky_relu(F.pixel_shuffle(conv(y, position), factor), 0.1)
        position += 3
    y = conv(F.leaky_relu(conv(y, position), 0.1), position + 2)
    assert y.shape == (2, 2, 5 * scale, 7 * scale)
    torch.testing.assert_close(net(x), y)


def test_srcnn_starts_from_kaiming_fan_out():
    net = SRCNNStyle()
    weight = net.features[2].weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.03)
    assert not net.features[2].bias.any()


@pytest.mark.parametrize(
    "net",
    [
        SRCNNStyle(widths=(4, 6, 6), scale=2),
        SRCNNStyle(widths=(4, 16, 4), scale=3, in_channels=1, out_channels=1),
        SRCNNStyle(widths=(5,), scale=4, out_channels=2),
        SRCNNStyle(widths=(4, 4), scale=1),
        SRResNet(width=4, blocks=2, scale=2),
        SRResNet(width=4, blocks=0, scale=3, in_channels=1, out_channels=1),
        SRResNet(width=5, blocks=1, scale=4),
    ],
    ids=lambda net: f"{type(net).__name__}-x{net.scale}",
)
def test_infer_finds_the_sizes_whatever_the_order_of_keys(net):
    net.eval()
    state = net.state_dict()
    rng = torch.get_rng_state()
    inferred = infer_network(dict(sorted(state.items(), reverse=True)))
    assert torch.equal(torch.get_rng_state(), rng)
    assert type(inferred) is type(net)
    inferred.load_state_dict(state)
    x = torch.rand(1, state[next(iter(state))].shape[1], 6, 5)
    assert torch.equal(inferred(x), net(x))


def test_unknown_keys_give_every_familys_reason():
    with pytest.raises(ValueError, match=r"SRResNet.*SRCNNStyle.*into="):
        infer_network(nn.Linear(2, 2).state_dict())


def broken(**changes):
    state = SRCNNStyle(widths=(4, 6), scale=2).state_dict()
    for key, value in changes.items():
        key = key.replace("_", ".")
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    "state, message",
    [
        (broken(features_0_bias=None), r"lacks 'features\.0\.bias'"),
        (broken(features_2_weight=torch.zeros(6, 5, 3, 3)), r"'features\.2\.weight'.*6, 5, 3, 3"),
        (broken(features_2_weight=torch.zeros(6, 4, 5, 5)), r"'features\.2\.weight'.*6, 4, 5, 5"),
        (broken(features_2_weight=torch.zeros(6, 4)), r"4-D 'features\.2\.weight'"),
        (
            broken(features_4_weight=torch.zeros(23, 6, 3, 3)),
            r"'features\.4\.weight'.*found \[23, 6, 3, 3\]",
        ),
        (broken(features_4_weight=torch.zeros(0, 0, 3, 3)), r"scale is 0"),
        (broken(features_0_weight=torch.zeros(0, 3, 3, 3)), r"must be positive"),
        (broken(features_3_bias=torch.zeros(4)), r"does not have 'features\.3\.bias'"),
        (broken(classifier=torch.zeros(4)), "'classifier'"),
        ({}, "found 0"),
    ],
)
def test_srcnn_names_what_does_not_fit(state, message):
    with pytest.raises(ValueError, match=message):
        SRCNNStyle.infer(state)


@pytest.mark.parametrize(
    "sizes", [{"scale": 6}, {"scale": 0}, {"scale": 2.0}, {"widths": ()}, {"widths": (4, 0)}]
)
def test_srcnn_refuses_sizes(sizes):
    with pytest.raises(ValueError, match=next(iter(sizes))):
        SRCNNStyle(**sizes)
