"""Axes: how the indices along one axis of a tensor may be permuted.

An axis is an `Atom`, a concatenation of axes (`Sum`: the result of `cat`), or a grid of axes
(`Product`: channels that `pixel_shuffle` or `reshape` splits, slowest first). Atoms are variables:
`tie` makes two axes permute alike and refines their atoms where one axis has more structure. Where
the two structures do not fit, both axes are fixed, which is always right.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor


class Atom:
    """Indices that permute freely among themselves, or not at all.

    Parameters
    ----------
    size : int
        Number of indices.
    fixed : bool
        Whether the indices keep their order.
    """

    def __init__(self, size: int, fixed: bool = False) -> None:
        self.size = size
        self.fixed = fixed or size < 2
        self.bound: Axis | None = None  # its structure, once known


class Sum:
    """Axes one after the other."""

    def __init__(self, parts: Iterable[Axis]) -> None:
        self.parts = tuple(parts)
        self.size = sum(part.size for part in self.parts)


class Product:
    """A grid of axes in row-major order, the slowest first."""

    def __init__(self, factors: Iterable[Axis]) -> None:
        self.factors = tuple(factors)
        self.size = math.prod(factor.size for factor in self.factors)


Axis = Atom | Sum | Product


def fixed(size: int) -> Atom:
    """Make an axis whose indices keep their order."""
    return Atom(size, fixed=True)


def resolved(axis: Axis) -> Axis:
    """Write an axis by unbound atoms, without nested sums, nested products and axes of size 1."""
    if isinstance(axis, Atom):
        return axis if axis.bound is None else resolved(axis.bound)
    if isinstance(axis, Sum):
        parts: list[Axis] = []
        for part in map(resolved, axis.parts):
            parts += part.parts if isinstance(part, Sum) else [part]
        parts = [part for part in parts if part.size]
        return parts[0] if len(parts) == 1 else Sum(parts)
    factors: list[Axis] = []
    for factor in map(resolved, axis.factors):
        factors += factor.factors if isinstance(factor, Product) else [factor]
    factors = [factor for factor in factors if factor.size != 1]
    if len(factors) < 2:
        return factors[0] if factors else fixed(1)
    return Product(factors)


def leaves(axis: Axis) -> Iterator[Atom]:
    """Give the unbound atoms of an axis, one as often as it occurs."""
    axis = resolved(axis)
    if isinstance(axis, Atom):
        yield axis
    else:
        for part in axis.parts if isinstance(axis, Sum) else axis.factors:
            yield from leaves(part)


def fix(*axes: Axis) -> None:
    """Let axes keep the order of their indices."""
    for axis in axes:
        for atom in leaves(axis):
            atom.fixed = True


def tie(a: Axis, b: Axis) -> None:
    """Let two axes of one size permute alike.

    Raises
    ------
    ValueError
        If the sizes differ.
    """
    if a.size != b.size:
        raise ValueError(f"axes have sizes {a.size} and {b.size}; expected one size")
    a, b = resolved(a), resolved(b)
    if a is b:
        return
    if isinstance(b, Atom) and not isinstance(a, Atom):
        a, b = b, a
    if isinstance(a, Atom):
        _bind(a, b)
    elif isinstance(a, Sum) or isinstance(b, Sum):
        _tie_sums(a, b)
    else:
        _tie_products(a, b)


def _bind(atom: Atom, axis: Axis) -> None:
    if atom.fixed:
        fix(axis)
    if isinstance(axis, Atom) or atom not in set(leaves(axis)):
        atom.bound = axis
    else:  # an axis within itself
        fix(axis)


def _tie_sums(a: Axis, b: Axis) -> None:
    first = min(axis.parts[0].size for axis in (a, b) if isinstance(axis, Sum))
    heads = cut(a, first), cut(b, first)
    if heads[0] is None or heads[1] is None:
        fix(a, b)
    else:
        for one, other in zip(*heads, strict=True):
            tie(one, other)


def _tie_products(a: Product, b: Product) -> None:
    """Tie the slowest factors, and the rest."""
    first = min(a.factors[0].size, b.factors[0].size)
    heads = grid(a, (first, a.size // first)), grid(b, (first, b.size // first))
    if a.size % first or heads[0] is None or heads[1] is None:
        fix(a, b)
    else:
        for one, other in zip(*heads, strict=True):
            tie(one, other)


def cut(axis: Axis, place: int) -> tuple[Axis, Axis] | None:
    """Cut an axis into the indices before a place and the others; None where it cannot be cut."""
    axis = resolved(axis)
    if place in (0, axis.size):
        empty = fixed(0)
        return (empty, axis) if place == 0 else (axis, empty)
    if isinstance(axis, Atom):
        halves = Atom(place, axis.fixed), Atom(axis.size - place, axis.fixed)
        axis.bound = Sum(halves)
        return halves
    if isinstance(axis, Sum):
        return _cut_sum(axis, place)
    slowest, *rest = axis.factors
    row = axis.size // slowest.size
    pieces = None if place % row else cut(slowest, place // row)
    return pieces and (Product((pieces[0], *rest)), Product((pieces[1], *rest)))


def _cut_sum(axis: Sum, place: int) -> tuple[Axis, Axis] | None:
    number, parts = 0, axis.parts
    while place >= parts[number].size:
        place -= parts[number].size
        number += 1
    pieces = cut(parts[number], place)
    if pieces is None:
        return None
    return Sum((*parts[:number], pieces[0])), Sum((pieces[1], *parts[number + 1 :]))


def grid(axis: Axis, sides: Iterable[int]) -> list[Axis] | None:
    """Write an axis as a grid of these sides; None where it cannot be written so."""
    sides = list(sides)
    if math.prod(sides) != axis.size:
        return None
    axis = resolved(axis)
    if isinstance(axis, Atom):
        factors = [Atom(side, axis.fixed) for side in sides]
        large = [factor for factor in factors if factor.size > 1]
        if len(large) == 1:  # nothing but axes of size 1 is new
            return [axis if factor is large[0] else factor for factor in factors]
        axis.bound = Product(factors)
        return list(factors)
    if isinstance(axis, Sum):
        return _grid_of_sum(axis, sides)
    rest, result = list(axis.factors), []
    for side in sides:
        taken, size = [], 1
        while size < side and rest:
            factor = rest.pop(0)
            if side % (size * factor.size) and factor.size % (side // size) == 0:
                pieces = grid(factor, (side // size, factor.size * size // side))
                if pieces is None:
                    return None
                factor = pieces[0]
                rest.insert(0, pieces[1])
            taken.append(factor)
            size *= factor.size
        if size != side:
            return None
        result.append(Product(taken))
    return result


def _grid_of_sum(axis: Sum, sides: list[int]) -> list[Axis] | None:
    """Write a sum as rows; every part holds some of the rows."""
    slowest, row = sides[0], math.prod(sides[1:])
    if slowest == 1:
        rest = grid(axis, sides[1:]) if sides[1:] else None
        return None if rest is None else [fixed(1), *rest]
    if row == 1:
        return [axis, *(fixed(1) for _ in sides[1:])]
    if any(part.size % row for part in axis.parts):
        return None
    pieces = [grid(part, (part.size // row, *sides[1:])) for part in axis.parts]
    complete = [piece for piece in pieces if piece is not None]
    if len(complete) < len(pieces):
        return None
    for others in complete[1:]:
        for one, other in zip(complete[0][1:], others[1:], strict=True):
            tie(one, other)
    return [Sum(piece[0] for piece in complete), *complete[0][1:]]


def order(axis: Axis, permutations: Mapping[Atom, Tensor]) -> Tensor:
    """Give the indices [size] of an axis in their new order.

    Parameters
    ----------
    axis : Axis
        The axis.
    permutations : mapping of Atom to Tensor
        Old index at every new place, [size of the atom]; atoms that are absent keep their order.
    """
    axis = resolved(axis)
    if isinstance(axis, Atom):
        return permutations.get(axis, torch.arange(axis.size))
    if isinstance(axis, Sum):
        offsets = torch.tensor([0, *(part.size for part in axis.parts)]).cumsum(0).tolist()
        parts = zip(offsets, axis.parts, strict=False)
        return torch.cat([start + order(part, permutations) for start, part in parts])
    result = torch.zeros(1, dtype=torch.long)
    for factor in axis.factors:
        result = (result[:, None] * factor.size + order(factor, permutations)).flatten()
    return result


def places(axis: Axis, atom: Atom) -> Tensor:
    """Give the indices of an axis by an atom's index, [occurrences, size of the atom]."""
    axis = resolved(axis)
    if axis is atom:
        return torch.arange(atom.size)[None]
    none = torch.empty(0, atom.size, dtype=torch.long)
    if isinstance(axis, Atom):
        return none
    if isinstance(axis, Sum):
        start, rows = 0, [none]
        for part in axis.parts:
            rows.append(start + places(part, atom))
            start += part.size
        return torch.cat(rows)
    rows = [none]
    for number, factor in enumerate(axis.factors):
        inner = places(factor, atom)  # [occurrences, n]
        if len(inner):
            before = Product(axis.factors[:number]).size
            after = Product(axis.factors[number + 1 :]).size
            outside = torch.arange(before) * factor.size * after
            within = inner[:, :, None] * after + torch.arange(after)  # [occurrences, n, after]
            every = outside[:, None, None, None] + within  # [before, occurrences, n, after]
            rows.append(every.movedim(2, -1).reshape(-1, atom.size))
    return torch.cat(rows)
