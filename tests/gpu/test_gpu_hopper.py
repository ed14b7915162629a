"""The Hopper convolution on a device of compute capability 9.0."""

from contextlib import contextmanager

import pytest
import torch
from cases.cuda_layers import HOPPER, LAYER, forward, served_by
from cases.path_operations import conv_case, poisoned
from torch.nn.grad import conv2d_input

from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.ops.conv.operation import conv_backward
from faigfast.ops.conv.spec import ConvSpec
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


@pytest.mark.parametrize("points, size", [(1, (16, 16)), (3, (17, 33)), (8, (48, 48))])
def test_input_gradients_of_integers_are_equal_to_the_bit(points, size, kernels):
    generator = torch.Generator().manual_seed(0)

    def whole(*shape):
        return torch.randint(-3, 4, shape, generator=generator).half().to("cuda")

    w0, gy, x = whole(64, 64, 3, 3), whole(points, 2, *size, 64), whole(points, 2, *size, 64)
    gy, x = gy.movedim(-1, 2), x.movedim(-1, 2)
    alpha = torch.zeros(points, device="cuda")
    needs = [True, False, False, False]
    given = gy, x, gy.new_empty(0), w0, None, None, None, None, alpha, 2, needs, *ConvSpec()
    with kernels():
        gx = conv_backward(*given)[0]
    w = w0.double()
    exact = [conv2d_input(x[p].shape, w, part.double(), padding=1) for p, part in enumerate(gy)]
    assert torch.equal(gx, torch.stack(exact).half())


def test_values_of_any_size(kernels):
    case = conv_case(channels=(64, 64), size=(65, 47), points=4, images=2, activation="relu")
    case = case.to(torch.float16)
    with kernels():
        y = forward(case.to("cuda"), torch.float16).cpu().double()
    exact = forward(case, torch.float64)
    assert (y - exact).norm() <= 2e-3 * exact.norm()
