"""Units that are swapped as a whole: kernels, output channels, layers."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import Contrast
from faigfast.filters.filter_set import CONVOLUTIONS, FilterIndex, FilterSet
from faigfast.models.fingerprint import fingerprint
from faigfast.models.state import check_same_layout, tensors, unwrap
from faigfast.result import Attribution

UNITS = ("kernel", "channel", "layer")
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def output_channels(network: nn.Module, index: FilterIndex) -> dict[str, Tensor]:
    """Output channel of every filter, by layer: [O·I] in the order of the index.

    A transposed convolution stores its input channels first; with groups, an output channel of its
    is the group's and the column's.
    """
    found = {}
    for key, shape in zip(index.layers, index.shapes, strict=True):
        _, layer = convolution_of(network, key)
        rows = torch.arange(shape[0]).repeat_interleave(shape[1])
        if isinstance(layer, _TRANSPOSED):
            columns = torch.arange(shape[1]).repeat(shape[0])
            group = rows // (shape[0] // layer.groups)
            found[key] = group * shape[1] + columns
        else:
            found[key] = rows
    return found


def convolution_of(network: nn.Module, key: str) -> tuple[str, Any]:
    """Find the convolution whose weight stands under a key of the state dict; name and module."""
    convolutions = {
        name: layer
        for name, layer in unwrap(network, "network").named_modules()
        if isinstance(layer, CONVOLUTIONS)
    }
    # A parametrized weight lies deeper than its layer.
    name = max((n for n in convolutions if key.startswith(f"{n}." if n else n)), key=len)
    return name, convolutions[name]


def unit_of(network: nn.Module, index: FilterIndex, by: str) -> Tensor:
    """Give the number of the unit that each filter belongs to, [F], from 0 without gaps.

    Parameters
    ----------
    network : nn.Module
        Whose filters the index numbers.
    index : FilterIndex
        All filters.
    by : {"kernel", "channel", "layer"}
        What a unit is: a filter alone, all filters of an output channel, or of a layer.

    Raises
    ------
    ValueError
        If `by` is something else.
    """
    if by not in UNITS:
        raise ValueError(f"by is {by!r}; expected one of {', '.join(UNITS)}")
    if by == "kernel":
        return torch.arange(len(index))
    parts, first = [], 0
    for channels in output_channels(network, index).values():
        local = channels if by == "channel" else torch.zeros_like(channels)
        parts.append(local + first)
        first += int(local.max()) + 1
    return torch.cat(parts)


def top_units(
    network: nn.Module, result: Attribution, contrast: Contrast, fraction: float, by: str = "kernel"
) -> FilterSet:
    """Take whole units, those whose filters score highest on average, up to a share of all filters.

    Parameters
    ----------
    network : nn.Module
        The target.
    result : Attribution
        Of the network.
    contrast : Contrast
        What the ranking follows.
    fraction : float
        Share of all F filters in (0, 1] that is not passed, but for the first unit, which is
        always taken.
    by : {"kernel", "channel", "layer"}
        What a unit is.

    Returns
    -------
    FilterSet
        Unit by unit, best first.

    Raises
    ------
    ValueError
        As `Attribution.top` and `unit_of`.
    """
    best = contrast.top(result, fraction)  # checks the fraction
    if by == "kernel":
        return best
    unit = unit_of(network, result.index, by)
    zeros = torch.zeros(int(unit.max()) + 1, dtype=torch.float64)
    sizes = zeros.scatter_add(0, unit, result.scored.double())
    sums = zeros.scatter_add(0, unit, contrast.scores(result) * result.scored)
    means = torch.where(sizes > 0, sums / sizes.clamp(min=1), -torch.inf)
    order = torch.argsort(means, descending=True, stable=True)
    return replace(best, indices=_fill(order, unit, result.scored, len(best)))


def random_units(
    network: nn.Module, result: Attribution, like: FilterSet, by: str, count: int, seed: int = 0
) -> list[FilterSet]:
    """Draw whole units as `top_units` takes them, up to as many filters as `like` has.

    Parameters
    ----------
    network, result, by
        As in `top_units`.
    like : FilterSet
        Its size is not passed, but for the first unit.
    count : int
        How many sets.
    seed : int
        Of the draw.

    Returns
    -------
    list of FilterSet
        Of filters alone as many as `like` has; whole units seldom add up to the same number.
    """
    generator = torch.Generator().manual_seed(seed)
    unit = unit_of(network, result.index, by)
    units = int(unit.max()) + 1
    orders = [torch.randperm(units, generator=generator) for _ in range(count)]
    return [replace(like, indices=_fill(order, unit, result.scored, len(like))) for order in orders]


def _fill(order: Tensor, unit: Tensor, scored: Tensor, most: int) -> Tensor:
    """Take units in an order until one would pass `most` filters; their scored filters."""
    sizes = torch.zeros(len(order), dtype=torch.int64).scatter_add(0, unit, scored.long())
    order = order[sizes[order] > 0]
    fits = sizes[order].cumsum(0) <= most
    fits[0] = True
    taken = order[fits.cumprod(0).bool()]
    place = torch.full_like(sizes, len(sizes))
    place[taken] = torch.arange(len(taken))
    chosen = ((place[unit] < len(sizes)) & scored).nonzero().flatten()
    return chosen[torch.argsort(place[unit[chosen]], stable=True)]


def check_pair(result: Attribution, baseline: nn.Module, target: nn.Module) -> None:
    """Refuse a result of other networks than the two.

    Raises
    ------
    ValueError
        If the networks differ in architecture, or the result is of others.
    """
    first, last = unwrap(baseline, "baseline"), unwrap(target, "target")
    check_same_layout(tensors(first), tensors(last))
    check_index(result, last)
    for end, network in (("baseline", first), ("target", last)):
        known, own = getattr(result.setting, end), fingerprint(network)
        if known and known != own:
            raise ValueError(f"the attribution's {end} is the network {known}, not {own}")


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
