"""Axes: what ties refine, and how channels are reordered."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[3]))

from scripts.alignment.axes import (
    Atom,
    Product,
    Sum,
    cut,
    fix,
    fixed,
    grid,
    leaves,
    order,
    places,
    resolved,
    tie,
)
from scripts.alignment.groups import structure


def test_tied_atoms_are_one():
    a, b = Atom(4), Atom(4)
    tie(a, b)
    assert resolved(a) is resolved(b)


@pytest.mark.parametrize("first", [True, False])
def test_a_fixed_axis_fixes_the_other(first):
    a, b = Atom(4), fixed(4)
    tie(*((a, b) if first else (b, a)))
    assert structure(a) == "4 fixed"


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="sizes 3 and 4"):
        tie(Atom(3), Atom(4))


def test_concatenation_splits_an_atom():
    a, b, c = Atom(6), Atom(2), Atom(4)
    tie(a, Sum((b, c)))
    assert structure(a) == "(2 + 4)"
    assert list(leaves(a)) == [b, c]


def test_two_concatenations_meet_in_their_common_parts():
    a = Sum((Atom(2), Atom(4)))
    b = Sum((Atom(3), Atom(3)))
    tie(a, b)
    assert structure(a) == structure(b) == "(2 + 1 fixed + 3)"


def test_a_grid_splits_an_atom():
    a, channel = Atom(12), Atom(3)
    tie(a, Product((channel, fixed(4))))
    assert structure(a) == "(3 × 4 fixed)"


def test_grids_of_other_sides_meet():
    a = Product((Atom(4), Atom(6)))
    b = Product((Atom(2), Atom(12)))
    tie(a, b)
    assert structure(a) == structure(b) == "(2 × 2 × 6)"


def test_grids_that_do_not_fit_are_fixed():
    a, b = Product((Atom(4), Atom(3))), Product((Atom(3), Atom(4)))
    tie(a, b)
    assert all(atom.fixed for axis in (a, b) for atom in leaves(axis))


def test_halves_of_one_grid_permute_alike():
    a, b = Atom(6), Atom(6)
    tie(Sum((a, b)), Product((fixed(2), Atom(6))))
    assert resolved(a) is resolved(b)


def test_an_axis_within_itself_is_fixed():
    a = Atom(4)
    tie(a, Sum((Atom(1), Atom(3))))
    first, rest = resolved(a).parts
    tie(rest, Product((Atom(3),)))
    assert rest.size == 3 and first.fixed
    b = Atom(2)
    tie(b, Product((b,)))
    assert not b.fixed


def test_cut_refuses_places_within_a_row():
    assert cut(Product((Atom(2), Atom(3))), 4) is None
    before, after = cut(Product((Atom(2), Atom(3))), 3)
    assert before.size == after.size == 3


def test_grid_refuses_sides_of_another_size():
    assert grid(Atom(6), (4, 2)) is None


def test_fix_reaches_every_part():
    a, b = Atom(2), Atom(3)
    fix(Sum((a, Product((fixed(2), b)))))
    assert a.fixed and b.fixed


def test_order_of_a_grid_and_of_a_sum():
    a, b = Atom(2), Atom(3)
    orders = {a: torch.tensor([1, 0]), b: torch.tensor([2, 0, 1])}
    assert order(Sum((a, b)), orders).tolist() == [1, 0, 4, 2, 3]
    assert order(Product((a, b)), orders).tolist() == [5, 3, 4, 2, 0, 1]
    assert order(Product((a, fixed(2))), orders).tolist() == [2, 3, 0, 1]


def test_places_are_the_indices_by_channel():
    a, b = Atom(2), Atom(3)
    assert places(Sum((b, a)), a).tolist() == [[3, 4]]
    assert places(Product((a, b)), a).T.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert places(Product((a, b)), b).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert places(Sum((a, a)), a).tolist() == [[0, 1], [2, 3]]
    assert places(b, a).shape == (0, 2)
