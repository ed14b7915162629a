"""Matching by weights: orders of the baseline's channels in which they resemble the target's.

Source: Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging models modulo permutation
symmetries", ICLR 2023, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .axes import Atom, order
from .groups import Group, Groups, Orders

SWEEPS = 100
GAIN = 1e-9  # of the squared norm of the target: smaller ones are rounding

Values = Mapping[str, Tensor]


def assigned(similarity: Tensor) -> Tensor:
    """Find the order of the baseline's channels with the largest sum of similarities.

    Parameters
    ----------
    similarity : Tensor
        [target's channels, baseline's channels].

    Returns
    -------
    Tensor
        The baseline's channel at every place, [n].

    Raises
    ------
    ValueError
        If the matrix is not square, or holds NaN or infinities.

    Examples
    --------
    >>> assigned(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    tensor([1, 0])
    """
    if similarity.ndim != 2 or len(similarity) != similarity.shape[1]:
        raise ValueError(f"similarity is {list(similarity.shape)}; expected a square matrix")
    if not bool(similarity.isfinite().all()):
        raise ValueError("similarity holds values that are not finite; expected finite weights")
    _, columns = linear_sum_assignment(similarity.numpy(), maximize=True)
    return torch.from_numpy(columns)


def agreement(groups: Groups, target: Values, baseline: Values, orders: Orders) -> float:
    """Sum of products of the target's values and the reordered baseline's."""
    return sum(
        torch.sum(value * groups.reordered(key, baseline[key], orders)).item()
        for key, value in target.items()
    )


def match_weights(
    groups: Groups,
    target: Values,
    baseline: Values,
    start: Orders | None = None,
    seed: int = 0,
) -> dict[Atom, Tensor]:
    """Maximise ⟨θ, permuted θ̄⟩ group after group, until no group gains.

    Parameters
    ----------
    groups : Groups
        Of the networks.
    target, baseline : mapping of str to Tensor
        Their parameters by key, of the keys of `groups.axes` that are to count.
    start : mapping of Atom to Tensor, optional
        Orders to begin with; groups that are absent keep their order.
    seed : int
        Of the order of the groups.

    Returns
    -------
    dict of Atom to Tensor
        The baseline's channel at every place, [n].

    Raises
    ------
    ValueError
        If the two have other keys, or keys that the groups lack.
    """
    if target.keys() != baseline.keys() or not target.keys() <= groups.axes.keys():
        wrong = sorted((target.keys() ^ baseline.keys()) | (target.keys() - groups.axes.keys()))
        raise ValueError(f"target and baseline differ in {wrong[:3]}; expected tensors of one pair")
    target = {key: value.double() for key, value in target.items()}
    baseline = {key: value.double() for key, value in baseline.items()}
    least = GAIN * sum(value.square().sum().item() for value in target.values())
    orders = {group.atom: torch.arange(group.size) for group in groups} | dict(start or {})
    generator = torch.Generator().manual_seed(seed)
    every = list(groups)
    for _ in range(SWEEPS):
        improved = False
        for number in torch.randperm(len(every), generator=generator).tolist():
            group = every[number]
            keys = {key for key, _ in group.uses if key in target}
            counted = {key: target[key] for key in keys}
            new = orders | {group.atom: _best_order(groups, group, target, baseline, orders)}
            before, after = (agreement(groups, counted, baseline, o) for o in (orders, new))
            if after > before + least:
                orders, improved = new, True
        if not improved:
            break
    return orders


def _best_order(
    groups: Groups, group: Group, target: Values, baseline: Values, orders: Orders
) -> Tensor:
    """Assign the channels of one group, with the others, and other dimensions, as they are."""
    atom = group.atom
    others = {a: value for a, value in orders.items() if a is not atom}
    similarity = torch.zeros(group.size, group.size, dtype=torch.float64)
    for key, dim in group.uses:
        if key not in target:
            continue
        value = groups.reordered(key, baseline[key], others)
        for place in {place for name, place in group.uses if name == key} - {dim}:
            # The same channels along another dimension.
            own = order(groups.axes[key][place], {atom: orders[atom]})
            value = value.index_select(place, own)
        a = groups.selected(key, dim, atom, target[key])  # [occurrences, n, rest]
        b = groups.selected(key, dim, atom, value)
        similarity += torch.einsum("oir,ojr->ij", a, b)
    return assigned(similarity)
