"""Path operations as operations of torch: schema, fake tensors, autograd, the dispatcher."""

import pytest
import torch
from cases.path_operations import (
    affine_case,
    arguments,
    assert_equal,
    conv_case,
    embedding_case,
    linear_case,
    operation_values,
    parameter_case,
    prelu_case,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from faigfast.ops import affine, embedding, parameter, prelu
from faigfast.ops.conv import operation as conv
from faigfast.ops.linear import operation as linear

OPERATIONS = {
    operation.name: operation
    for operation in (
        affine.affine,
        affine.affine_backward,
        conv.conv,
        conv.conv_backward,
        embedding.embedding,
        embedding.embedding_backward,
        linear.linear,
        linear.linear_backward,
        parameter.parameter,
        prelu.prelu,
        prelu.prelu_backward,
    )
}
FORWARD = [name for name in OPERATIONS if not name.endswith("_backward")]
MAKERS = {
    "affine": affine_case,
    "conv": conv_case,
    "embedding": embedding_case,
    "linear": linear_case,
    "parameter": parameter_case,
    "prelu": prelu_case,
}
small = dict(size=(4, 3), channels=(2, 3))
CALLS = {
    "conv": conv_case(**small),
    "conv, channels last, one point": conv_case(
        **small, points=1, layout="channels last", activation="relu"
    ),
    "conv, fused": conv_case(
        **small, layout="channels last", activation="silu", scale=0.3, residual="points"
    ),
    "conv, shared": conv_case(
        **small, shared=True, activation="prelu", residual="shared", bias="still"
    ),
    "conv, one channel": conv_case(
        points=1, channels=(1, 1), size=(3, 3), activation="relu", residual="points"
    ),
    "conv, strided": conv_case(**small, points=1, layout="strided", activation="gelu", samples=2),
    "conv, 1-d": conv_case(size=(7,), layout="channels last", bias=None),
    "conv, 3-d": conv_case(size=(3, 2, 4), points=1, layout="channels last"),
    "conv, transposed": conv_case(
        **small, transposed=True, stride=2, output_padding=1, points=1, layout="channels last"
    ),
    "conv, images alike": conv_case(**small, layout="images alike", weight="still"),
    "conv, one sample": conv_case(**small, images=1, points=1, layout="channels last"),
    "linear": linear_case(),
    "linear, shared": linear_case(shared=True, points=3, bias=None),
    "affine": affine_case(layout="channels last", points=1),
    "affine, shared": affine_case(layout="images alike", shared=True, points=3),
    "prelu": prelu_case(layout="channels last"),
    "prelu, one slope": prelu_case(single=True, points=1),
    "embedding": embedding_case(),
    "parameter": parameter_case(),
}


def detached(values):
    return tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in values)


def layouts(out):
    """Shape, dtype and strides of every result; a dimension of size 1 has no stride."""
    return [
        (t.shape, t.dtype, [s for s, n in zip(t.stride(), t.shape, strict=True) if n != 1])
        for t in (out if isinstance(out, tuple) else (out,))
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_fake_tensors_have_the_shape_type_and_strides(name, dtype):
    for operation, given in arguments(CALLS[name].to(dtype)):
        given = detached(given)
        with FakeTensorMode() as mode:
            fakes = [mode.from_tensor(t) if isinstance(t, torch.Tensor) else t for t in given]
            predicted = layouts(OPERATIONS[operation](*fakes))
        assert predicted == layouts(OPERATIONS[operation](*given)), operation


@pytest.mark.parametrize("name", CALLS)
def test_the_dispatcher_gives_the_same(name):
    """Called directly or through `torch.ops`: the same values and gradients."""
    case = CALLS[name]
    direct = operation_values(case)
    with pytest.MonkeyPatch.context() as patch:
        for operation in OPERATIONS.values():
            patch.setattr(operation, "_call", getattr(torch.ops.faigfast, operation.name).default)
        assert_equal(operation_values(case), direct)


@pytest.mark.parametrize("name", FORWARD)
def test_a_second_derivative_is_refused(name):
    """The sums hold first derivatives; what a graph of them would give is not silently wrong."""
    case = MAKERS[name]()
    (_, given), *_ = arguments(case)
    for call in (OPERATIONS[name], getattr(torch.ops.faigfast, name)):
        leaves = [t for t in given if isinstance(t, torch.Tensor) and t.requires_grad]
        out = call(*given)
        y = out[0] if isinstance(out, tuple) else out
        grads = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            sum(g.square().sum() for g in grads).backward()


@pytest.mark.parametrize("name", CALLS)
def test_nothing_given_is_changed(name):
    case = CALLS[name]
    for operation, given in arguments(case):
        given = detached(given)
        before = [t.clone() if isinstance(t, torch.Tensor) else t for t in given]
        OPERATIONS[operation](*given)
        for a, b in zip(before, given, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("name", CALLS)
def test_no_result_lies_in_the_memory_of_what_was_given(name):
    def memory(values):
        tensors = [t for t in values if isinstance(t, torch.Tensor) and t.numel()]
        return [t.untyped_storage().data_ptr() for t in tensors]

    for operation, given in arguments(CALLS[name]):
        given = detached(given)
        out = OPERATIONS[operation](*given)
        results = memory(out if isinstance(out, tuple) else (out,))
        assert len(set(results)) == len(results)
        assert not set(results) & set(memory(given))


SMOOTH = {
    **{
        name: dict(activation=name, scale=0.7, residual="points")
        for name in ("none", "sigmoid", "gelu", "gelu_tanh", "silu")
    },
    "shared": dict(activation="silu", shared=True, residual="shared"),
    "transposed": dict(activation="gelu", transposed=True, stride=2, output_padding=1),
    "1-d": dict(size=(5,), stride=2),
    "3-d": dict(size=(2, 3, 2), kernel=2),
    "strided": dict(layout="strided", samples=2),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_of_images_by_differences(name):
    case = conv_case(**{"size": (3, 4), "channels": (2, 3), **SMOOTH[name]})
    line = [(*part, None) if part else (None, None, None) for part in case.line]

    def run(x, residual):
        return case.run(x, line, case.alpha, residual)

    inputs = [None if t is None else t.requires_grad_() for t in (case.x, case.residual)]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("make", [linear_case, affine_case, prelu_case])
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_other_operations_by_differences(make, shared):
    case = make(shared=shared)
    line = [(*part, None) for part in case.line]
    assert torch.autograd.gradcheck(
        lambda x: case.run(x, line, case.alpha, None), [case.x.requires_grad_()]
    )


@pytest.mark.parametrize("name", FORWARD)
def test_sums_by_differences(name):
    """A step of w0 moves every point of the line: the sum of the gradients at all points."""
    case, step = MAKERS[name](), 1e-5
    gy = torch.randn(
        operation_values(case).y.shape,
        generator=torch.Generator().manual_seed(3),
        dtype=torch.float64,
    )
    total = operation_values(case, gy=gy).sums
    generator = torch.Generator().manual_seed(4)
    for i, part in enumerate(case.line):
        if part is None:
            continue
        w0, dw = part
        way = torch.randn(w0.shape, generator=generator, dtype=torch.float64)

        def values(sign, i=i, w0=w0, dw=dw, way=way):
            line = [None if p is None else (*p, None) for p in case.line]
            line = [(None, None, None) if p is None else p for p in line]
            # Only the operation on raw parameters asks how many images there are.
            gradient_sums = torch.zeros(case.images, *w0.shape) if name == "parameter" else None
            line[i] = (w0 + sign * step * way, dw, gradient_sums)
            y = case.run(case.x, line, case.alpha, None)
            return (gy * y).transpose(0, 1).flatten(1).sum(1)

        slope = (values(1) - values(-1)) / (2 * step)
        torch.testing.assert_close(slope, (total[i] * way).flatten(1).sum(1), rtol=1e-7, atol=1e-7)
