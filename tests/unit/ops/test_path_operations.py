"""Path operations: values and gradients beside plain autograd, and what holds of all of them."""

from dataclasses import replace

import pytest
import torch
from cases.path_operations import (
    affine_case,
    assert_equal,
    assert_near,
    conv_case,
    embedding_case,
    expected,
    linear_case,
    operation_values,
    parameter_case,
    poisoned,
    prelu_case,
)
from torch.utils.checkpoint import checkpoint

from faigfast.ops.path_values import new_gradient_sums

DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5}
LAYOUTS = ("channels last", "strided", "images alike")
# For each operation: other numbers of points, images and rows, shapes, layouts, what stands still.
CASES = {
    "linear": (
        linear_case,
        dict(points=1, images=1, rows=1, features=(1, 1)),
        dict(points=3, images=1, features=(16, 48)),
        dict(points=1, images=3, rows=31, features=(48, 3)),
        dict(shared=True, points=3),
        dict(bias=None),
        dict(bias="still"),
        dict(weight="still"),
        dict(layout="strided"),
        dict(layout="images alike"),
    ),
    "affine": (
        affine_case,
        dict(points=1, images=1, rows=1, channels=1, size=1),
        dict(points=3, images=1, channels=48, size=5),
        dict(points=1, images=3, channels=16, size=31),
        dict(shared=True, points=3),
        dict(bias="still"),
        dict(weight="still"),
        dict(size=1),
        *(dict(layout=layout) for layout in LAYOUTS),
        dict(layout="channels last", shared=True, points=3),
    ),
    "prelu": (
        prelu_case,
        dict(points=1, images=1, rows=1, channels=1, size=1),
        dict(points=3, images=1, channels=48, size=5),
        dict(points=1, images=3, channels=16, size=31),
        dict(shared=True, points=3),
        dict(single=True),
        dict(single=True, channels=1),
        dict(weight="still"),
        *(dict(layout=layout) for layout in LAYOUTS),
        dict(layout="channels last", shared=True, points=3),
    ),
    "embedding": (
        embedding_case,
        dict(points=1, images=1, rows=1, table=(1, 1)),
        dict(points=3, images=3, rows=40, table=(7, 16)),
        dict(shared=True, points=3),
    ),
    "parameter": (
        parameter_case,
        dict(points=1, images=1, shape=()),
        dict(points=3, images=1, shape=(1, 4, 1, 1)),
        dict(points=1, images=3, shape=(5,)),
    ),
}
EACH = [
    pytest.param(make, options, id=f"{name} {options}")
    for name, (make, *several) in CASES.items()
    for options in ({}, *several)
]
MAKERS = {name: make for name, (make, *_) in CASES.items()}
MAKERS |= {
    "conv": conv_case,
    "fused conv": lambda **more: conv_case(
        activation="prelu", scale=0.5, residual="points", samples=2, **more
    ),
    "conv, channels last": lambda **more: conv_case(
        activation="silu", residual="shared", layout="channels last", **more
    ),
}
every_operation = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("make", "options"), EACH)
def test_values_and_gradients(make, options, dtype):
    case = make(**options).to(dtype)
    assert_near(operation_values(case), expected(case.to(torch.float64)), DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("make", "options"), EACH)
def test_integers_are_equal_to_the_bit(make, options, dtype):
    case = make(**options, integers=True).to(dtype)
    assert_equal(operation_values(case), expected(case.to(torch.float64)))


@every_operation
def test_a_gradient_from_a_sum_has_no_memory_of_its_own(make):
    case = make(images=3)
    y = expected(case).y
    ones = torch.ones((), dtype=y.dtype)
    assert_near(
        operation_values(case, gy=ones.expand(y.shape)),
        operation_values(case, gy=torch.ones_like(y)),
        1e-14,
    )


@pytest.mark.parametrize("points", [1, 3])
@every_operation
def test_what_memory_held_before_does_not_show(make, points):
    case = make(points=points).to(torch.float32)
    clean = operation_values(case)
    with poisoned():
        assert_equal(operation_values(case), clean)


@every_operation
def test_values_that_are_computed_again_for_backward(make):
    case = make()

    def again(x, line, alpha, residual):
        given = [t for part in line for t in part]

        def run(x, residual, *given):
            parts = [given[i : i + 3] for i in range(0, len(given), 3)]
            return case.run(x, parts, alpha, residual)

        return checkpoint(run, x, residual, *given, use_reentrant=False)

    assert_equal(operation_values(replace(case, run=again)), operation_values(case))


@every_operation
def test_the_order_of_images_does_not_matter(make):
    case, order = make(images=3, points=2), torch.tensor([2, 0, 1])
    gy = torch.randn(expected(case).y.shape, generator=torch.Generator().manual_seed(5)).double()

    def moved(t, dim=1):
        return None if t is None else t.index_select(dim, order)

    other = replace(case, x=moved(case.x), residual=moved(case.residual))
    result, reference = operation_values(other, gy=moved(gy)), operation_values(case, gy=gy)
    reference = replace(
        reference,
        y=moved(reference.y),
        gx=moved(reference.gx),
        gr=moved(reference.gr),
        sums=[moved(total, 0) for total in reference.sums],
    )
    assert_near(result, reference, 1e-14)


@every_operation
def test_an_image_does_not_see_the_others(make):
    case = make(images=3)
    gy = torch.randn(expected(case).y.shape, generator=torch.Generator().manual_seed(5)).double()
    every = operation_values(case, gy=gy)
    for n in range(3):
        x, residual = (t if t is None else t[:, n : n + 1] for t in (case.x, case.residual))
        alone = replace(case, x=x, residual=residual, images=1)
        result = operation_values(alone, gy=gy[:, n : n + 1])
        torch.testing.assert_close(result.y, every.y[:, n : n + 1], rtol=1e-13, atol=1e-13)
        for total, several in zip(result.sums, every.sums, strict=True):
            if total is not None:
                torch.testing.assert_close(total, several[n : n + 1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "shared"),
    [(name, shared) for name in MAKERS for shared in (False, True)[: 1 + (name != "parameter")]],
)
def test_points_in_two_calls_add_up(name, shared):
    case = MAKERS[name](points=5, **({"shared": True} if shared else {}))
    gy = torch.randn(expected(case).y.shape, generator=torch.Generator().manual_seed(5)).double()
    in_one_call = operation_values(case, gy=gy)
    parts = [operation_values(case, gy=gy, alpha=part) for part in (slice(0, 2), slice(2, 5))]
    torch.testing.assert_close(torch.cat([part.y for part in parts]), in_one_call.y, rtol=0, atol=0)
    for i, total in enumerate(in_one_call.sums):
        if total is not None:
            several = sum(part.sums[i] for part in parts)
            torch.testing.assert_close(several, total, rtol=1e-13, atol=1e-13)
    if shared and in_one_call.gx is not None:
        several = parts[0].gx + parts[1].gx
        torch.testing.assert_close(several, in_one_call.gx, rtol=1e-13, atol=1e-13)


@every_operation
def test_weights_of_points_scale_what_is_summed(make):
    """Σ_s w_s ∂L/∂γ_s: the upstream gradient of point s carries w_s."""
    case = make(points=3)
    gy = torch.randn(expected(case).y.shape, generator=torch.Generator().manual_seed(5)).double()
    weights = torch.tensor([0.2, 0.5, -0.3], dtype=torch.float64)
    shape = (3, *[1] * (gy.ndim - 1))
    result = operation_values(case, gy=gy * weights.view(shape))
    each = [operation_values(case, gy=gy, alpha=slice(p, p + 1)) for p in range(3)]
    for i, total in enumerate(result.sums):
        if total is not None:
            several = sum(w * one.sums[i] for w, one in zip(weights, each, strict=True))
            torch.testing.assert_close(total, several, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_sixteen_bits(name, dtype):
    # At a kink rounding would choose the side.
    smooth = {"fused conv": lambda: conv_case(activation="gelu", scale=0.5, residual="points")}
    case = {**MAKERS, **smooth}[name]().to(dtype)
    result = operation_values(case)
    assert result.y.dtype == dtype
    assert all(total is None or total.dtype == torch.float32 for total in result.sums)
    assert_near(result, expected(case.to(torch.float64)), 8 * torch.finfo(dtype).eps)


# y and every partial gradient is 1; 16-bit sums of so many would stop at 256 or 2048.
MANY = {
    "linear": lambda p: linear_case(points=p, images=2, rows=1, features=(1, 1), shared=True),
    "affine": lambda p: affine_case(points=p, rows=1, channels=1, size=1, shared=True),
    "prelu": lambda p: prelu_case(points=p, rows=1, channels=1, size=1, shared=True),
    "embedding": lambda p: embedding_case(points=p, rows=1, table=(1, 1)),
    "parameter": lambda p: parameter_case(points=p, shape=(1,)),
    "conv": lambda p: conv_case(
        points=p, channels=(1, 1), size=(1, 1), kernel=1, padding=0, shared=True
    ),
    "fused conv": lambda p: conv_case(
        points=p, channels=(1, 1), size=(1, 1), kernel=1, padding=0, shared=True,
        activation="prelu", residual="shared",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "points"), [(torch.bfloat16, 384), (torch.float16, 3072)], ids=str
)
@pytest.mark.parametrize("name", MANY)
def test_sums_over_many_points_are_not_rounded_to_sixteen_bits(name, dtype, points):
    case = MANY[name](points)

    def full(t, value=1.0):
        return t if t is None or not t.is_floating_point() else torch.full_like(t, value)

    line = [part and (full(part[0], 1.0), full(part[1], 0.0)) for part in case.line]
    # PReLU's slope has gradients where its input is negative.
    x = full(case.x, -1.0 if name in ("prelu",) else 1.0)
    if name == "fused conv":
        line[0] = (-line[0][0], line[0][1])
        line[1] = (0 * line[1][0], line[1][1])
    case = replace(case, x=x, line=line, residual=full(case.residual)).to(dtype)
    result = operation_values(case, gy=full(operation_values(case).y))
    for total in (*result.sums, result.gx, result.gr):
        if total is not None:
            assert torch.equal(total.abs(), torch.full_like(total, points))


@pytest.mark.parametrize(
    ("case", "places"),
    [
        (linear_case(points=1, rows=385, features=(1, 1)), [1]),
        (affine_case(points=1, rows=385, channels=1, size=1), [0, 1]),
        (prelu_case(points=1, rows=385, channels=1, size=1), [0]),
        (embedding_case(points=1, rows=385, table=(1, 1)), [0]),
        (conv_case(points=1, channels=(1, 2), size=(5, 77), activation="prelu"), [2]),
    ],
    ids=["linear", "affine", "prelu", "embedding", "conv"],
)
def test_sums_over_an_image_are_not_rounded_to_sixteen_bits(case, places):
    """385 is no number of bfloat16: only torch's own convolutions and products round it."""
    x = -torch.ones_like(case.x) if case.x.is_floating_point() else case.x
    line = [(0 * w0, None if dw is None else 0 * dw) for w0, dw in filter(None, case.line)]
    if len(line) == 3:
        line[1] = (line[1][0] - 1, line[1][1])  # the slope's gradient is the convolution, -1
    case = replace(case, x=x, line=line).to(torch.bfloat16)
    result = operation_values(case, gy=torch.ones_like(operation_values(case).y))
    for i in places:
        assert torch.equal(result.sums[i].abs(), torch.full_like(result.sums[i], 385))


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"embedding", "parameter"}))
def test_nothing_moves(name):
    """Without Δ and sums an operation is PyTorch's, with the gradient of x alone."""
    case = MAKERS[name]()
    still = replace(case, line=[part and (part[0], None) for part in case.line])
    result = operation_values(still)
    assert result.sums == [None] * len(case.line)
    assert_near(result, expected(still), 1e-12)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("points", [1, 3])
@pytest.mark.parametrize(
    "make",
    [
        conv_case,
        lambda **more: conv_case(activation="relu", scale=0.5, residual="shared", **more),
        lambda **more: affine_case(size=35, **more),
        lambda **more: prelu_case(size=35, **more),
    ],
)
def test_channels_last_stays_channels_last(make, points, images):
    case = make(layout="channels last", points=points, images=images).to(torch.float32)
    result = operation_values(case)
    for t in (result.y, result.gx):
        for one in t.flatten(1, 2):  # [M, C, ...]
            assert one.movedim(1, -1).is_contiguous()


@pytest.mark.parametrize("index", [-1, 5])
def test_an_embedding_refuses_rows_that_are_not_in_the_table(index):
    case = embedding_case(table=(5, 3))
    with pytest.raises(IndexError):
        operation_values(replace(case, x=torch.full_like(case.x, index)))


def test_a_parameter_used_twice_collects_both_gradients():
    case = linear_case(features=(4, 4), points=3)
    (w0, dw), _ = case.line
    gradient_sums = new_gradient_sums(w0.shape, 2, w0)
    line = [(w0, dw, gradient_sums), (None, None, None)]
    y = case.run(case.run(case.x, line, case.alpha, None), line, case.alpha, None)
    y.square().sum().backward()
    for n in range(2):
        total = 0
        for p, a in enumerate(case.alpha):
            w = (w0 + a * dw).requires_grad_()
            (case.x[p, n] @ w.T @ w.T).square().sum().backward()
            total = total + w.grad
        torch.testing.assert_close(gradient_sums.grad[n], total, rtol=1e-12, atol=1e-12)


def test_gradients_of_chunks_add_up_where_they_are_collected():
    case = affine_case(points=4)
    (w0, dw), (b0, db) = case.line
    gradient_sums = [new_gradient_sums(w0.shape, 2, w0), new_gradient_sums(b0.shape, 2, b0)]
    line = [(w0, dw, gradient_sums[0]), (b0, db, gradient_sums[1])]
    for part in (slice(0, 1), slice(1, 4)):
        case.run(case.x[part], line, case.alpha[part], None).sum().backward()
    once = operation_values(case, gy=torch.ones_like(case.x))
    for total, reference in zip(gradient_sums, once.sums, strict=True):
        torch.testing.assert_close(total.grad, reference, rtol=1e-13, atol=1e-13)
