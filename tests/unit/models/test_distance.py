"""Distances of two networks."""

import math

import pytest
import torch
from torch import nn

import faigfast
from faigfast.filters.index import FilterIndex
from faigfast.models.distance import Distance


def made():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1, bias=False))


def two():
    a, b = made(), made()
    for net in (a, b):
        for value in net.parameters():
            nn.init.zeros_(value)
    a[0].weight.data[:] = torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    b[0].weight.data[:] = torch.tensor([3.0, 7.0]).view(2, 1, 1, 1)
    b[0].bias.data[:] = torch.tensor([0.0, 4.0])
    return a.eval(), b.eval()


def test_by_hand():
    a, b = two()
    distance = Distance.between(a, b, FilterIndex.of(b).layers)
    assert float(distance) == pytest.approx(1.0)  # √(3² + 4²) / 5
    assert distance.layers == {"0.weight": pytest.approx(0.6), "2.weight": 0.0}
    b[2].weight.data[0, 0] = 1.0
    assert Distance.between(a, b, FilterIndex.of(b).layers).layers["2.weight"] == math.inf
    assert math.isnan(float(Distance()))


def test_buffers_do_not_count():
    a, b = two()
    for net in (a, b):
        net.register_buffer("mask", torch.full((8,), -1e6))
        net[1].running_var.fill_(1e6)
    assert float(Distance.between(a, b, ["0.weight"])) == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_of_a_result(dtype):
    a, b = (net.to(dtype) for net in two())
    images = torch.rand(1, 1, 4, 4).to(dtype)
    result = faigfast.attribute(a, b, (images, images), steps=2, backend="reference")
    assert float(result.distance) == pytest.approx(1.0, rel=1e-2)
    assert list(result.distance.layers) == list(result.index.layers)


def test_large_half_precision_norms_are_finite():
    a, b = (nn.Conv2d(64, 64, 3).half() for _ in range(2))
    a.weight.data.fill_(1000.0)
    b.weight.data.fill_(2000.0)
    assert Distance.between(a, b, ["weight"]).layers["weight"] == pytest.approx(1.0)


def test_tied_weights_count_once():
    a, b = (nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1)) for _ in range(2))
    for net, value in ((a, 1.0), (b, 2.0)):
        net[1].weight = net[0].weight
        nn.init.constant_(net[0].weight, value)
        nn.init.constant_(net[1].bias, 1.0)
    assert float(Distance.between(a, b, ["0.weight"])) == pytest.approx(1 / math.sqrt(2))
    x = torch.rand(1, 1, 4, 4)
    result = faigfast.attribute(a, b, (x, x), steps=2)
    assert float(result.distance) == pytest.approx(1 / math.sqrt(2))


def test_round_trip():
    distance = Distance(0.5, {"a": 0.25, "b": math.inf})
    assert Distance.from_tensor(distance.to_tensor(), ["a", "b"]) == distance
