import pytest
import torch

from faigfast.backend.cpu import extension as _extension
from faigfast.ops import score_reduction, score_reduction_reference
from faigfast.ops.score_reduction import launch

EXTENSION = _extension.module
COMPILED = EXTENSION.supported() if EXTENSION else []
DTYPES = (torch.float32, torch.float64)

# [N, O, I, *k]: odd sizes around every vector width, every kernel size of a convolution.
SHAPES = [
    (1, 1, 1, 1, 1),
    (1, 1, 1, 3, 3),
    (3, 5, 1, 3, 3),
    (2, 16, 3, 3, 3),
    (2, 7, 5, 3, 3),
    (1, 48, 100, 3, 3),
    (2, 64, 65, 3, 3),
    (2, 3, 5, 1, 1),
    (4, 100, 16, 1, 1),
    (2, 9, 3, 5, 5),
    (3, 3, 16, 7, 7),
    (2, 5, 3, 9, 9),
    (2, 6, 5, 3),
    (2, 5, 4, 2, 2),
    (2, 4, 3, 1, 5),
    (2, 3, 5, 3, 3, 3),
    (2, 2, 3, 11, 13),
    (1, 256, 1, 4, 4),
]
EMPTY = [(0, 3, 2, 3, 3), (2, 0, 2, 3, 3), (2, 3, 0, 3, 3), (2, 3, 2, 0, 3)]

needs_extension = pytest.mark.skipif(
    EXTENSION is None, reason=f"the extension is missing: {_extension.missing}"
)


def isas(*names):
    """Every instruction set of the extension, by name; one that cannot run here is skipped."""
    return pytest.mark.parametrize(
        "isa",
        [
            pytest.param(
                name,
                marks=pytest.mark.skipif(name not in COMPILED, reason=f"{name} cannot run here"),
            )
            for name in names
        ],
    )


def random(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = torch.randn(shape, generator=generator, dtype=dtype)
    return total, torch.randn(shape[1:], generator=generator, dtype=dtype)


def integers(shape, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    total = torch.randint(-9, 10, shape, generator=generator).to(dtype)
    return total, torch.randint(-9, 10, shape[1:], generator=generator).to(dtype)


def test_the_twin_is_the_definition():
    total, delta = random((2, 3, 4, 3, 3), torch.float64)
    scores = score_reduction_reference(total, delta)
    for n in range(2):
        for o in range(3):
            for i in range(4):
                expected = sum(
                    abs(delta[o, i, y, x] * total[n, o, i, y, x])
                    for y in range(3)
                    for x in range(3)
                )
                assert scores[n, o * 4 + i] == pytest.approx(expected.item(), rel=1e-14)


@isas("portable", "avx2", "avx512")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES + EMPTY, ids=str)
def test_integers_are_equal_to_the_bit(shape, dtype, isa, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", isa)
    assert EXTENSION.isa() == isa
    total, delta = integers(shape, dtype)
    expected = score_reduction_reference(total, delta)
    scores = torch.full_like(expected, torch.nan)
    launch(total, delta, scores)
    assert torch.equal(scores, expected)
    assert torch.equal(score_reduction(total, delta), expected)


@isas("portable", "avx2", "avx512")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_numbers(shape, dtype, isa, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", isa)
    total, delta = random(shape, dtype)
    exact = score_reduction_reference(total.double(), delta.double())
    # All terms are positive: no cancellation, a few roundings.
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(
        score_reduction(total, delta).double(), exact, rtol=tolerance, atol=0
    )


@isas("portable", "avx2", "avx512")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 9, 25])
def test_inf_and_nan_stay_in_their_kernel(k, dtype, isa, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", isa)
    total, delta = integers((2, 5, 7, k), dtype)
    for place, value in (((0, 1, 2, k - 1), torch.nan), ((1, 0, 0, 0), torch.inf)):
        total[place] = value
    total[0, 4, 6, 0] = -torch.inf
    delta[4, 6, 0] = 0  # 0 · inf is NaN
    delta[0, 0, 0] = -2
    expected = score_reduction_reference(total, delta)
    assert expected.isnan().sum() == 2 and expected.isinf().sum() == 1
    torch.testing.assert_close(
        score_reduction(total, delta), expected, rtol=0, atol=0, equal_nan=True
    )


@isas("portable", "avx2", "avx512")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 3, 3, 3, 3), (2, 5, 7, 3, 3), (1, 3, 2, 1, 1)], ids=str)
def test_nothing_is_written_beside_the_scores(shape, dtype, isa, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", isa)
    total, delta = integers(shape, dtype)
    n, f = shape[0], shape[1] * shape[2]
    buffer = torch.full((n * f + 64,), torch.nan, dtype=dtype)
    launch(total, delta, buffer[32 : 32 + n * f].view(n, f))
    assert buffer[:32].isnan().all() and buffer[32 + n * f :].isnan().all()
    assert not buffer[32 : 32 + n * f].isnan().any()


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [1, 3])
def test_addresses_need_no_alignment(dtype, offset):
    total, delta = integers((2, 5, 7, 3, 3), dtype)
    moved = [torch.empty(t.numel() + offset, dtype=dtype) for t in (total, delta)]
    for tensor, buffer in zip((total, delta), moved, strict=True):
        buffer[offset:] = tensor.flatten()
    views = [b[offset:].view(t.shape) for t, b in zip((total, delta), moved, strict=True)]
    assert torch.equal(score_reduction(*views), score_reduction_reference(total, delta))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strided_inputs(dtype):
    total, delta = integers((3, 6, 5, 3, 3), dtype)
    expected = score_reduction_reference(total, delta)
    last = torch.channels_last
    assert torch.equal(
        score_reduction(
            total.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
            delta.contiguous(memory_format=last),
        ),
        expected,
    )
    half = score_reduction(total[::2, :, 1:4], delta[:, 1:4])
    assert torch.equal(half, expected.view(3, 6, 5)[::2, :, 1:4].reshape(2, -1))
    once = score_reduction(total[:1].expand(4, -1, -1, -1, -1), delta)
    assert torch.equal(once, expected[:1].expand(4, -1))


@needs_extension
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(3, 64, 97, 3, 3), (1, 129, 64, 3, 3), (5, 40, 40, 5, 5)], ids=str
)
def test_threads_do_not_show(shape, dtype):
    total, delta = random(shape, dtype)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            results.append(score_reduction(total, delta))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_image_does_not_see_the_others(dtype):
    total, delta = random((4, 9, 31, 3, 3), dtype)
    alone = torch.cat([score_reduction(image[None], delta) for image in total])
    assert torch.equal(score_reduction(total, delta), alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_go_to_the_twin(dtype):
    total, delta = integers((2, 3, 4, 3, 3), dtype)
    scores = score_reduction(total, delta)
    assert scores.dtype == dtype
    assert torch.equal(scores, score_reduction_reference(total, delta))


@pytest.mark.parametrize("shape", [(2, 3, 2, 3, 3), (1, 2, 3, 2), (3, 1, 1, 1, 1)], ids=str)
def test_gradients_in_float64(shape):
    total, delta = (t.requires_grad_() for t in random(shape, torch.float64))
    assert torch.autograd.gradcheck(score_reduction, (total, delta))
    assert torch.autograd.gradgradcheck(score_reduction, (total, delta))


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_the_twins(dtype):
    total, delta = integers((3, 5, 7, 3, 3), dtype)
    gy = torch.randint(-5, 6, (3, 35), generator=torch.Generator().manual_seed(1)).to(dtype)
    for function in (score_reduction, score_reduction_reference):
        inputs = total.clone().requires_grad_(), delta.clone().requires_grad_()
        gradients = torch.autograd.grad(function(*inputs), inputs, gy)
        if function is score_reduction:
            fused = gradients
    assert all(torch.equal(a, b) for a, b in zip(fused, gradients, strict=True))


def test_it_is_a_torch_operation():
    total, delta = random((2, 3, 4, 3, 3), torch.float32)
    assert torch.equal(
        torch.ops.faigfast.score_reduction(total, delta), score_reduction(total, delta)
    )
    assert score_reduction(total.to("meta"), delta.to("meta")).shape == (2, 12)


T, D = torch.ones(2, 3, 4, 3, 3), torch.ones(3, 4, 3, 3)


@pytest.mark.parametrize(
    ("total", "delta", "error", "message"),
    [
        (None, D, TypeError, "total is of type NoneType; expected a tensor"),
        (T, 1.0, TypeError, "delta is of type float; expected a tensor"),
        (T.int(), D, TypeError, "total is of dtype torch.int32; expected a floating-point dtype"),
        (T, D.bool(), TypeError, "delta is of dtype torch.bool; expected a floating-point dtype"),
        (T, D.double(), TypeError, "delta is of dtype torch.float64; expected that of total"),
        (T, D[:2], ValueError, r"total has shape \[2, 3, 4, 3, 3\] and delta \[2, 4, 3, 3\]"),
        (T[0], D, ValueError, r"expected \[N, O, I, \*k\] and \[O, I, \*k\]"),
        (T[..., 0, 0], D[..., 0, 0], ValueError, r"expected \[N, O, I, \*k\] and \[O, I, \*k\]"),
        (T, D.to("meta"), ValueError, "delta is on meta; expected cpu, where total is"),
    ],
)
def test_bad_arguments(total, delta, error, message):
    with pytest.raises(error, match=message):
        score_reduction(total, delta)


@needs_extension
@pytest.mark.parametrize("asked", ["AVX2", "sse", "avx512 "])
def test_unknown_instruction_set(asked, monkeypatch):
    monkeypatch.setenv("FAIGFAST_ISA", asked)
    with pytest.raises(ValueError, match=f'FAIGFAST_ISA is "{asked}"; this build has portable'):
        score_reduction(T, D)


@needs_extension
def test_the_best_instruction_set_is_taken(monkeypatch):
    monkeypatch.delenv("FAIGFAST_ISA", raising=False)
    assert EXTENSION.isa() == COMPILED[-1]
    assert COMPILED[0] == "portable"
