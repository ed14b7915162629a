"""The CUDA kernels and their callers, run on the CPU and compared with plain PyTorch."""

from contextlib import contextmanager

import pytest
import torch
from cases.cuda_emulation import compiler, emulated, extension
from cases.cuda_layers import CASES, SHAPES
from cases.networks import images, kinked, pair
from cases.path_operations import (
    assert_equal,
    assert_near,
    conv_case,
    errors,
    expected,
    explain,
    operation_values,
    poisoned,
)

from faigfast import attribute
from faigfast.backend.gpu.cuda_launch import at_all_points
from faigfast.ops import score_reduction, score_reduction_reference
from faigfast.ops.registry import KERNELS, Use, using
from faigfast.ops.squared_error.operation import squared_error, squared_error_backward

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"),
]


@pytest.fixture(scope="module")
def module():
    return extension()


@pytest.fixture(params=["0", "1"], ids=["forward", "backward"])
def order(request, monkeypatch):
    """Order in which the threads of a block run. One of the orders would show a missing barrier."""
    monkeypatch.setenv("FAIGFAST_ORDER", request.param)


@pytest.fixture
def kernels(module):
    """Fail if an operation inside `with kernels():` falls back to plain PyTorch."""

    @contextmanager
    def run():
        use = Use("cuda")
        with emulated(module), using(use), poisoned():
            yield
        assert not use.refused

    return run


@pytest.mark.parametrize("name", CASES)
def test_convolutions(name, kernels, order):
    case = conv_case(**CASES[name])
    with kernels():
        result = operation_values(case.to(torch.float32))
    assert_near(result, expected(case), 1e-5)


@pytest.mark.parametrize("name", ["relu", "packs", "residual", "shuffled", "prelu"])
@pytest.mark.parametrize("dtype, bound", [(torch.float16, 3e-3), (torch.bfloat16, 8e-2)])
def test_convolutions_in_16_bits(name, dtype, bound, kernels):
    case = conv_case(**CASES[name])
    with kernels():
        result = operation_values(case.to(dtype))
    # In tensors this small, one unit that flips at the kink is a large share of the error.
    worst = errors(result, expected(case.to(dtype).to(torch.float64)))
    assert all(error <= 4 * bound for error in worst.values()), worst
    assert sum(worst.values()) <= bound * len(worst), worst
    assert all(part is None or part.dtype == torch.float32 for part in result.sums)


@pytest.mark.parametrize("name", ["relu", "many", "packs", "shuffled", "leaky"])
def test_integers_are_equal_to_the_bit(name, kernels):
    options = CASES[name] | dict(scale=0.5, slope=0.5, integers=True)
    case = conv_case(**options)
    with kernels():
        result = operation_values(case.to(torch.float32))
    assert_equal(result, expected(case))


def test_it_repeats_to_the_bit_in_any_order_of_threads(kernels, monkeypatch):
    case = conv_case(points=3, channels=(8, 16), size=(13, 11), activation="relu")
    results = []
    for value in "0101":
        monkeypatch.setenv("FAIGFAST_ORDER", value)
        with kernels():
            results.append(operation_values(case.to(torch.float32)))
    for other in results[1:]:
        assert_equal(other, results[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("last", [False, True], ids=["taps last", "inputs last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scores(shape, last, dtype, kernels, order):
    generator = torch.Generator().manual_seed(0)
    total = torch.randint(-9, 10, shape, generator=generator).to(dtype)
    delta = torch.randint(-9, 10, shape[1:], generator=generator).to(dtype)
    if last:
        total = total.movedim(2, -1).contiguous().movedim(-1, 2)
    with kernels():
        scores = score_reduction(total, delta)
    assert torch.equal(scores, score_reduction_reference(total, delta))


def test_scores_of_more_tiles_than_blocks(kernels, monkeypatch):
    """A block may start its next tile only after all threads have summed the current one."""
    monkeypatch.setenv("FAIGFAST_ORDER", "1")
    total = torch.arange(4200 * 18.0).view(4200, 1, 2, 3, 3)
    delta = torch.full((1, 2, 3, 3), -1.0)
    with kernels():
        scores = score_reduction(total, delta)
    assert torch.equal(scores, score_reduction_reference(total, delta))


def test_scores_are_as_exact_as_their_type(kernels):
    generator = torch.Generator().manual_seed(0)
    total = torch.randn(2, 31, 17, 3, 3, generator=generator)
    delta = torch.randn(31, 17, 3, 3, generator=generator)
    with kernels():
        scores = score_reduction(total, delta)
    exact = score_reduction_reference(total.double(), delta.double())
    torch.testing.assert_close(scores.double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [144, 105, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("wide", [False, True], ids=["alike", "gt in fp32"])
def test_gradients_of_squared_errors(size, dtype, wide, kernels):
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(3, 2, size, generator=generator).to(dtype)
    gt = torch.rand(2, size, generator=generator).to(torch.float32 if wide else dtype)
    weights = torch.tensor([[0.5, 0.25], [0.1, 0.0], [1.0, -2.0]])
    plain = squared_error_backward(y, gt, weights)
    with kernels():
        gy = squared_error_backward(y, gt, weights)
    assert gy.dtype == dtype and gy.shape == y.shape
    torch.testing.assert_close(gy, plain, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_squared_errors_and_their_gradient_together(kernels):
    y = torch.rand(2, 3, 32, requires_grad=True)
    gt = torch.rand(3, 32)
    with kernels():
        losses, _ = squared_error(y, gt)
        (losses * torch.tensor([[1.0], [0.5]])).sum().backward()
    torch.testing.assert_close(losses, (y - gt).square().sum(2))
    weights = torch.tensor([1.0, 0.5]).view(2, 1, 1)
    torch.testing.assert_close(y.grad, 2 * weights * (y.detach() - gt))


@pytest.mark.parametrize("to", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 3, 3), (2, 3, 5), (2, 2, 2, 1, 3)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "strided"])
def test_weights_at_all_points(shape, layout, to, module):
    generator = torch.Generator().manual_seed(0)
    w0, dw = (torch.randn(shape, generator=generator) for _ in range(2))
    if layout == "channels last" and len(shape) == 4:
        w0 = w0.to(memory_format=torch.channels_last)
    if layout == "strided":
        w0 = torch.stack([w0, torch.full_like(w0, torch.nan)], -1)[..., 0]
    alpha = torch.tensor([0.0, 0.3, 1.0])
    with emulated(module), poisoned():
        gamma = at_all_points(w0, dw, alpha, to)
        still = at_all_points(w0, None, alpha, to)
    assert gamma.shape == (3, *shape)
    exact = w0.double() + alpha.view(3, *[1] * len(shape)).double() * dw.double()
    torch.testing.assert_close(gamma.double(), exact, rtol=torch.finfo(to).eps, atol=1e-6)
    assert torch.equal(gamma[0], w0.to(to))
    assert torch.equal(still, w0.to(to).expand(3, *shape))
    if len(shape) > 2:  # channels last at every point
        assert gamma.movedim(2, -1).is_contiguous()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_end_to_end(precision, module):
    """The backend "cuda" called through `attribute`, with the losses of all points in one call."""
    models, batch = pair(kinked, torch.float32), images(3, size=(9, 7), dtype=torch.float32)
    reference = attribute(*models, batch, steps=6, backend="reference", precision=precision)
    with emulated(module):
        result = attribute(*models, batch, steps=6, backend="cuda", precision=precision)
    assert result.backend == "cuda"
    assert not [note for note in result.notes if "faigfast's cuda kernel" in note]
    scores, exact = result.scores().double(), reference.scores().double()
    assert (scores - exact).norm() <= (1e-4 if precision == "fp32" else 0.1) * exact.norm()


def test_what_it_refuses(module):
    names = ("conv", "conv_backward", "score_reduction", "squared_error_backward")
    assert all(
        any(kernel.name == "cuda" and kernel.backend == "cuda" for kernel in KERNELS[name])
        for name in names
    )
    y, gt, weights = torch.rand(1, 1, 3), torch.rand(1, 3), torch.ones(1, 1)
    refused = {
        "tensors are of torch.float64": (y.double(), gt),
        "there is nothing to compute": (y[:0], gt),
        "y is of torch.float32 and gt of torch.float16": (y, gt.half()),
    }
    with emulated(module):
        for why, given in refused.items():
            assert explain("squared_error_backward", *given, weights)["cuda"] == why


def test_a_launch_that_cannot_be_names_its_kernel(module):
    with pytest.raises(RuntimeError, match="score_reduction takes fp32 or fp64"):
        module.score_reduction(
            device=0, stream=0, type="fp16", images=1, outputs=1, inputs=1, taps=1,
            taps_last=True, total=0, delta=0, scores=0,
        )  # fmt: skip
    with pytest.raises(RuntimeError, match="CUDA kernel loss_gradient cannot use its device"):
        module.loss_gradient(
            device=4711, stream=0, type="fp32", gt_type="fp32", points=1, images=1, size=1, y=0,
            gt=0, weights=0, gy=0,
        )  # fmt: skip
    with pytest.raises(ValueError, match="type is 'int8'; expected fp16, bf16, fp32 or fp64"):
        module.loss_gradient(
            device=0, stream=0, type="int8", gt_type="int8", points=1, images=1, size=1, y=0, gt=0,
            weights=0, gy=0,
        )  # fmt: skip
