"""What holds of a path convolution of any geometry, by the plain twin and by the C++ kernels."""

import pytest
import torch
from cases.conv_strategy import SMOOTH, conv_cases
from cases.path_operations import (
    Values,
    assert_equal,
    expected,
    found,
    poisoned,
    upstream,
)
from hypothesis import given, settings

from faigfast.backend.cpu import extension
from faigfast.ops.registry import Use, using

BACKENDS = ["", *(["cpu"] if extension.module is not None else [])]
pytestmark = pytest.mark.parametrize("backend", BACKENDS, ids=lambda name: name or "plain")
drawn = settings(max_examples=60, deadline=None, derandomize=True)


def assert_close(result, reference):
    """Relative L2 of 1e-5, but for the few numbers that are small by cancellation."""
    for (name, one, _), (_, other, _) in zip(result.named(), reference.named(), strict=True):
        assert one.shape == other.shape, name
        difference = (one.double() - other.double()).norm()
        assert difference <= 1e-5 * other.double().norm() + 3e-6 * other.numel() ** 0.5, name


def by(backend, case, **arguments):
    with using(Use(backend)):
        return found(case, **arguments)


@drawn
@given(case=conv_cases())
def test_it_is_near_autograd(case, backend):
    result = by(backend, case.to(torch.float32))
    assert_close(result, expected(case.to(torch.float64)))


@drawn
@given(case=conv_cases(("none", "relu"), integers=True))
def test_integers_are_equal_to_the_bit(case, backend):
    if backend:  # Winograd's transforms have thirds
        pytest.skip("the C++ kernels are near, not equal")
    assert_equal(by(backend, case.to(torch.float32)), expected(case.to(torch.float64)))


@drawn
@given(case=conv_cases())
def test_gradients_of_points_add_up(case, backend):
    case = case.to(torch.float32)
    together = by(backend, case)
    gy = upstream(case, together.y)
    alone = [by(backend, case, gy=gy, alpha=slice(p, p + 1)) for p in range(len(case.alpha))]

    def joined(name):
        parts = [getattr(one, name) for one in alone]
        if parts[0] is None:
            return None
        shared = len(getattr(together, name)) == 1 and len(parts) > 1
        return sum(parts) if shared else torch.cat(parts)

    sums = [
        None if parts[0] is None else sum(parts)
        for parts in zip(*(one.sums for one in alone), strict=True)
    ]
    whole = Values(torch.cat([one.y for one in alone]), joined("gx"), joined("gr"), sums)
    assert_close(together, whole)


@drawn
@given(case=conv_cases((*SMOOTH, "relu", "leaky_relu")))
def test_memory_that_was_not_written_is_not_read(case, backend):
    case = case.to(torch.float32)
    clean = by(backend, case)
    with poisoned():
        poison = by(backend, case)
    assert_equal(poison, clean)
