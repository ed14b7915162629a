"""Averaged activations: the C++ kernel beside its plain twin."""

import pytest
import torch

from faigfast.integration.cells import cells_of
from faigfast.integration.quadrature import quadrature
from faigfast.ops.averaged_activation import cpu as _cpu  # noqa: F401  its kernel joins the table
from faigfast.ops.averaged_activation.operation import averaged_activation, flattened
from faigfast.ops.registry import KERNELS, Use, choose, using


def cells(points):
    rule = quadrature("averaged", points)
    return flattened(cells_of(rule.nodes.tolist(), rule.cells.tolist()))


def values(points, own, layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(points)
    z = torch.randn(points, *own, generator=generator, dtype=dtype)
    if layout == "channels last":
        z = z.movedim(-3, -1).contiguous().movedim(-1, -3)
    elif layout == "sliced":
        z = torch.cat([z, z], -1)[..., ::2]
    elif layout == "points last":
        z = z.movedim(0, -1).contiguous().movedim(-1, 0)
    return z


@pytest.mark.parametrize("layout", ["dense", "channels last", "sliced", "points last"])
@pytest.mark.parametrize("own", [(1, 1, 1), (3, 7, 5), (2, 2, 16, 9, 4)], ids=str)
@pytest.mark.parametrize("points, slope", [(1, 0.0), (2, 0.2), (5, 0.0)])
def test_the_kernel_agrees_with_its_twin(points, slope, own, layout):
    z = values(points, own, layout)
    expected = averaged_activation(z.double(), *cells(points), slope)
    with using(Use("cpu")):
        assert choose("averaged_activation", z, *cells(points), slope).name == "simd"
        actual = averaged_activation(z, *cells(points), slope)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["", "cpu"])
def test_gradients_are_multiplied_by_the_factors(backend):
    z = values(4, (3, 6, 5), "channels last").requires_grad_()
    gy = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    with using(Use(backend)):
        y, factors = averaged_activation(z, *cells(4), 0.1)
        y.backward(gy)
    torch.testing.assert_close(z.grad, gy * factors)
    assert factors.min() >= 0.1 and factors.max() <= 1 + 1e-6


def test_what_the_kernel_refuses():
    refuses = {kernel.name: kernel.refuses for kernel in KERNELS["averaged_activation"]}["simd"]
    z = values(2, (3, 4), "dense")
    assert not refuses(z, *cells(2), 0.0)
    assert "float64" in refuses(z.double(), *cells(2), 0.0)
    assert refuses(z[:, :0], *cells(2), 0.0)
