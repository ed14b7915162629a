"""The Hopper convolution on the CPU: its own code on an emulation of the PTX instructions."""

from contextlib import contextmanager

import pytest
import torch
from cases.cuda_emulation import compiler, emulated, extension
from cases.cuda_layers import HOPPER, LAYER, forward, served_by
from cases.path_operations import conv_case, explain, poisoned
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from faigfast.ops.conv.operation import conv
from faigfast.ops.conv.spec import Backward, ConvSpec, PathParameters
from faigfast.ops.registry import Use, choose, using

pytestmark = [
    pytest.mark.build,
    pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler"),
]


@pytest.fixture(scope="module")
def module():
    return extension()


@pytest.fixture
def kernels(module, monkeypatch):
    monkeypatch.setenv("FAIGFAST_HOPPER", "1")

    @contextmanager
    def run():
        with emulated(module), using(Use("cuda")), poisoned():
            yield

    return run


@pytest.mark.parametrize("name", HOPPER)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_integers_are_equal_to_the_bit(name, dtype, kernels, monkeypatch):
    """Sums of small integers are exact in float32, so the result is rounded only once."""
    if dtype == torch.bfloat16 and name not in ("odd", "residual"):
        pytest.skip("the type only changes the multiplication")
    monkeypatch.setenv("FAIGFAST_CORES", "2")
    case = conv_case(**LAYER, **HOPPER[name])
    with kernels(), served_by("hopper"):
        y = forward(case, dtype)
    assert torch.equal(y, forward(case, torch.float64).to(dtype))


GRADIENTS = {
    "one tile": dict(size=(16, 16), points=1, images=1),
    "one pixel": dict(size=(1, 1), points=2, images=1),
    "odd": dict(size=(17, 33), points=1, images=2),
    "points, images and samples": dict(size=(8, 9), points=3, images=2, samples=2),
    "still": dict(size=(6, 6), points=2, images=1, weight="still"),
}


def backward_arguments(size, points, images, samples=1, weight="moves", needs=(True, True)):
    """Arguments of a layer's gradients, of small integers; weights are whole at every point."""
    generator = torch.Generator().manual_seed(0)

    def whole(*shape):
        return torch.randint(-3, 4, shape, generator=generator).half()

    w0, dw = whole(64, 64, 3, 3), whole(64, 64, 3, 3) if weight == "moves" else None
    alpha = torch.arange(points) % 2
    shape = points, images * samples, *size, 64
    gy, x = (whole(*shape).movedim(-1, 2) for _ in range(2))
    parameters = PathParameters(w0, dw, None, None, None, None, alpha)
    needed = [*needs, False, False]
    return Backward(gy, x, gy.new_empty(0), parameters, images, needed, ConvSpec())


def listed(b):
    """The same as `faigfast::conv_backward` takes them."""
    w0, dw, b0, _, s0, ds, alpha = b.parameters
    return b.gy, b.x, b.saved, w0, dw, b0, s0, ds, alpha, b.images, b.needs, *b.spec


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_input_gradient_of_integers_is_equal_to_the_bit(name, kernels, monkeypatch):
    monkeypatch.setenv("FAIGFAST_CORES", "2")
    b = backward_arguments(**GRADIENTS[name])
    with kernels():
        kernel = choose("conv_backward", *listed(b))
        gx, gw, *_ = kernel.run(*listed(b))
    assert kernel.name == "hopper"
    (w0, dw, *_), alpha = b.parameters, b.parameters.alpha
    by_point = []
    for p, a in enumerate(alpha):
        gamma = w0.double() + (0 if dw is None else a * dw.double())
        by_point.append(conv2d_input(b.x[p].shape, gamma, b.gy[p].double(), padding=1))
    assert torch.equal(gx, torch.stack(by_point).half())
    each = b.x.shape[1] // b.images
    for n in range(b.images):
        x, gy = (part[:, n * each : (n + 1) * each].flatten(0, 1).double() for part in (b.x, b.gy))
        exact = conv2d_weight(x, w0.shape, gy, padding=1)
        assert (gw[n] - exact).norm() <= 1e-3 * exact.norm()


def test_gradients_of_weights_alone_are_left_to_cudnn(kernels):
    b = backward_arguments(size=(4, 5), points=1, images=1, needs=(False, True))
    with kernels():
        assert choose("conv_backward", *listed(b)).name == "cuda"


@pytest.mark.parametrize("cores", ["1", "3", "5", "100"])
@pytest.mark.parametrize("order", ["0", "1"])
def test_any_number_of_blocks_and_order_of_threads(cores, order, kernels, monkeypatch):
    """Blocks may begin and end inside a point, hold several points, or hold none."""
    monkeypatch.setenv("FAIGFAST_CORES", cores)
    monkeypatch.setenv("FAIGFAST_ORDER", order)
    case = conv_case(**LAYER, size=(20, 17), points=3, images=1, residual="points")
    with kernels():
        y = forward(case, torch.float16)
    assert torch.equal(y, forward(case, torch.float64).to(torch.float16))


def test_warps_that_lag_behind_a_change_of_point(kernels, monkeypatch):
    """One tile a point: a warp group without a tile must not release the point's weights early."""
    monkeypatch.setenv("FAIGFAST_CORES", "1")
    monkeypatch.setenv("FAIGFAST_ORDER", "2")
    case = conv_case(**LAYER, size=(3, 5), points=5, images=1, activation="relu")
    with kernels():
        y = forward(case, torch.float16)
    assert torch.equal(y, forward(case, torch.float64).to(torch.float16))


@pytest.mark.parametrize("residual", [None, "points"])
def test_tiles_that_arrive_out_of_order(residual, kernels, monkeypatch):
    """A warp group that is done early must not take a late tile for the next one in its stage."""
    monkeypatch.setenv("FAIGFAST_CORES", "1")
    monkeypatch.setenv("FAIGFAST_ORDER", "3")
    case = conv_case(**LAYER, size=(4, 16 * 5), points=2, images=1, residual=residual)
    with kernels():
        y = forward(case, torch.float16)
    assert torch.equal(y, forward(case, torch.float64).to(torch.float16))


def test_values_of_any_size(kernels):
    case = conv_case(channels=(64, 64), size=(13, 18), points=2, images=1, activation="relu")
    case = case.to(torch.float16)
    with kernels():
        y = forward(case, torch.float16)
    exact = forward(case, torch.float64)
    assert (y - exact).norm() <= 2e-3 * exact.norm()


def test_what_is_no_number_stays_near_where_it_was(kernels):
    case = conv_case(**LAYER, size=(20, 20), points=1, images=1, activation="relu")
    case.x[..., 5, 9, 9] = torch.nan
    with kernels():
        y = forward(case, torch.float16)[0, 0, 0]
    expected = torch.zeros(64, 20, 20, dtype=torch.bool)
    expected[:, 8:11, 8:11] = True
    assert torch.equal(y.isnan(), expected)


def test_values_that_lie_unaligned(kernels):
    case = conv_case(**LAYER, size=(4, 5), points=1, images=1).to(torch.float16)
    memory = torch.empty(case.x.numel() + 3, dtype=torch.float16)
    x = memory[3:].view(case.x.movedim(3, -1).shape).copy_(case.x.movedim(3, -1))
    x = x.movedim(-1, 3).flatten(1, 2)
    (w0, dw), (b0, db), _ = case.line
    given = (w0, dw, b0, db, None, None, case.alpha, None, None, None, None)
    geometry = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, "none", 0.0, 1.0, 1)
    with kernels():
        y, _ = conv(x, *given, *geometry)
    w, b = (p + case.alpha * d for p, d in ((w0, dw), (b0, db)))
    assert torch.equal(y[0].float(), F.conv2d(x[0].float(), w.float(), b.float(), padding=1))


NOTHING = dict(
    points=1, samples=1, height=1, width=1, shared=False, residual_shared=False, x=0, gamma=0,
    bias=0, residual=0, y=0, activation="none", slope=0.0, scale=1.0,
)  # fmt: skip


def test_a_call_that_failed_leaves_no_error_to_the_next_launch(kernels, module):
    with pytest.raises(RuntimeError, match="CUDA kernel convolution64 cannot use its device"):
        module.convolution64(device=4711, stream=0, type="fp16", **NOTHING)
    case = conv_case(**LAYER, size=(3, 3), points=1, images=1)
    with kernels():
        y = forward(case, torch.float16)
    assert torch.equal(y, forward(case, torch.float64).to(torch.float16))


def test_a_type_that_it_has_not(module):
    with pytest.raises(ValueError, match="type is 'int8'; expected fp16 or bf16"):
        module.convolution64(device=0, stream=0, type="int8", **NOTHING)


def arguments(**options):
    case = conv_case(**(LAYER | options)).to(options.pop("dtype", torch.float16))
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "faigfast.ops.registry.choose",
            lambda name, *args: calls.append(args) or choose(name, *args),
        )
        forward(case, case.x.dtype)
    return calls[0]


def test_a_layer_that_another_kernel_serves_fails(kernels, monkeypatch):
    monkeypatch.delenv("FAIGFAST_HOPPER")
    case = conv_case(**LAYER, size=(3, 3), points=1, images=1)
    with pytest.raises(AssertionError), kernels(), served_by("hopper"):
        forward(case, torch.float16)


def test_it_is_not_taken_until_it_is_asked_for(kernels, module, monkeypatch):
    given = arguments(size=(3, 3))
    with kernels():
        assert choose("conv", *given).name == "hopper"
    monkeypatch.delenv("FAIGFAST_HOPPER")
    use = Use("cuda")
    with emulated(module), using(use):
        assert choose("conv", *given).name == "cuda"
        assert "not yet run on a device" in explain("conv", *given)["hopper"]
    assert not use.refused


REFUSED = {
    "the weight is 64×48×3×3": dict(channels=(48, 64)),
    "the weight is 64×64×1×1": dict(kernel=1, padding=0),
    "stride, padding": dict(stride=2),
    "shuffle are not 1": dict(shuffle=2),
    "it does not take silu": dict(activation="silu"),
    "it does not take relu with what follows": dict(activation="relu", residual="points"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_it_refuses(why, kernels):
    given = arguments(size=(4, 4), **REFUSED[why])
    with kernels():
        assert why in explain("conv", *given)["hopper"]
        assert choose("conv", *given).name == "cuda"
