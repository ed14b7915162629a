"""Swap units, whose filters are swapped together: kernels, output channels or layers."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import Contrast
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import convolution_of as convolution_of
from faigfast.filters.output_channels import output_channels as output_channels
from faigfast.models.fingerprint import fingerprint
from faigfast.models.state import check_same_layout, tensors, unwrap
from faigfast.result import Attribution

SWAP_UNITS = ("kernel", "channel", "layer")


def swap_unit_numbers(network: nn.Module, index: FilterIndex, by: str) -> Tensor:
    """Give the number of each filter's swap unit, [F], from 0 without gaps.

    Parameters
    ----------
    network : nn.Module
        The network of the index.
    index : FilterIndex
        All filters.
    by : {"kernel", "channel", "layer"}
        The swap unit: one filter, all filters of an output channel, or all of a layer.

    Raises
    ------
    ValueError
        If `by` is unknown.
    """
    if by not in SWAP_UNITS:
        raise ValueError(f"by is {by!r}; expected one of {', '.join(SWAP_UNITS)}")
    if by == "kernel":
        return torch.arange(len(index))
    parts, first = [], 0
    for channels in output_channels(network, index).values():
        local = channels if by == "channel" else torch.zeros_like(channels)
        parts.append(local + first)
        first += int(local.max()) + 1
    return torch.cat(parts)


def top_swap_units(
    network: nn.Module, result: Attribution, contrast: Contrast, fraction: float, by: str = "kernel"
) -> FilterSet:
    """Take the swap units with the highest mean scores, up to a share of all filters.

    Parameters
    ----------
    network : nn.Module
        The target.
    result : Attribution
        Result for the network.
    contrast : Contrast
        The contrast to rank by.
    fraction : float
        Largest share of all F filters, in (0, 1]; the first unit is taken even if it is larger.
    by : {"kernel", "channel", "layer"}
        The swap unit.

    Returns
    -------
    FilterSet
        Unit by unit, best first.

    Raises
    ------
    ValueError
        As `Attribution.top` and `swap_unit_numbers`.
    """
    best = contrast.top(result, fraction)  # checks the fraction
    if by == "kernel":
        return best
    unit_of_filter = swap_unit_numbers(network, result.index, by)
    zeros = torch.zeros(int(unit_of_filter.max()) + 1, dtype=torch.float64)
    sizes = zeros.scatter_add(0, unit_of_filter, result.scored.double())
    score_sums = zeros.scatter_add(0, unit_of_filter, contrast.scores(result) * result.scored)
    means = torch.where(sizes > 0, score_sums / sizes.clamp(min=1), -torch.inf)
    order = torch.argsort(means, descending=True, stable=True)
    return replace(best, indices=_fill(order, unit_of_filter, result.scored, len(best)))


def random_swap_units(
    network: nn.Module, result: Attribution, like: FilterSet, by: str, count: int, seed: int = 0
) -> list[FilterSet]:
    """Draw random swap units, up to as many filters as `like` has.

    Parameters
    ----------
    network, result, by
        As in `top_swap_units`.
    like : FilterSet
        Its size is the most filters of a draw; the first unit is taken even if it is larger.
    count : int
        Number of sets.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of FilterSet
        For kernels exactly as many filters as `like`; for larger units seldom exactly as many.
    """
    generator = torch.Generator().manual_seed(seed)
    unit_of_filter = swap_unit_numbers(network, result.index, by)
    count_of_units = int(unit_of_filter.max()) + 1
    orders = [torch.randperm(count_of_units, generator=generator) for _ in range(count)]
    return [
        replace(like, indices=_fill(order, unit_of_filter, result.scored, len(like)))
        for order in orders
    ]


def random_of_same_layers(
    network: nn.Module, result: Attribution, like: FilterSet, by: str, count: int, seed: int = 0
) -> list[FilterSet]:
    """Draw random swap units, in each layer as many as `like` has there.

    A control for where filters lie: sets that differ from `like` only within layers.

    Parameters
    ----------
    network, result, by, count, seed
        As in `random_swap_units`; a layer's only swap unit by "layer" is drawn always.
    like : FilterSet
        Whole swap units.

    Returns
    -------
    list of FilterSet
        Drawn uniformly from the scored swap units of a layer, those of `like` included.
    """
    return _within_layers(network, result.index, result.scored, like, by, count, seed)


def random_filters_of_same_layers(
    network: nn.Module, like: FilterSet, count: int, seed: int = 0
) -> list[FilterSet]:
    """Draw random filters, in each layer as many as `like` has there.

    Parameters
    ----------
    network : nn.Module
        The network of the filters.
    like : FilterSet
        The filters.
    count, seed
        As in `random_swap_units`.

    Returns
    -------
    list of FilterSet
        Drawn uniformly from the filters of a layer, those of `like` included.
    """
    index = FilterIndex.of(network)
    every = torch.ones(len(index), dtype=torch.bool)
    return _within_layers(network, index, every, like, "kernel", count, seed)


def _within_layers(
    network: nn.Module,
    index: FilterIndex,
    scored: Tensor,
    like: FilterSet,
    by: str,
    count: int,
    seed: int,
) -> list[FilterSet]:
    generator = torch.Generator().manual_seed(seed)
    unit_of_filter = swap_unit_numbers(network, index, by)
    layer_of_filter = swap_unit_numbers(network, index, "layer")
    layers = layer_of_filter[like.indices].unique()
    drawn: list[list[Tensor]] = [[] for _ in range(count)]
    for layer in layers:
        in_layer = (layer_of_filter == layer) & scored
        units = unit_of_filter[in_layer].unique()
        wanted = unit_of_filter[like.indices[layer_of_filter[like.indices] == layer]].unique()
        for parts in drawn:
            order = torch.randperm(len(units), generator=generator)[: len(wanted)]
            parts.append((torch.isin(unit_of_filter, units[order]) & in_layer).nonzero().flatten())
    return [replace(like, indices=torch.cat(parts)) for parts in drawn]


def _fill(order: Tensor, unit_of_filter: Tensor, scored: Tensor, most: int) -> Tensor:
    """Scored filters of units in an order, until one more unit would exceed `most` filters."""
    sizes = torch.zeros(len(order), dtype=torch.int64).scatter_add(0, unit_of_filter, scored.long())
    order = order[sizes[order] > 0]
    fits = sizes[order].cumsum(0) <= most
    fits[0] = True
    taken = order[fits.cumprod(0).bool()]
    rank = torch.full_like(sizes, len(sizes))
    rank[taken] = torch.arange(len(taken))
    chosen = ((rank[unit_of_filter] < len(sizes)) & scored).nonzero().flatten()
    return chosen[torch.argsort(rank[unit_of_filter[chosen]], stable=True)]


def check_pair(result: Attribution, baseline: nn.Module, target: nn.Module) -> None:
    """Refuse a result of networks other than the two.

    Raises
    ------
    ValueError
        If the networks differ in architecture, or the result is of others.
    """
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    check_same_layout(tensors(baseline), tensors(target))
    check_index(result, target)
    for role, network in (("baseline", baseline), ("target", target)):
        known, own = getattr(result.setting, role), fingerprint(network)
        if known and known != own:
            raise ValueError(f"the attribution's {role} is the network {known}, not {own}")


def check_index(result: Attribution, network: nn.Module) -> FilterIndex:
    """Give the index of a network; refuse a result whose filters are not the network's.

    Raises
    ------
    ValueError
        Naming both.
    """
    index = FilterIndex.of(network)
    if index != result.index:
        raise ValueError(
            f"the attribution is of the network {result.index.fingerprint} with "
            f"{len(result.index)} filters, not of {index.fingerprint} with {len(index)}"
        )
    return index
