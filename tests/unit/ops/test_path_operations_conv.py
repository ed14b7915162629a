"""Path convolution: values and every gradient beside plain autograd."""

from itertools import combinations, product

import pytest
import torch
from cases.path_operations import (
    PLAIN_ACTIVATIONS,
    arguments,
    assert_equal,
    assert_near,
    conv_case,
    expected,
    operation_values,
    upstream,
)

from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.conv.operation import conv, conv_backward
from faigfast.ops.path_values import new_gradient_sums

DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5}

GEOMETRIES = {
    "1x1 pixel": dict(size=(1, 1), channels=(1, 1), points=1, images=1),
    "1x1 pixel, many": dict(size=(1, 1), channels=(5, 3), points=3, images=3),
    "1xN": dict(size=(1, 9), channels=(3, 16), points=1),
    "Nx1": dict(size=(9, 1), channels=(16, 1), images=1),
    "7x5": dict(channels=(16, 48), points=3),
    "47x31": dict(size=(47, 31), channels=(3, 5)),
    "wide": dict(channels=(64, 100), size=(5, 7), points=1),
    "wider": dict(channels=(100, 256), size=(3, 3), kernel=1, padding=0, images=1),
    "many points": dict(points=7, images=1, size=(4, 3)),
    "many images": dict(points=1, images=7, size=(4, 3)),
    "samples": dict(samples=3, images=2, points=2),
    "samples of one image": dict(samples=4, images=1, points=3),
    "samples of many images, one point": dict(samples=2, images=3, points=1),
    "kernel 1": dict(kernel=1, padding=0),
    "kernel 9": dict(kernel=9, padding=4, size=(11, 10)),
    "kernel 2x5": dict(kernel=(2, 5), padding=(1, 0), size=(6, 9)),
    "stride": dict(stride=(2, 3), size=(8, 11)),
    "dilation": dict(dilation=(2, 1), padding=(2, 1)),
    "groups": dict(channels=(6, 4), groups=2),
    "depthwise": dict(channels=(5, 5), groups=5),
    "no padding": dict(padding=0),
    "more padding than kernel": dict(padding=4, size=(3, 2)),
    "1-d": dict(size=(9,), stride=2),
    "1-d groups": dict(size=(9,), channels=(4, 6), groups=2, points=1),
    "3-d": dict(size=(3, 4, 5), stride=(1, 2, 1)),
    "transposed": dict(transposed=True, stride=2, output_padding=1),
    "transposed dilation": dict(transposed=True, stride=(3, 2), dilation=2, output_padding=1),
    "transposed groups": dict(transposed=True, channels=(6, 4), groups=2, points=1),
    "transposed 1-d": dict(transposed=True, size=(6,), stride=3, output_padding=2),
    "transposed 3-d": dict(transposed=True, size=(2, 3, 4), stride=2, output_padding=1, images=1),
    "no bias": dict(bias=None),
    "bias stands still": dict(bias="still"),
    "weight stands still": dict(weight="still"),
    "weight stands still, samples": dict(weight="still", samples=2, points=1),
    "shared": dict(shared=True, points=3),
    "shared, one image": dict(shared=True, points=2, images=1),
    "channels last": dict(layout="channels last"),
    "channels last, one point": dict(layout="channels last", points=1, images=3),
    "channels last, one sample": dict(layout="channels last", points=1, images=1),
    "channels last 3-d": dict(layout="channels last", size=(3, 4, 5)),
    "channels last samples": dict(layout="channels last", samples=2, shared=True, points=3),
    "strided": dict(layout="strided"),
    "strided, one point": dict(layout="strided", points=1, samples=2),
    "images alike": dict(layout="images alike", points=2, images=3),
    "shuffle": dict(channels=(3, 8), shuffle=2, samples=2),
    "shuffle, one point": dict(channels=(2, 18), shuffle=3, points=1, layout="channels last"),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(name, dtype):
    case = conv_case(**GEOMETRIES[name], activation="silu", residual="points").to(dtype)
    assert_near(operation_values(case), expected(case.to(torch.float64)), DTYPES[dtype])
    bare = conv_case(**GEOMETRIES[name], seed=1).to(dtype)
    assert_near(operation_values(bare), expected(bare.to(torch.float64)), DTYPES[dtype])


FUSED = {
    **{name: dict(activation=name) for name in ACTIVATIONS},
    "prelu of one slope": dict(activation="prelu", single=True),
    "prelu that stands still": dict(activation="prelu", slopes="still"),
    "prelu of one slope that stands still": dict(activation="prelu", slopes="still", single=True),
    "only the slope moves": dict(activation="prelu", weight="still", bias="still"),
    "steep leaky_relu": dict(activation="leaky_relu", slope=1.7),
}


@pytest.mark.parametrize("residual", [None, "points", "shared"])
@pytest.mark.parametrize("scale", [1.0, 0.3, -1.5])
@pytest.mark.parametrize("name", FUSED)
def test_activation_scale_and_residual(name, scale, residual):
    options = dict(**FUSED[name], scale=scale, residual=residual, channels=(2, 4), size=(4, 3))
    for points, images, samples in ((2, 2, 2), (1, 2, 1), (1, 1, 1), (3, 1, 1)):
        case = conv_case(points=points, images=images, samples=samples, **options)
        assert_near(operation_values(case), expected(case), 1e-12)


@pytest.mark.parametrize("name", FUSED)
def test_activations_in_float32(name):
    case = conv_case(**FUSED[name], scale=0.2, residual="points", channels=(5, 16), points=1)
    case = case.to(torch.float32)
    assert_near(operation_values(case), expected(case.to(torch.float64)), 1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("residual", [None, "points", "shared"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("activation", ["none", "relu", "leaky_relu", "prelu"])
def test_integers_are_equal_to_the_bit(activation, scale, residual, dtype):
    options = dict(activation=activation, scale=scale, residual=residual, slope=0.5, integers=True)
    for more in (
        dict(layout="channels last"),
        dict(points=3, shared=True, samples=2),
        dict(points=1, transposed=True, stride=2, output_padding=1),
        dict(points=1, images=3, channels=(16, 5), single=True),
        dict(size=(9,), channels=(4, 6), groups=2),
    ):
        case = conv_case(**options, **more).to(dtype)
        assert_equal(operation_values(case), expected(case.to(torch.float64)))


ROLES = ("x", "weight", "bias", "slope", "residual")


@pytest.mark.parametrize(
    "needed", [c for n in range(1, 6) for c in combinations(ROLES, n)], ids=str
)
@pytest.mark.parametrize("images", [1, 2])
def test_only_what_is_needed_has_a_gradient(needed, images):
    """Every set of roles gets the gradients that all together get."""
    options = dict(points=2, images=images, activation="prelu", residual="points", scale=0.5)
    case = conv_case(channels=(2, 3), size=(3, 4), **options)
    every = operation_values(case)
    given = dict(zip(ROLES, (case.x, *(w for w, _ in case.line), case.residual), strict=True))
    gradient_sums = {
        role: new_gradient_sums(given[role].shape, images, given[role]) if role in needed else None
        for role in ROLES[1:4]
    }
    x, residual = (given[r].clone().requires_grad_(r in needed) for r in ("x", "residual"))
    line = [(*part, total) for part, total in zip(case.line, gradient_sums.values(), strict=True)]
    y = case.run(x, line, case.alpha, residual)
    y.backward(upstream(case, y))
    grads = dict(x=x.grad, residual=residual.grad) | {
        role: None if total is None else total.grad for role, total in gradient_sums.items()
    }
    full = dict(zip(ROLES, (every.gx, *every.sums, every.gr), strict=True))
    for role in ROLES:
        if role in needed:
            torch.testing.assert_close(grads[role], full[role], rtol=1e-12, atol=1e-12)
        else:
            assert grads[role] is None, role


@pytest.mark.parametrize("gy", ["ones", "channels last", "strided"])
@pytest.mark.parametrize("name", ["none", "relu", "silu", "prelu"])
@pytest.mark.parametrize("points", [1, 2])
def test_layouts_of_the_gradient(points, name, gy):
    case = conv_case(points=points, activation=name, samples=2)
    y = expected(case).y  # [P, N, b, O, H, W]
    given = {
        "ones": torch.ones(()).to(y).expand(y.shape),
        "channels last": upstream(case, y).movedim(3, -1).contiguous().movedim(-1, 3),
        "strided": upstream(case, torch.cat([y, y], -1))[..., ::2],
    }[gy]
    assert_near(
        operation_values(case, gy=given), operation_values(case, gy=given.contiguous()), 1e-14
    )


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("residual", [None, "shared"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("points", [1, 2])
def test_what_the_gradient_needs_is_kept_and_no_more(points, scale, residual, name):
    case = conv_case(points=points, activation=name, scale=scale, residual=residual, shared=True)
    given = arguments(case)[0][1]
    y, saved = conv(*given)
    changed = scale != 1 or residual is not None
    if name == "none" or not (changed or ACTIVATIONS[name]):
        assert saved.shape == (0,)
    else:
        inner = "none" if ACTIVATIONS[name] else name
        kept = conv(*given[:11], None, *given[12:-4], inner, given[-3], 1.0, 1)[0]
        torch.testing.assert_close(saved, kept.detach(), rtol=0, atol=0)
    # Nothing of the two is in the other's memory, or in that of what was given.
    memory = [t.untyped_storage().data_ptr() for t in (y, saved) if t.numel()]
    memory += {t.untyped_storage().data_ptr() for t in given if isinstance(t, torch.Tensor)}
    assert len(set(memory)) == len(memory)
    assert y.requires_grad and not saved.requires_grad


@pytest.mark.parametrize("needs", list(product([False, True], repeat=4)), ids=str)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("points", [1, 2])
def test_what_is_not_needed_is_empty(points, images, needs):
    case = conv_case(points=points, images=images, activation="prelu", residual="points")
    (_, _), (_, given) = arguments(case)
    full = conv_backward(*given[:10], [True] * 4, *given[11:])
    some = conv_backward(*given[:10], list(needs), *given[11:])
    for need, gradient, wanted in zip(needs, some, full, strict=True):
        assert gradient.shape == (wanted.shape if need else (0,))
        torch.testing.assert_close(gradient, wanted[:] if need else wanted.new_empty(0))
    assert full[0].shape == (points, images, 3, 7, 5)
    assert [len(part) for part in full[1:]] == [images] * 3


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (1, 3, 2, 5), (2, 3, 1, 2, 2)], ids=str)
def test_activations(name, shape):
    generator = torch.Generator().manual_seed(0)
    z, gy = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    z.flatten()[0] = 0  # a kink
    for slope in (torch.tensor([0.2]), torch.tensor([0.1, 0.2, -0.3])):
        slope = slope.double() if name == "prelu" else 0.2
        leaf = z.clone().requires_grad_()
        expected = PLAIN_ACTIVATIONS[name](leaf, slope)
        expected.backward(gy)
        out = activate(z.clone(), name, slope)
        torch.testing.assert_close(out, expected.detach(), rtol=0, atol=0)
        gz = activation_backward(gy, z if ACTIVATIONS[name] else out, name, slope)
        torch.testing.assert_close(gz, leaf.grad, rtol=1e-15, atol=0)


def test_an_unknown_activation_is_refused():
    with pytest.raises(KeyError, match="tanh"):
        conv(*arguments(conv_case())[0][1][:-4], "tanh", 0.0, 1.0, 1)
