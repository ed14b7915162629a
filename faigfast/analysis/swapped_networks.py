"""Networks of filter sets, by the names that finished measurements are kept under."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from torch import nn

from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import complete_biases

BIASES = "Biases of output channels whose filters are all in a set move too"


def swapped_networks(
    sets: Iterable[FilterSet], baseline: nn.Module, target: nn.Module, biases: bool
) -> dict[str, Callable[[], nn.Module]]:
    """Give, by `swap_name`, a function that makes the network of each set at strength 0."""
    return {swap_name(s, biases): partial(s.swap, baseline, target, biases=biases) for s in sets}


def swap_name(filters: FilterSet, biases: bool) -> str:
    """Name the network of a set; equal names are equal networks of one pair."""
    return f"swap{' with biases' if biases else ''} {filters.digest}"


def count_biases(network: nn.Module, filters: FilterSet) -> int:
    """Count the biases that `FilterSet.swap(..., biases=True)` moves.

    Examples
    --------
    >>> import torch
    >>> count_biases(nn.Conv2d(3, 8, 3), FilterSet(torch.tensor([0, 1, 2, 5])))
    1
    """
    index = FilterIndex.of(network)
    complete = complete_biases(network, index, filters.masks(index))
    return sum(int(mask.sum()) for mask in complete.values())


def about_biases(network: nn.Module, sets: Mapping[str, FilterSet]) -> str:
    """Say how many biases move with each set."""
    counts = (f"{name} {count_biases(network, filters)}" for name, filters in sets.items())
    return f"{BIASES}: {', '.join(counts)}."
