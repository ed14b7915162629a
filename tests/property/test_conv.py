"""Properties of path convolutions of any geometry, by plain PyTorch and by the C++ kernels."""

import pytest
import torch
from cases.conv_strategy import SMOOTH, conv_cases
from cases.cpu_kernels import poisoned_results
from cases.path_operations import (
    Values,
    assert_equal,
    expected,
    operation_values,
    poisoned,
    upstream,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from faigfast.backend.cpu import extension
from faigfast.ops.registry import Use, using

BACKENDS = ["", *(["cpu"] if extension.module is not None else [])]
pytestmark = pytest.mark.parametrize("backend", BACKENDS, ids=lambda name: name or "plain")
drawn = settings(max_examples=30, deadline=None, derandomize=True)


def assert_close(result, reference):
    """Relative L2 of at most 1e-5, except for numbers that are small by cancellation."""
    for (name, one, _), (_, other, _) in zip(result.named(), reference.named(), strict=True):
        assert one.shape == other.shape, name
        difference = (one.double() - other.double()).norm()
        assert difference <= 1e-5 * other.double().norm() + 3e-6 * other.numel() ** 0.5, name


def by(backend, case, **arguments):
    use = Use(backend)
    with using(use):
        result = operation_values(case, **arguments)
    assume(not use.refused)  # a refused case would compare plain PyTorch with itself
    return result


def draw_case(data, backend, activations=SMOOTH):
    return data.draw(conv_cases(activations, for_kernels=bool(backend))).to(torch.float32)


@drawn
@given(data=st.data())
def test_it_is_near_autograd(data, backend):
    case = draw_case(data, backend)
    result = by(backend, case)
    assert_close(result, expected(case.to(torch.float64)))


@drawn
@given(case=conv_cases(("none", "relu"), integers=True))
def test_integers_are_equal_to_the_bit(case, backend):
    if backend:  # Winograd's transforms have thirds, which round
        pytest.skip("the C++ kernels are near, not equal")
    assert_equal(by(backend, case.to(torch.float32)), expected(case.to(torch.float64)))


@drawn
@given(data=st.data())
def test_gradients_of_points_add_up(data, backend):
    case = draw_case(data, backend)
    together = by(backend, case)
    gy = upstream(case, together.y)
    alone = [by(backend, case, gy=gy, alpha=slice(p, p + 1)) for p in range(len(case.alpha))]

    def joined(name):
        parts = [getattr(one, name) for one in alone]
        if parts[0] is None:
            return None
        shared = len(getattr(together, name)) == 1 and len(parts) > 1
        return sum(parts) if shared else torch.cat(parts)

    weight_grads = [
        None if parts[0] is None else sum(parts)
        for parts in zip(*(one.sums for one in alone), strict=True)
    ]
    added_up = Values(torch.cat([one.y for one in alone]), joined("gx"), joined("gr"), weight_grads)
    assert_close(together, added_up)


@drawn
@given(data=st.data())
def test_memory_that_was_not_written_is_not_read(data, backend):
    case = draw_case(data, backend, (*SMOOTH, "relu", "leaky_relu"))
    clean = by(backend, case)
    with poisoned_results() if backend else poisoned():
        poison = by(backend, case)
    assert_equal(poison, clean)
