"""Weight gradients of all points in one call; the kernels around cuDNN run in the interpreter."""

import pytest
import torch

from faigfast.backend.gpu import cuda_conv
from faigfast.backend.gpu.cuda_conv import weight_gradients
from faigfast.backend.gpu.cuda_launch import at_all_points
from faigfast.ops.conv.spec import ConvSpec


def drawn(points, samples, kind=torch.float64, shared=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1 if shared else points, samples, 6, 5, 3, generator=generator)
    g = torch.randn(points, samples, 6, 5, 4, generator=generator)
    return (part.to(kind).movedim(-1, 2) for part in (g, x))


@pytest.fixture
def calls(monkeypatch):
    """Batches of every call of the convolution's backward."""
    sizes, backward = [], torch.ops.aten.convolution_backward

    class Counted:
        @staticmethod
        def convolution_backward(g, *arguments):
            sizes.append(len(g))
            assert g.is_contiguous(memory_format=torch.channels_last)
            return backward(g, *arguments)

    monkeypatch.setattr(cuda_conv, "aten", Counted)
    return sizes


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("images, samples", [(1, 1), (1, 2), (3, 3), (2, 4)])
def test_weight_gradients_are_summed_over_points(images, samples, shared, calls):
    points = 5
    g, x = drawn(points, samples, shared=shared)
    gw = weight_gradients(g, x, torch.Size((4, 3, 3, 3)), images, ConvSpec())
    assert calls == [points * samples // images] * images
    for n in range(images):
        part = slice(n * samples // images, (n + 1) * samples // images)
        exact = sum(
            torch.nn.grad.conv2d_weight(x[p % len(x), part], (4, 3, 3, 3), g[p, part], padding=1)
            for p in range(points)
        )
        torch.testing.assert_close(gw[n], exact)


def test_sums_beyond_16_bits_stay_finite():
    """300² products of 1 and 1 are more than the largest number of float16."""
    ones = torch.ones(2, 1, 300, 300, 1, dtype=torch.float16).movedim(-1, 2)
    gw = weight_gradients(ones, ones, torch.Size((1, 1, 3, 3)), 1, ConvSpec())
    assert gw.dtype == torch.float32
    assert gw[0, 0, 0, 1, 1].item() == pytest.approx(2 * 300**2, rel=1e-3)


@pytest.mark.parametrize("to", [torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 3, 3), (2, 3, 5)], ids=str)
def test_weights_at_all_points(shape, to):
    generator = torch.Generator().manual_seed(0)
    w0, dw = (torch.randn(shape, generator=generator) for _ in range(2))
    alpha = torch.tensor([0.0, 0.3, 1.0])
    gamma, still = at_all_points(w0, dw, alpha, to), at_all_points(w0, None, alpha, to)
    exact = w0.double() + alpha.view(3, *[1] * len(shape)).double() * dw.double()
    torch.testing.assert_close(gamma.double(), exact, rtol=torch.finfo(to).eps, atol=1e-6)
    assert torch.equal(gamma[0], w0.to(to))
    assert torch.equal(still, w0.to(to).expand(3, *shape))
    if len(shape) > 2:  # channels last at every point
        assert gamma.movedim(2, -1).is_contiguous() and still.movedim(2, -1).is_contiguous()
