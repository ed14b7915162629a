"""Tensors that a network's own forward writes to."""

import pytest
import torch

from faigfast.integration.writes import recorded_writes


def by_data(value):
    value.data = 2 * value.data


def by_copy_under_data(value):
    value.data.copy_(value.data.clone())


def by_view_under_data(value):
    value.data[0].mul_(1)


def under_no_grad(value):
    with torch.no_grad():
        value.copy_(value)


def by_detached(value):
    value.detach().add_(0)


@pytest.mark.parametrize(
    "write", [by_data, by_copy_under_data, by_view_under_data, under_no_grad, by_detached]
)
def test_writes_are_recorded_also_of_equal_values(write):
    given = {"a": torch.ones(2, 2, requires_grad=True).clone(), "b": torch.ones(2, 2)}
    written = set()
    with recorded_writes(given, written):
        write(given["a"])
    assert written == {"a"}


def test_reading_is_no_write():
    given, written = {"a": torch.ones(2, requires_grad=True).clone()}, set()
    with recorded_writes(given, written):
        value = given["a"].data.clone()
        value += given["a"].detach() + given["a"].data[0]
        value.copy_(given["a"])
    assert written == set()
