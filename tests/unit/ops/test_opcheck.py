"""Schema, autograd, fake tensors and tracing of every operation, by `torch.library.opcheck`."""

from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch
from cases.path_operations import (
    affine_case,
    arguments,
    conv_case,
    embedding_case,
    linear_case,
    parameter_case,
    prelu_case,
)

import faigfast.ops

CASES = {
    "affine": affine_case(layout="channels last"),
    "conv": conv_case(
        size=(4, 3), channels=(2, 3), layout="channels last", activation="silu", scale=0.3,
        residual="points",
    ),
    "embedding": embedding_case(),
    "linear": linear_case(),
    "parameter": parameter_case(),
    "prelu": prelu_case(layout="channels last"),
}  # fmt: skip
OTHERS = {
    "attention",
    "attention_backward",
    "averaged_activation",
    "one_channel",
    "score_reduction",
    "squared_error",
    "squared_error_backward",
}
OPERATIONS = sorted(
    {*CASES, *(f"{name}_backward" for name in CASES if name != "parameter"), *OTHERS}
)


def path_arguments(name):
    """Arguments of a path operation, or of its backward pass, as they run."""
    given = dict(arguments(CASES[name.removesuffix("_backward")].to(torch.float32)))[name]
    if name.endswith("_backward"):
        return [t.detach() if isinstance(t, torch.Tensor) else t for t in given]
    return given


def other_arguments(name):
    """Arguments of an operation that is not on the line; those with a gradient require it."""
    generator = torch.Generator().manual_seed(1)

    def numbers(*shape, needs_gradient=True, dtype=torch.float32):
        t = torch.randn(*shape, generator=generator, dtype=dtype)
        return t.requires_grad_(needs_gradient and not name.endswith("_backward"))

    if name == "score_reduction":
        return numbers(2, 3, 4, 3, 3), numbers(3, 4, 3, 3)
    if name.startswith("squared_error"):
        y, gt = numbers(2, 3, 7), numbers(3, 7, needs_gradient=False)
        return (y, gt, numbers(2, 3)) if name.endswith("_backward") else (y, gt)
    if name == "averaged_activation":
        return numbers(2, 3, 4), [1, 1, 0, 0], [-0.5, 0.5, 0.5] * 2, 0.1
    if name == "one_channel":
        layer = numbers(5, 1, 3, 3, needs_gradient=False), numbers(1, 5, 4, 4, needs_gradient=False)
        change, same = numbers(2, 1, 4, 4, needs_gradient=False), ([1, 1],) * 3
        return change, *layer, None, None, *same, False, [0, 0], "relu", 0.0, 1.0, 1
    shapes = [(2, 2, 3, 4), (2, 2, 4, 5), (2, 2, 5, 6), (1, 2, 3, 5)]  # q, k, v, bias
    given = [numbers(*shape, dtype=torch.float64) for shape in shapes]
    given.append(numbers(2, 1, 3, 5, needs_gradient=False, dtype=torch.float64))  # mask
    if name == "attention":
        return given
    stats = torch.ops.faigfast.attention(*given)[1]
    gy = numbers(2, 2, 3, 6, dtype=torch.float64)
    return gy, *given, stats, True


@pytest.mark.parametrize("name", OPERATIONS)
def test_opcheck(name):
    given = other_arguments(name) if name in OTHERS else path_arguments(name)
    results = torch.library.opcheck(getattr(torch.ops.faigfast, name).default, given)
    assert set(results.values()) == {"SUCCESS"}, results


def test_every_registered_operation_is_checked():
    for module in walk_packages(faigfast.ops.__path__, "faigfast.ops."):
        import_module(module.name)
    names = (name.partition("::") for name in torch._C._dispatch_get_all_op_names())
    assert {name for namespace, _, name in names if namespace == "faigfast"} == set(OPERATIONS)
