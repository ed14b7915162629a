"""Identities of objectives."""

import gc
from functools import partial

import pytest
import torch
from torch import nn

from faigfast.integration.objective import squared_error
from faigfast.integration.objective_identity import ObjectiveIdentity


class Kept:
    def loss(self, output, gt):
        return squared_error(output, gt)


def of(objective):
    return ObjectiveIdentity.of(objective, Kept())


def scaled(factor, extra=()):
    return lambda output, gt: factor * squared_error(output, gt)[: len(extra) or None]


def nested(factor):
    inner = scaled(factor)
    return lambda output, gt: inner(output, gt)


def with_default(factor):
    return lambda output, gt, scale=factor: scale * squared_error(output, gt)


def through(module):
    return lambda output, gt: squared_error(module(output), module(gt))


def with_keyword(factor):
    def loss(output, gt, *, scale=factor):
        return scale * squared_error(output, gt)

    return loss


@pytest.mark.parametrize("make", [scaled, nested, with_default, with_keyword])
def test_functions_of_equal_code_and_values_are_equal(make):
    assert of(make(2.0)) == of(make(2.0)) and hash(of(make(2.0))) == hash(of(make(2.0)))
    for other in (3.0, 2, True, -2.0, None, "2.0", (2.0,)):
        assert of(make(other)) != of(make(2.0))
    assert of(make(0.0)) != of(make(-0.0))
    assert of(make((1, (2.0, "a")))) == of(make((1, (2.0, "a"))))


def test_other_code_is_another_objective():
    assert of(scaled(2.0)) != of(nested(2.0))
    assert of(lambda output, gt: output) != of(lambda output, gt: gt)


def test_partial_functions_and_methods():
    kept, other = Kept(), Kept()
    assert of(kept.loss) == of(kept.loss) and of(kept.loss) != of(other.loss)
    assert of(partial(kept.loss)) == of(partial(kept.loss))
    assert of(partial(torch.mul, other=2)) == of(partial(torch.mul, other=2))
    assert of(partial(torch.mul, other=2)) != of(partial(torch.mul, other=3))


def test_objects_count_by_themselves_and_are_not_kept():
    one, other = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    identity = of(through(one))
    assert identity == of(through(one)) and identity != of(through(other)) and identity.alive
    del one
    gc.collect()
    assert not identity.alive


def test_values_that_may_change_make_a_new_objective_each_time():
    numbers = [1.0]
    first, second = scaled(numbers), scaled(numbers)
    assert of(first) == of(first) and of(first) != of(second)
    marked = scaled(1.0)
    marked.weight = 2
    assert of(marked) != of(scaled(1.0))


def test_what_has_no_weak_references_is_the_other_object():
    class Slotted:
        __slots__ = ()

        def __call__(self, output, gt):
            return squared_error(output, gt)

    owner, objective = Kept(), Slotted()
    assert ObjectiveIdentity.of(objective, owner) == ObjectiveIdentity.of(objective, owner)
    assert ObjectiveIdentity.of(objective, owner) != ObjectiveIdentity.of(objective, Kept())
