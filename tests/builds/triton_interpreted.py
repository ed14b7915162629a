"""The Triton kernels in Triton's interpreter; test_triton.py runs this file in its own process.

The interpreter takes CPU tensors, checks every index and multiplies in float32 in every mode. It
truncates to bfloat16 where a device rounds.
"""

import os

import pytest
import torch
from cases.cuda_layers import CASES as CUDNN_CASES
from cases.networks import images, pair
from cases.path_operations import (
    affine_case,
    arguments,
    assert_equal,
    assert_near,
    conv_case,
    errors,
    expected,
    explain,
    linear_case,
    operation_values,
    poisoned,
    prelu_case,
)
from cases.triton_calls import CASES, KINDS, OTHERS, masters_of
from torch import nn
from triton.runtime import interpreter

from faigfast import attribute
from faigfast.backend.catalogue import backends, choose
from faigfast.backend.gpu import loss_scaling as gradient_scale
from faigfast.backend.gpu.loss_scaling import GradientScale
from faigfast.backend.gpu.triton_conv import conv_backward as kernel_backward
from faigfast.kernels import conv as orchestra
from faigfast.kernels import conv_weight_gradient, mask_gradient, tiles
from faigfast.kernels.launch import Launch, Tile
from faigfast.ops import score_reduction, score_reduction_reference
from faigfast.ops.conv.spec import backward_of
from faigfast.ops.registry import Use, using
from faigfast.ops.squared_error.operation import squared_error, squared_error_backward

assert os.environ["TRITON_INTERPRET"] == "1"


def mended(patch):
    """Let a value of the interpreter end a loop; numpy 2.5 refuses Triton 3.6's way."""

    def patched(tensor, *scope):
        patch(tensor, *scope)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    return patched


interpreter._patch_lang_tensor = mended(interpreter._patch_lang_tensor)

# Relative L2 of every value and gradient. Measured: 1e-6 for float32, a third of the bound else.
BOUNDS = {"tf32": 1e-5, "bf16x3": 1e-4, "fp16": 2e-3, "bf16": 4e-2}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Tiles smaller than a test's tensors; work is split between programs as on a device."""
    take(monkeypatch, Tile(32, 16, 16))


def take(monkeypatch, tile):
    for name in ("forward", "input_gradient", "weight_gradient"):
        monkeypatch.setattr(tiles, name, lambda *_: [tile])


def assert_right(mode="tf32", masters=False, exact=False, **options):
    assert_case_right(conv_case(**options), mode, masters, exact)


def assert_case_right(case, mode="tf32", masters=False, exact=False):
    kind = KINDS.get(mode, torch.float32)
    given = case.to(kind)
    if masters:  # float32 weights and points, 16-bit images
        given = masters_of(case, kind)
    use = Use("triton", mode=mode)
    with using(use), poisoned():
        result = operation_values(given)
    assert not use.refused
    if exact:
        assert_equal(result, expected(case.to(torch.float64)))
    else:
        # Round the inputs to 16 bits first, so that both sides have the same masks.
        rounded = given.to(torch.float64)
        assert_near(result, expected(rounded), BOUNDS[mode])


@pytest.mark.parametrize("name", CASES)
def test_cases(name):
    assert_right(**CASES[name])


@pytest.mark.parametrize("mode", ["fp16", "bf16", "bf16x3"])
def test_modes(mode):
    # Near a kink, rounding decides the side, so both slopes are nearly equal here.
    options = dict(activation="leaky_relu", slope=0.9, residual="points", size=(3, 4))
    assert_right(mode, masters=mode in KINDS, **options)


def test_integers_are_exact():
    """Sums of small integers are exact, so a tile that adds too much or too little shows."""
    assert_right(exact=True, integers=True, activation="relu", size=(5, 4))
    options = dict(channels=(2, 8), shuffle=2, activation="relu", scale=2.0, residual="points")
    assert_right(exact=True, integers=True, size=(3, 3), **options)
    assert_right("fp16", exact=True, integers=True, size=(3, 3), activation="relu")


def test_work_is_shared_out_and_summed_in_runs(monkeypatch):
    monkeypatch.setattr(conv_weight_gradient, "RUN", 16)
    monkeypatch.setattr(orchestra, "ON_CPU", 200)
    take(monkeypatch, Tile(16, 16, 16))
    assert_right(size=(7, 5), points=3, images=1, activation="prelu")
    assert_right(size=(5, 7), points=2, images=2, samples=2, weight="still", activation="relu")


# --- cuDNN's convolutions, here torch's on the CPU, with kernels around them


def around_cudnn(case):
    use = Use("cuda")
    with using(use), poisoned():
        result = operation_values(case)
    assert not use.refused
    return result


@pytest.mark.parametrize("name", CUDNN_CASES)
def test_kernels_around_cudnn(name):
    case = conv_case(**CUDNN_CASES[name]).to(torch.float32)
    assert_near(around_cudnn(case), expected(case.to(torch.float64)), 1e-5)


@pytest.mark.parametrize("name", ["relu", "residual", "shuffled", "prelu"])
@pytest.mark.parametrize("dtype, bound", [(torch.float16, 3e-3), (torch.bfloat16, 8e-2)])
def test_kernels_around_cudnn_in_16_bits(name, dtype, bound):
    case = conv_case(**CUDNN_CASES[name]).to(dtype)
    result = around_cudnn(case)
    # In tensors this small, one unit that flips at the kink is a large share of the error.
    worst = errors(result, expected(case.to(torch.float64)))
    assert all(error <= 4 * bound for error in worst.values()), worst
    assert sum(worst.values()) <= bound * len(worst), worst
    assert all(part is None or part.dtype == torch.float32 for part in result.sums)


@pytest.mark.parametrize("name", ["relu", "many", "shuffled", "leaky"])
def test_integers_around_cudnn_are_exact(name, monkeypatch):
    monkeypatch.setattr(mask_gradient, "BLOCK", 64)  # several tiles and shares
    case = conv_case(**(CUDNN_CASES[name] | dict(scale=0.5, slope=0.5, integers=True)))
    assert_equal(around_cudnn(case.to(torch.float32)), expected(case))


def test_three_products_of_bfloat16_are_nearly_float32():
    """The kernel's three products, computed by torch, which rounds to nearest as a device does."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 576, generator=generator) for _ in range(2))
    (ah, al), (bh, bl) = ((v.bfloat16(), (v - v.bfloat16()).bfloat16()) for v in (a, b))
    parts = ((al, bh), (ah, bl), (ah, bh))
    exact = a.double() @ b.double().T
    three = sum(x.double() @ y.double().T for x, y in parts)
    assert (three - exact).norm() / exact.norm() < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_other_operations(name):
    make, options = OTHERS[name]
    assert_case_right(make(**options))


@pytest.mark.parametrize("make", [linear_case, affine_case, prelu_case])
def test_other_operations_of_integers_are_exact(make):
    assert_case_right(make(integers=True), exact=True)


@pytest.mark.parametrize("mode", ["fp16", "bf16"])
@pytest.mark.parametrize("make", [linear_case, affine_case])
def test_other_operations_in_16_bits(make, mode):
    assert_case_right(make(), mode, masters=True)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 3, 3), (1, 20, 10, 1, 3)], ids=str)
def test_score_reduction(shape):
    generator = torch.Generator().manual_seed(0)
    total = torch.randn(shape, generator=generator)
    delta = torch.randn(shape[1:], generator=generator)
    with using(Use("triton")), poisoned():
        scores = score_reduction(total, delta)
    torch.testing.assert_close(scores, score_reduction_reference(total, delta))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5000)], ids=str)
def test_squared_error(shape, kind):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(shape, generator=generator).to(kind)
    gt, weights = torch.randn(shape[1:], generator=generator), torch.rand(shape[:2])
    for by in ("", "triton"):
        with using(Use(by)), poisoned():
            losses, most = squared_error(y, gt)
            gy = squared_error_backward(y, gt, weights)
        difference = y.double() - gt.double()
        torch.testing.assert_close(losses.double(), difference.square().sum(2), rtol=1e-5, atol=0)
        torch.testing.assert_close(most.double(), difference.abs().amax(2), rtol=1e-6, atol=0)
        exact = 2 * weights.double()[..., None] * difference
        assert gy.dtype == kind
        assert (gy - exact).norm() / exact.norm() < {2: 1e-2, 4: 1e-6}[y.element_size()]


REFUSED = {
    "float64": dict(),
    "cuDNN is faster in float32": dict(),
    "kernel has 1 dimensions": dict(size=(9,)),
    "2 groups": dict(channels=(4, 4), groups=2),
    "transposed": dict(transposed=True),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_it_refuses_runs_plainly_and_is_told(why):
    case = conv_case(**REFUSED[why])
    case = case if why == "float64" else case.to(torch.float32)
    with using(Use("triton", mode="ieee" if "cuDNN" in why else "tf32")):
        for name, given in arguments(case):
            assert why in explain(name, *given)["triton"]
    use = Use("triton", mode="ieee" if "cuDNN" in why else "tf32")
    with using(use):
        result = operation_values(case)
    assert len(use.refused) == 2 and all(why in reason for reason in use.refused)
    assert_near(result, operation_values(case), 0)


def test_plain_kernels_take_masters_too():
    case = conv_case(channels=(4, 4), groups=2, activation="prelu")
    given = masters_of(case, torch.float16)
    result = operation_values(given)
    assert result.y.dtype == torch.float16 and result.sums[0].dtype == torch.float32
    assert_near(result, expected(given.to(torch.float64)), BOUNDS["fp16"])


def test_only_what_is_needed_is_computed():
    (_, _), (_, given) = arguments(conv_case(size=(3, 4)).to(torch.float32))
    for needs in (
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
    ):
        one = list(given)
        one[10] = needs
        with using(Use("triton", mode="tf32")):
            parts = kernel_backward(backward_of(one))
        assert [part.numel() > 0 for part in parts] == needs


def test_infinities_and_nan_do_not_stay_hidden():
    for value in (torch.nan, torch.inf):
        case = conv_case(points=1, images=1, size=(7, 7), activation="relu").to(torch.float32)
        case.x[0, 0, 0, :, 1, 1] = value
        with using(Use("triton", mode="tf32")):
            y = operation_values(case).y
        assert not y[..., :3, :3].isfinite().all() and y[..., 3:, 3:].isfinite().all()


def test_more_pixels_than_32_bits_count_are_refused():
    (name, given), _ = arguments(conv_case(size=(3, 4)).to(torch.float16))
    x = torch.zeros((), dtype=torch.float16).expand(1, 2, 3, 2**15, 2**15)
    assert "2147483648 pixels" in explain(name, x, *given[1:])["triton"]
    (name, given), _ = arguments(linear_case().to(torch.float16))
    x = torch.zeros((), dtype=torch.float16).expand(1, 2**16, 2**15, 3)
    assert "2147483648 rows" in explain(name, x, *given[1:])["triton"]


# --- whole networks


def test_attribution_with_cudnn():
    """The backend "cuda" has the kernels of losses and scores as well."""
    result, error = compared("fp16", backend="cuda")
    assert error < 5e-3
    assert not any("faigfast's cuda kernel" in note for note in result.notes), result.notes


class Tail(nn.Module):
    """PReLU, a scaled residual, a pixel shuffle and an operation without a kernel."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.PReLU(4)
        self.body = nn.Conv2d(4, 4, 1)
        self.groups = nn.Conv2d(4, 4, 1, groups=2)
        self.up = nn.Conv2d(4, 12, 1)
        self.mean = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x):
        x = self.act(self.head(x - self.mean))
        x = self.groups(x + 0.2 * self.body(x).relu())
        return torch.pixel_shuffle(self.up(x), 2)


def compared(precision, make=Tail, backend="triton", **options):
    nets = pair(make, torch.float32)
    x, _ = images(2, size=(3, 4), dtype=torch.float32)
    _, gt = images(2, size=(6, 8), dtype=torch.float32)
    exact = attribute(
        *(net.double() for net in pair(make, torch.float32)), (x.double(), gt.double()),
        backend="reference", steps=2,
    )  # fmt: skip
    result = attribute(*nets, (x, gt), backend=backend, precision=precision, steps=2, **options)
    a, b = result.scores().double(), exact.scores()
    assert result.backend == backend and result.precision == precision
    assert result.scores().dtype == torch.float32
    return result, ((a - b).abs().sum(1) / b.sum(1)).max().item()


@pytest.mark.parametrize("precision, bound", [("tf32", 1e-5), ("fp16", 5e-3), ("bf16", 0.1)])
def test_attribution_is_that_of_the_reference(precision, bound, monkeypatch):
    ran = set()
    run = Launch.run
    monkeypatch.setattr(Launch, "run", lambda self: (ran.add(self.name), run(self)))
    result, error = compared(precision)
    assert ran >= {
        "path_weights", "conv_forward", "conv_input_gradient", "conv_weight_gradient",
        "mask_gradient", "squared_error", "squared_error_gradient", "score_reduction",
    }  # fmt: skip
    assert error < bound
    assert any("faigfast's triton kernel (it has 2 groups" in note for note in result.notes)
    assert not any("point by point" in note for note in result.notes), result.notes


def test_an_overflow_is_found_and_computed_again(monkeypatch):
    take(monkeypatch, Tile(64, 16, 16))
    expected_result, error = compared("fp16", Small)
    monkeypatch.setattr(gradient_scale, "TOP", 15)
    lowered, again = compared("fp16", Small)
    assert any(
        "overflowed and were computed again, scaled by 2^-8" in note for note in lowered.notes
    )
    assert not any("overflowed" in note for note in expected_result.notes)
    assert max(error, again) < 5e-3 and lowered.scores().isfinite().all()


class Small(nn.Module):
    """A network whose first layer has larger gradients than its output."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.last = nn.Conv2d(4, 12, 1)

    def forward(self, x):
        return torch.pixel_shuffle(self.last(16 * self.first(x)), 2)


def test_scales_are_powers_of_two_of_each_image():
    scale = GradientScale()
    output = torch.rand(2, 3, 4, dtype=torch.float32).half().requires_grad_()
    sizes = torch.tensor([1e-7, 1.0, 3e4]).view(1, 3, 1)
    y = scale.enter(output, torch.float32, 3)
    (y * sizes).sum().backward()
    factor = gradient_scale.power_of_two(scale.last.exponents)
    assert torch.equal(factor.log2().round().exp2(), factor)
    assert torch.equal(output.grad, (sizes * factor.view(1, 3, 1)).half().expand(2, 3, 4))
    assert output.grad.float().abs().min() > 2.0**6
    total = torch.zeros(3, 4, requires_grad=True)
    gradient_scale.unscaled(total, scale.last).backward(output.grad.float().sum(0))
    back = total.grad
    assert torch.allclose(back, 2 * sizes[0].expand(3, 4), rtol=1e-3, atol=0)
    assert not scale.overflowed({"w": back})
    assert scale.overflowed({"w": back / 0}) and scale.lowered == -gradient_scale.STEP


def test_the_interpreter_is_a_backend_here():
    assert backends()["triton"].available and "interpreter" in backends()["triton"].reason
    assert choose("triton", "cpu") == ("triton", "")
    assert choose("auto", "cpu", "tf32")[0] == "triton"
    assert choose("auto", "cpu", "fp16")[0] != "triton"
