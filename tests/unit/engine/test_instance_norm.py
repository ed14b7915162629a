"""Instance norm of one image: torch 2.13's own gradient is wrong for channels-last."""

import pytest
import torch
from cases.networks import images, pair
from test_models import distance, slow_notes
from torch import nn
from torch.nn import functional as F

from faigfast import attribute
from faigfast.backend.catalogue import backends


class Written(nn.InstanceNorm2d):
    """Instance norm in plain arithmetic."""

    def forward(self, x):
        x = x - x.mean((2, 3), keepdim=True)
        x = x / (x.square().mean((2, 3), keepdim=True) + self.eps).sqrt()
        return (
            x if self.weight is None else x * self.weight[:, None, None] + self.bias[:, None, None]
        )


def net(norm, affine):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        norm(8, affine=affine),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1),
        norm(8, affine=affine),
        nn.Tanh(),
        nn.Conv2d(8, 3, 3, padding=1),
    )


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_scores_are_those_of_plain_arithmetic(dtype, bound, affine, layout, backend):
    if not backends()[backend].available:
        pytest.skip(f"no backend {backend} here")
    plain = pair(lambda: net(Written, affine))
    nets = [n.to(dtype, memory_format=layout) for n in pair(lambda: net(nn.InstanceNorm2d, affine))]
    for n in (1, 2):
        batch = images(n, size=(12, 10))
        expected = attribute(*plain, batch, backend="reference", steps=3)
        x, gt = (part.to(dtype, memory_format=layout) for part in batch)
        result = attribute(*nets, (x, gt), backend=backend, steps=3)
        assert distance(result, expected) < bound
        assert not slow_notes(result)


@pytest.mark.parametrize("through", [F.instance_norm, torch.instance_norm])
def test_both_spellings(through):
    class Spelled(nn.InstanceNorm2d):
        def forward(self, x):
            if through is F.instance_norm:
                return through(x, None, None, self.weight, bias=self.bias, eps=self.eps)
            return through(x, self.weight, self.bias, None, None, True, 0.1, self.eps, False)

    x, gt = (t.to(memory_format=torch.channels_last) for t in images(1, size=(12, 10)))
    plain, spelled = (pair(lambda n=n: net(n, True)) for n in (Written, Spelled))
    nets = [n.to(memory_format=torch.channels_last) for n in spelled]
    expected = attribute(*plain, (x, gt), backend="reference", steps=2)
    result = attribute(*nets, (x, gt), backend="reference", steps=2)
    assert distance(result, expected) < 1e-10
