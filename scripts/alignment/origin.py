"""Common origin: whether shuffled channels of the baseline find back to their own places.

Training on keeps the order of channels. If weight matching from random orders returns every channel
to the place it had, the two networks were in one order, as two trainings of one network are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from .groups import Groups
from .matching import agreement, match_weights
from .measure import parameters_of


@dataclass(frozen=True)
class Return:
    """Result of weight matching from one random order.

    Attributes
    ----------
    channels : int
        Permutable channels.
    given, start, matched : float
        Cosine of θ and the baseline's parameters as given, shuffled, and matched.
    own_place : float
        Share of the channels that return to the place they had; 1/size of a group by chance.
    """

    channels: int
    given: float
    start: float
    matched: float
    own_place: float


def returns(
    groups: Groups, baseline: nn.Module, target: nn.Module, seeds: range = range(3)
) -> Iterator[Return]:
    """Shuffle the baseline's channels and match them again, once a seed.

    Parameters
    ----------
    groups : Groups
        Of the networks; there must be some.
    baseline, target : nn.Module
        The pair.
    seeds : range
        Of the random orders.

    Raises
    ------
    ValueError
        If no channels permute.
    """
    if not len(groups):
        raise ValueError("groups is empty; expected networks with channels that permute")
    own, wanted = (parameters_of(network, groups) for network in (baseline, target))
    sizes = [sum(v.double().square().sum().item() for v in p.values()) for p in (own, wanted)]
    norm = (sizes[0] * sizes[1]) ** 0.5
    channels = sum(group.size for group in groups)
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        start = {group.atom: torch.randperm(group.size, generator=generator) for group in groups}
        orders = match_weights(groups, wanted, own, start=start, seed=seed)
        back = sum(int((v == torch.arange(len(v))).sum()) for v in orders.values())
        cosines = (agreement(groups, wanted, own, o) / norm for o in ({}, start, orders))
        yield Return(channels, *cosines, back / channels)
