"""The Hopper convolution on a device of compute capability 9.0."""

from contextlib import contextmanager

import pytest
import torch
from cases.cuda_layers import HOPPER, LAYER, forward, served_by
from cases.path_operations import conv_case, poisoned

from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.ops.registry import Use, using

WHY = _extension_cuda.problem()
if not WHY and torch.cuda.get_device_capability() != (9, 0):
    WHY = f"{torch.cuda.get_device_name()} is not of compute capability 9.0"
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY), reason=WHY)]


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.setenv("FAIGFAST_HOPPER", "1")

    @contextmanager
    def run():
        with using(Use("cuda")), poisoned(), served_by("hopper"):
            yield
            torch.cuda.synchronize()

    return run


@pytest.mark.parametrize("name", HOPPER)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_integers_are_equal_to_the_bit(name, dtype, kernels):
    case = conv_case(**LAYER, **HOPPER[name])
    with kernels():
        y = forward(case.to(dtype).to("cuda"), dtype)
    assert torch.equal(y.cpu(), forward(case, torch.float64).to(dtype))


@pytest.mark.parametrize("points, size", [(3, (250, 260)), (40, (48, 48)), (1, (1356, 510))])
def test_large_integers_are_equal_to_the_bit_again_and_again(points, size, kernels):
    """More tiles than blocks, many points a block, odd edges; repeated because races are random."""
    case = conv_case(**LAYER, size=size, points=points, images=1, activation="relu")
    case = case.to(torch.float64).to("cuda")
    exact = forward(case, torch.float64).half()  # cuDNN's float32 may be Winograd or FFT
    with kernels():
        for _ in range(5):
            assert torch.equal(forward(case, torch.float16), exact)


def test_values_of_any_size(kernels):
    case = conv_case(channels=(64, 64), size=(65, 47), points=4, images=2, activation="relu")
    case = case.to(torch.float16)
    with kernels():
        y = forward(case.to("cuda"), torch.float16).cpu().double()
    exact = forward(case, torch.float64)
    assert (y - exact).norm() <= 2e-3 * exact.norm()
