"""The table of kernels: which one runs, why the others do not, and the plain one behind them."""

import pytest
import torch
from cases.path_operations import (
    arguments,
    assert_equal,
    conv_case,
    expected,
    explain,
    operation_values,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from faigfast.ops import registry
from faigfast.ops.conv.operation import conv, conv_backward
from faigfast.ops.registry import KERNELS, choose, kernel, plain

ONE = (torch.ones(2, 3),)


@pytest.fixture
def operation(monkeypatch):
    """Entry of the table that is gone after the test."""
    monkeypatch.setitem(
        KERNELS, "doubled", [registry.Kernel("plain", lambda x: 2 * x, lambda x: "")]
    )
    return "doubled"


def odd(x):
    return "" if x.shape[-1] % 2 else f"rows of {x.shape[-1]} are even"


def never(x):
    return "it serves nothing"


def test_the_plain_one_serves_everything(operation):
    assert choose(operation, *ONE).name == "plain"
    assert explain(operation, *ONE) == {"plain": ""}


def test_a_kernel_that_serves_comes_before_plain(operation):
    def fast(x):
        return x + x

    assert kernel("fast", operation, odd)(fast) is fast
    assert choose(operation, *ONE).name == "fast"
    assert choose(operation, *ONE).run is fast
    assert choose(operation, torch.ones(2, 4)).name == "plain"
    assert explain(operation, torch.ones(2, 4)) == {"fast": "rows of 4 are even", "plain": ""}


def test_the_last_registered_is_asked_first(operation):
    for name, refuses in (("first", odd), ("second", never), ("third", odd)):
        kernel(name, operation, refuses)(lambda x: x)
    assert list(explain(operation, *ONE)) == ["third", "second", "first", "plain"]
    assert explain(operation, *ONE)["second"] == "it serves nothing"
    assert choose(operation, *ONE).name == "third"


def test_a_kernel_of_an_unknown_operation_is_refused():
    with pytest.raises(KeyError, match="nothing"):
        kernel("fast", "nothing", never)(lambda x: x)


@pytest.fixture
def ran(monkeypatch):
    """Kernels of the convolution that note that they ran, and refuse all but 1-d ones."""
    names = []
    for name in ("conv", "conv_backward"):
        run = KERNELS[name][-1].run
        monkeypatch.setitem(KERNELS, name, list(KERNELS[name]))

        def noted(*args, name=name, run=run):
            names.append(name)
            return run(*args)

        # x stands first in the one, second in the other.
        place = ("conv", "conv_backward").index(name)
        kernel("noted", name, lambda *args, i=place: "" if args[i].ndim == 4 else "not 1-d")(noted)
    return names


def test_a_registered_kernel_runs_where_it_serves(ran):
    case = conv_case(size=(9,))
    assert_equal(operation_values(case), operation_values(case))
    assert ran == ["conv", "conv_backward"] * 2
    (_, given), (_, given_back) = arguments(case)
    assert explain("conv", *given)["noted"] == explain("conv_backward", *given_back)["noted"] == ""
    ran.clear()
    for call in (conv, torch.ops.faigfast.conv):
        call(*given)
    assert ran == ["conv"] * 2


def test_a_registered_kernel_does_not_run_where_it_refuses(ran):
    case = conv_case(size=(3, 4))
    operation_values(case)
    assert not ran
    assert explain("conv", *arguments(case)[0][1])["noted"] == "not 1-d"


def test_plain_is_the_last_kernel():
    assert plain(torch.ops.faigfast.conv.default) is KERNELS["conv"][-1].run
    assert plain(torch.ops.faigfast.conv_backward.default) is KERNELS["conv_backward"][-1].run
    assert all(kernels[-1].name == "plain" for kernels in KERNELS.values())
    assert plain(torch.ops.aten.relu.default) is None
    assert plain(torch.ops.faigfast.score_reduction.default) is KERNELS["score_reduction"][-1].run
    assert plain(torch.relu) is None


def test_plain_computes_without_the_table(monkeypatch):
    case = conv_case(activation="relu", residual="points")
    (_, given), _ = arguments(case)
    run = plain(torch.ops.faigfast.conv.default)
    monkeypatch.setattr(registry, "choose", None)
    with torch.no_grad():
        y, _ = run(*given)
    torch.testing.assert_close(y.unflatten(1, (2, 1)), expected(case).y, rtol=1e-12, atol=1e-12)


def test_no_kernel_is_asked_about_tensors_without_data(monkeypatch):
    def broken(*args):
        raise AssertionError("it was asked")

    given = [
        arguments(conv_case(activation="relu").to(dtype))[0][1]
        for dtype in (torch.float32, torch.float64)
    ]
    for name in ("conv", "conv_backward"):
        monkeypatch.setitem(KERNELS, name, list(KERNELS[name]))
        kernel("broken", name, broken)(broken)
    with pytest.raises(AssertionError, match="it was asked"):
        conv(*given[0])
    for values in given:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = [mode.from_tensor(t) if isinstance(t, torch.Tensor) else t for t in values]
            y, saved = conv(*fakes)
            y.sum().backward()
        assert y.shape == (2, 2, 5, 7, 5) and saved.shape == (0,)
        assert fakes[8].grad.shape == (2, 5, 3, 3, 3)


def test_operations_bear_their_names_and_documentation():
    assert conv.name == "conv" and conv_backward.name == "conv_backward"
    assert conv.__doc__.startswith("Compute y = scale")
    assert torch.ops.faigfast.conv.default._schema.name == "faigfast::conv"
    assert not torch.ops.faigfast.conv.default._schema.is_mutable


def test_a_refusal_says_what_happened_why_and_what_it_costs():
    text = registry._refusal("conv_backward", "simd", "tensors are of torch.float64")
    assert text.startswith(
        "speed: PyTorch computes some gradients of convolutions in place of faigfast's simd kernel "
        "(tensors are of torch.float64): "
    )
    assert "as exact" in text and "slower" in text and text.endswith("nothing needs to be done")
