"""Scales: channels multiplied by positive numbers, which ReLU networks compensate.

Producers of a channel are multiplied by s > 0 and its consumers divided by s. Positively
homogeneous operations between them (ReLU, LeakyReLU, PReLU, sums, shuffles) leave the function as
it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .axes import Atom, Axis, Sum, resolved
from .groups import Group, Groups

SWEEPS = 50
CLOSE = 1e-4  # of the logarithms of scales
Scales = Mapping[Atom, Tensor]  # positive factor of every channel


def scaled(groups: Groups, values: Mapping[str, Tensor], scales: Scales) -> dict[str, Tensor]:
    """Multiply the tensors of a network by the scales of its channels.

    Raises
    ------
    ValueError
        If a group may not be scaled, or a scale is not positive and finite.
    """
    free = {group.atom for group in groups if group.scalable}
    for atom, scale in scales.items():
        if atom not in free:
            raise ValueError(
                f"scales has a group of {atom.size} channels between operations that are not "
                "homogeneous; expected scalable groups alone"
            )
        if not bool((scale.isfinite() & (scale > 0)).all()):
            raise ValueError(f"scales has {scale.tolist()}; expected positive finite factors")
    result = dict(values)
    for (key, dim), (exponent, axis) in groups.roles.items():
        if key in result and exponent:
            factor = _along(axis, scales, result[key].dtype) ** exponent
            shape = [-1] + [1] * (result[key].ndim - dim - 1)
            result[key] = result[key] * factor.view(shape)
    return result


def _along(axis: Axis, scales: Scales, dtype: torch.dtype) -> Tensor:
    """Give the factor of every index of an axis."""
    axis = resolved(axis)
    if isinstance(axis, Atom):
        return scales[axis].to(dtype) if axis in scales else torch.ones(axis.size, dtype=dtype)
    if isinstance(axis, Sum):
        return torch.cat([_along(part, scales, dtype) for part in axis.parts])
    result = torch.ones(1, dtype=dtype)
    for factor in axis.factors:
        result = (result[:, None] * _along(factor, scales, dtype)).flatten()
    return result


def balancing(
    groups: Groups, values: Mapping[str, Tensor], like: Mapping[str, Tensor] | None = None
) -> dict[Atom, Tensor]:
    """Find scales that give channels the ratio of outgoing to incoming norms of another network.

    Parameters
    ----------
    groups : Groups
        Of the networks.
    values : mapping of str to Tensor
        Parameters of the network to scale.
    like : mapping of str to Tensor, optional
        Parameters of the other network; None asks for equal norms.

    Returns
    -------
    dict of Atom to Tensor
        For `scaled`. Channels without incoming or outgoing weights keep their scale.
    """
    free = [group for group in groups if group.scalable]
    scales = {g.atom: torch.ones(g.size, dtype=torch.float64) for g in free}
    wanted = {g.atom: _ratio(groups, g, like) if like else torch.zeros(g.size) for g in free}
    for _ in range(SWEEPS):
        largest = 0.0
        for group in free:
            own = _ratio(groups, group, scaled(groups, values, scales))
            step = torch.nan_to_num((own - wanted[group.atom]) / 2, 0, 0, 0)
            scales[group.atom] = scales[group.atom] * step.exp()
            largest = max(largest, step.abs().max().item())
        if largest < CLOSE:
            break
    return scales


def _ratio(groups: Groups, group: Group, values: Mapping[str, Tensor]) -> Tensor:
    """Logarithm of a channel's norm of consuming weights over the norm of producing ones."""
    squares = {-1: torch.zeros(group.size), 1: torch.zeros(group.size)}
    for key, dim in group.uses:
        exponent = groups.roles[key, dim][0]
        if key in values and exponent:
            parts = groups.selected(key, dim, group.atom, values[key].double())
            squares[exponent] = squares[exponent] + parts.square().sum((0, 2))
    return (squares[-1] / squares[1]).log() / 2
