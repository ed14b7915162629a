"""cuDNN's convolutions with kernels around them on a device, against float64 on the CPU."""

from contextlib import contextmanager

import pytest
import torch
from cases.cuda_layers import CASES, SHAPES
from cases.path_operations import (
    assert_equal,
    assert_near,
    conv_case,
    errors,
    expected,
    operation_values,
    poisoned,
)

from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.backend.gpu import triton_support as _triton
from faigfast.backend.gpu.cuda_launch import at_all_points
from faigfast.backend.precision import proper_float32
from faigfast.ops import score_reduction, score_reduction_reference
from faigfast.ops.registry import Use, using
from faigfast.ops.squared_error.operation import squared_error_backward

WHY = _triton.refuses() or ("TRITON_INTERPRET is 1" if _triton.interpreted() else "")
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(WHY), reason=WHY)]


@contextmanager
def kernels():
    """Fail if an operation falls back to plain PyTorch."""
    use = Use("cuda")
    with using(use), poisoned(), proper_float32():
        yield
        torch.cuda.synchronize()
    assert not use.refused


def on_device(case, dtype):
    return case.to(dtype).to("cuda")


@pytest.mark.parametrize("name", CASES)
def test_convolutions(name):
    case = conv_case(**CASES[name])
    with kernels():
        result = operation_values(on_device(case, torch.float32))
    assert_near(result, expected(case), 1e-5)


@pytest.mark.parametrize("name", ["relu", "packs", "residual", "shuffled", "prelu", "leaky"])
@pytest.mark.parametrize("dtype, bound", [(torch.float16, 5e-3), (torch.bfloat16, 8e-2)])
def test_convolutions_in_16_bits(name, dtype, bound):
    case = conv_case(**CASES[name]).to(dtype)
    with kernels():
        result = operation_values(case.to("cuda"))
    worst = errors(result, expected(case.to(torch.float64)))
    assert sum(worst.values()) <= bound * len(worst), worst
    assert all(part is None or part.dtype == torch.float32 for part in result.sums)


@pytest.mark.parametrize("name", ["relu", "many", "packs", "shuffled", "leaky"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_small_integers_are_equal_to_the_bit(name, dtype):
    case = conv_case(**(CASES[name] | dict(scale=0.5, slope=0.5, integers=True)))
    with kernels():
        result = operation_values(on_device(case, dtype))
    if dtype == torch.float32:
        assert_equal(result, expected(case))
    else:  # large values are rounded once
        assert_near(result, expected(case), 1e-3)


@pytest.mark.parametrize("channels", [(3, 64), (64, 64), (64, 256), (100, 48)], ids=str)
def test_larger(channels):
    case = conv_case(channels=channels, size=(47, 31), points=3, images=2, activation="relu")
    with kernels():
        results = [operation_values(on_device(case, torch.float32)) for _ in range(2)]
    assert_near(results[0], expected(case), 1e-5)
    # The mask kernel sums without atomic additions.
    assert torch.equal(results[0].sums[1], results[1].sums[1])


@pytest.mark.parametrize("dtype", [torch.float32])
@pytest.mark.parametrize("last", [False, True], ids=["taps last", "inputs last"])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 256, 512, 3, 3)], ids=str)
def test_small_scores(shape, last, dtype):
    generator = torch.Generator().manual_seed(0)
    total = torch.randint(-9, 10, shape, generator=generator).to(dtype)
    delta = torch.randint(-9, 10, shape[1:], generator=generator).to(dtype)
    if last:
        total = total.movedim(2, -1).contiguous().movedim(-1, 2)
    with kernels():
        scores = score_reduction(total.cuda(), delta.cuda())
    assert torch.equal(scores.cpu(), score_reduction_reference(total, delta))


@pytest.mark.parametrize("size", [144, 105, 3 << 16])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wide", [False, True], ids=["alike", "gt in fp32"])
def test_small_gradients_of_squared_errors(size, dtype, wide):
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(3, 2, size, generator=generator).to(dtype)
    gt = torch.rand(2, size, generator=generator).to(torch.float32 if wide else dtype)
    weights = torch.tensor([[0.5, 0.25], [0.1, 0.0], [1.0, -2.0]])
    with kernels():
        gy = squared_error_backward(*(part.cuda() for part in (y, gt, weights)))
    plain = squared_error_backward(y, gt, weights)
    torch.testing.assert_close(gy.cpu(), plain, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("to", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(5,), (64, 64, 3, 3), (2, 2, 2, 1, 3)], ids=str)
def test_small_weights_at_all_points(shape, to):
    generator = torch.Generator().manual_seed(0)
    w0, dw = (torch.randn(shape, generator=generator) for _ in range(2))
    alpha = torch.tensor([0.0, 0.3, 1.0])
    with poisoned():
        gamma = at_all_points(w0.cuda(), dw.cuda(), alpha.cuda(), to).cpu()
    exact = w0.double() + alpha.view(3, *[1] * len(shape)).double() * dw.double()
    torch.testing.assert_close(gamma.double(), exact, rtol=torch.finfo(to).eps, atol=1e-6)
    assert torch.equal(gamma[0], w0.to(to))


@pytest.mark.skipif(bool(_extension_cuda.problem()), reason=_extension_cuda.problem() or "-")
def test_a_launch_that_fails_names_its_kernel():
    with pytest.raises(RuntimeError, match="the CUDA kernel convolution64 cannot use its device"):
        _extension_cuda.module.convolution64(
            device=4711, stream=0, type="fp16", points=1, samples=1, height=1, width=1,
            shared=False, residual_shared=False, x=0, gamma=0, bias=0, residual=0, y=0,
            activation="none", slope=0.0, scale=1.0,
        )  # fmt: skip
    assert torch.ones(1, device="cuda").item() == 1  # the error is gone
