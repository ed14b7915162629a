"""The Triton kernels on a GPU, every mode against float64. Skipped without a GPU."""

from dataclasses import replace

import pytest
import torch
from cases.path_operations import assert_near, conv_case, expected, operation_values, poisoned
from cases.triton_calls import CASES, KINDS, OTHERS, masters_of

from faigfast import attribute
from faigfast.backend.gpu import triton_support as _triton
from faigfast.ops import score_reduction, score_reduction_reference
from faigfast.ops.registry import Use, using
from faigfast.ops.squared_error.operation import squared_error, squared_error_backward
from faigfast.zoo.pairs import shipped_pair

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        bool(_triton.refuses()) or _triton.interpreted(),
        reason=f"the kernels were not run on a device: {_triton.refuses() or 'the interpreter'}",
    ),
]
# Relative L2 of every value and gradient of one point and image.
BOUNDS = {"bf16x3": 1e-5, "tf32": 2e-3, "fp16": 2e-3, "bf16": 2e-2}
# Near a kink, rounding decides the side, so both slopes are nearly equal.
SMOOTH = dict(activation="leaky_relu", slope=0.9)


def on_gpu(case):
    def moved(part):
        return None if part is None else part.cuda()

    line = [None if part is None else tuple(map(moved, part)) for part in case.line]
    parts = {name: moved(getattr(case, name)) for name in ("x", "alpha", "residual")}
    return replace(case, line=line, **parts)


def assert_right(case, mode="bf16x3", masters=False):
    kind = KINDS.get(mode, torch.float32)
    given = on_gpu(masters_of(case, kind) if masters else case.to(kind))
    use = Use("triton", mode=mode)
    with using(use), poisoned():
        result = operation_values(given)
    assert not use.refused
    assert_near(result, expected(given.to(torch.float64)), BOUNDS[mode])


@pytest.mark.parametrize("tuned", ["0", "1"])
@pytest.mark.parametrize("name", CASES)
def test_cases(name, tuned, monkeypatch):
    monkeypatch.setenv("FAIGFAST_TUNE", tuned)
    assert_right(conv_case(**CASES[name]))


@pytest.mark.parametrize("channels", [(3, 64), (64, 64), (64, 3), (100, 48), (256, 16)], ids=str)
@pytest.mark.parametrize("mode", BOUNDS)
def test_modes(mode, channels):
    case = conv_case(channels=channels, size=(47, 31), residual="points", **SMOOTH)
    assert_right(case, mode, masters=mode in KINDS)
    assert_right(
        conv_case(channels=(64, 256), shuffle=2, size=(9, 7), **SMOOTH), mode, mode in KINDS
    )


@pytest.mark.parametrize("name", OTHERS)
def test_other_operations(name):
    make, options = OTHERS[name]
    assert_right(make(**options))


SMALL = ["7×5", "shuffled, residual", "prelu", "kernel 5, stride 2, dilation 2"]


@pytest.mark.parametrize("name, mode", [(SMALL[0], mode) for mode in BOUNDS] + [
    (name, "bf16x3") for name in SMALL[1:]
])  # fmt: skip
def test_small_layers(name, mode):
    """Memcheck and racecheck run this test too, as every test with "small" in its name."""
    smooth = SMOOTH if mode != "bf16x3" else {}
    assert_right(conv_case(**(CASES[name] | smooth)), mode, masters=mode in KINDS)


@pytest.mark.parametrize("name", ["linear", "affine", "affine, channels last", "prelu"])
def test_small_operations(name):
    make, options = OTHERS[name]
    assert_right(make(**options))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 3, 3), (3, 33, 40, 3, 3)], ids=str)
def test_small_scores(shape):
    generator = torch.Generator().manual_seed(0)
    total = torch.randint(-9, 10, shape, generator=generator).float()
    delta = torch.randint(-9, 10, shape[1:], generator=generator).float()
    use = Use("triton")
    with using(use), poisoned():
        scores = score_reduction(total.cuda(), delta.cuda())
    assert not use.refused
    assert torch.equal(scores.cpu(), score_reduction_reference(total, delta))


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5000)], ids=str)
def test_small_squared_errors(shape, kind):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(shape, generator=generator).to(kind)
    gt, weights = torch.randn(shape[1:], generator=generator), torch.rand(shape[:2])
    use = Use("triton")
    with using(use), poisoned():
        losses, most = squared_error(y.cuda(), gt.cuda())
        gy = squared_error_backward(y.cuda(), gt.cuda(), weights.cuda())
    assert not use.refused and gy.dtype == kind
    difference = y.double() - gt.double()
    torch.testing.assert_close(losses.cpu().double(), difference.square().sum(2), rtol=1e-5, atol=0)
    torch.testing.assert_close(most.cpu().double(), difference.abs().amax(2), rtol=1e-6, atol=0)
    exact = 2 * weights.double()[..., None] * difference
    assert (gy.cpu() - exact).norm() / exact.norm() < {2: 1e-2, 4: 1e-6}[y.element_size()]


@pytest.mark.parametrize("precision", ["fp32", "bf16x3", "tf32", "fp16", "bf16"])
def test_trained_pair(precision):
    """The top 1 % overlaps with float64's, and no network runs point by point."""
    baseline, target = (net.cuda() for net in shipped_pair())
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.interpolate(
        torch.rand(2, 3, 12, 12, generator=generator), size=(48, 48), mode="bicubic"
    ).cuda()
    gt = torch.nn.functional.interpolate(x, scale_factor=2.0, mode="bicubic")
    result = attribute(baseline, target, (x, gt), backend="triton", precision=precision)
    exact = attribute(
        *(net.double() for net in (baseline, target)), (x.double(), gt.double()),
        backend="torch",
    )  # fmt: skip
    assert not any("point by point" in note for note in result.notes), result.notes
    for a, b in zip(result.scores(), exact.scores(), strict=True):
        best = len(b) // 100
        top, expected_top = (set(part.topk(best).indices.tolist()) for part in (a, b))
        assert len(top & expected_top) / best >= (0.995 if precision == "fp32" else 0.99)
