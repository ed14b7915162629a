"""The C++ kernels of squared errors, in every instruction set that runs here."""

import pytest
import torch
from cases.path_operations import explain

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.registry import Use, using
from faigfast.ops.squared_error.operation import squared_error, squared_error_backward

pytestmark = pytest.mark.skipif(_extension.module is None, reason=_extension.missing)
# Around every vector, and around the pieces that are added up one after the other.
SIZES = [(1, 1, 1), (2, 3, 7), (1, 2, 33), (3, 2, 1024), (2, 1, 1025), (2, 2, 20000)]


def numbers(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y, gt, weights = (
        torch.randn(shape, generator=generator) for shape in (size, size[1:], size[:2])
    )
    return y, gt, weights


def fast(y, gt, weights):
    use = Use("cpu")
    with using(use):
        values = *squared_error(y, gt), squared_error_backward(y, gt, weights)
    assert not use.refused
    return values


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_losses_and_their_gradient(size, isa):
    y, gt, weights = numbers(size)
    losses, most, gy = fast(y, gt, weights)
    exact, largest = squared_error(y.double(), gt.double())
    assert losses.shape == most.shape == size[:2] and gy.shape == size
    torch.testing.assert_close(losses.double(), exact, rtol=3e-7, atol=0)
    torch.testing.assert_close(most, largest.float(), rtol=1e-6, atol=0)
    assert torch.equal(gy, squared_error_backward(y, gt, weights))


def test_any_layout(isa):
    y, gt, weights = numbers((2, 3, 50))
    strided = torch.empty(50, 2, 3).permute(1, 2, 0).copy_(y)
    wide = torch.empty(3, 100)[:, ::2].copy_(gt)
    for one, other in zip(fast(strided, wide, weights), fast(y, gt, weights), strict=True):
        assert torch.equal(one, other)


def test_threads_change_nothing(isa):
    given, before = numbers((2, 2, 20000)), torch.get_num_threads()
    try:
        by_threads = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            by_threads.append(fast(*given))
    finally:
        torch.set_num_threads(before)
    for others in by_threads[1:]:
        for one, other in zip(others, by_threads[0], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
@pytest.mark.parametrize("place", [0, 39, 4500])
def test_what_is_not_finite_is_told(value, place, isa):
    y, gt, weights = numbers((2, 2, 5000))
    y[1, 0, place] = value
    plain = *squared_error(y, gt), squared_error_backward(y, gt, weights)
    for one, other in zip(fast(y, gt, weights), plain, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_what_it_refuses():
    y, gt, weights = numbers((2, 2, 5))
    assert "float64" in explain("squared_error", y.double(), gt.double())["simd"]
    assert "float64" in explain("squared_error_backward", y, gt.double(), weights)["simd"]
    assert "nothing" in explain("squared_error", y[:0], gt)["simd"]
