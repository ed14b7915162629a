"""Nearest-neighbour upsampling in kept memory against torch's own."""

import pytest
import torch

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.registry import Use, using
from faigfast.ops.upsampling import serves, upsample_nearest

pytestmark = pytest.mark.skipif(_extension.module is None, reason="needs the compiled extension")

CASES = [
    ((3, 8, 5, 7), None, (2.0, 2.0)),
    ((1, 1, 4, 4), None, (3.0, 2.0)),
    ((2, 3, 6, 5), None, (1.5, 2.6)),
    ((2, 4, 5, 6), (7, 11), None),
    ((2, 4, 5, 6), (3, 2), None),
]


@pytest.mark.parametrize(("shape", "size", "factors"), CASES)
def test_result_and_gradient_are_those_of_torch(shape, size, factors):
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = torch.ops.aten.upsample_nearest2d.vec(x, size, factors)
    gy = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, x, gy)
    y = upsample_nearest(x, size, factors)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(y, x, gy)[0], gradient)
    assert y.movedim(1, -1).is_contiguous()


def test_it_serves_dense_float32_of_its_backend_only():
    x = torch.randn(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    assert not serves(x)
    with using(Use("cpu")):
        assert serves(x)
        assert not serves(x.double())
        assert not serves(x[..., ::2])
