"""Locations and connections: effects of the discovered filters' weights and of their places.

Each experiment changes as many filters as were discovered, layer by layer where it can.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from faigfast.analysis.data_frames import data_frame, measured
from faigfast.analysis.evaluation import (
    Crops,
    MetricValues,
    mean_and_interval,
    mean_values,
    ratio_or_nan,
)
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.masking import DRAWS, random_sets
from faigfast.analysis.measure import measure_all
from faigfast.analysis.undone import Undone, undone
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import output_channels
from faigfast.models.state import copy_of, tensors, unwrap

if TYPE_CHECKING:
    import pandas

# Name → the change to the target (or to the baseline, where the text says so), and whether it is
# random.
EXPERIMENTS = {
    "masked": ("the discovered filters go back to the baseline's", False),
    "masked, other places": (
        "as many random others of the same layers go back to the baseline's",
        True,
    ),
    "masked, anywhere": ("as many random filters of all layers go back to the baseline's", True),
    "weights shuffled": ("the discovered filters of a layer exchange their weights", True),
    "inputs shuffled": ("the discovered filters of an output channel exchange their inputs", True),
    "weights moved": (
        "masked, and other filters of the layer take the discovered filters' weights",
        True,
    ),
    "grafted": ("the baseline with the discovered filters of the target", False),
    "grafted, other places": (
        "the baseline with as many random others of the same layers of the target",
        True,
    ),
    "grafted, shuffled": ("grafted, the discovered filters of a layer exchange weights", True),
}


@dataclass(frozen=True)
class Locations:
    """Networks of all experiments with one filter set, measured on the same crops.

    Parameters
    ----------
    name, degradation : str
        Name of the filters, and the degradation they serve.
    count : int
        Number of filters.
    values : dict
        "baseline", "target" and experiments to metric to degradation to [N]; of random
        experiments, the mean over the draws.
    """

    name: str
    degradation: str
    count: int
    values: dict[str, MetricValues]

    def kept(self, experiment: str, degradation: str | None = None) -> float:
        """Share of the target's gain over the baseline that is left: target 1, baseline 0.

        An experiment that breaks the network has a share too, below 0; see `outcome`.
        """
        base, full, now = (
            float(self.values[n]["psnr"][degradation or self.degradation].mean())
            for n in ("baseline", "target", experiment)
        )
        return ratio_or_nan(now - base, full - base)

    def outcome(self, experiment: str, degradation: str | None = None) -> Undone:
        """Share of the target's gain that an experiment loses, or why there is none."""
        name = degradation or self.degradation
        values = (self.values[n]["psnr"][name] for n in (experiment, "baseline", "target"))
        return undone(*values)

    def rows(self) -> list[dict[str, Any]]:
        """One row an experiment, degradation of the input and metric.

        Where the kept share is left open, "outcome" says why.
        """
        rows = []
        for experiment, values in self.values.items():
            for degradation, psnr in values["psnr"].items():
                row: dict[str, Any] = {
                    "degradation": degradation,
                    "contrast": self.name,
                    "network": experiment,
                }
                change = psnr - self.values["target"]["psnr"][degradation]
                one = self.outcome(experiment, degradation)
                rows += [
                    row | measured("psnr", *mean_and_interval(psnr)),
                    row | measured("psnr_change", *mean_and_interval(change)),
                    row | measured("kept", one.kept, one.half) | {"outcome": one.outcome},
                ]
        return rows


def other_places(filters: FilterSet, index: FilterIndex, seed: int = 0) -> FilterSet:
    """Draw as many filters in each layer, none of the given ones if the layer has enough others.

    Parameters
    ----------
    filters : FilterSet
        Filters of the network of the index.
    index : FilterIndex
        All filters.
    seed : int
        Seed of the draw.

    Returns
    -------
    FilterSet
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for layer, mask in filters.masks(index).items():
        first = index.offsets[index.layers.index(layer)]
        flat = mask.flatten()
        free = (~flat).nonzero().flatten()
        free = free[torch.randperm(len(free), generator=generator)]
        # A layer that is nearly all discovered has not enough others.
        taken = flat.nonzero().flatten()
        taken = taken[torch.randperm(len(taken), generator=generator)]
        parts.append(first + torch.cat([free, taken])[: int(flat.sum())])
    return FilterSet(
        torch.cat(parts), len(index), index.fingerprint, filters.baseline, filters.target
    )


def shuffled(
    network: nn.Module, filters: FilterSet, seed: int = 0, within_outputs: bool = False
) -> nn.Module:
    """Copy a network whose chosen filters have exchanged their weights, layer by layer.

    Parameters
    ----------
    network : nn.Module
        Unchanged.
    filters : FilterSet
        The filters that exchange weights.
    seed : int
        Seed of the exchange.
    within_outputs : bool
        Exchange only within one output channel: the channel keeps its kernels, but they read each
        other's inputs.

    Returns
    -------
    nn.Module
    """
    edited = copy_of(unwrap(network, "network"))
    generator = torch.Generator().manual_seed(seed)
    state, index = tensors(edited), FilterIndex.of(edited)
    outputs = output_channels(edited, index)
    with torch.no_grad():
        for layer, mask in filters.masks(index).items():
            places = mask.nonzero()  # [K, 2]
            keys = torch.rand(len(places), generator=generator, dtype=torch.float64)
            if within_outputs:
                group, order = outputs[layer][mask.flatten()].sort(stable=True)
                places, keys = places[order], keys + group
            order = torch.argsort(keys)
            weight = state[layer]
            row, column = places.to(weight.device).unbind(1)
            weight[row, column] = weight[row[order], column[order]].clone()
    return edited


def with_weights_moved(
    baseline: nn.Module, target: nn.Module, filters: FilterSet, places: FilterSet
) -> nn.Module:
    """Mask filters in the target, and put their weights at other places of their layers.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair, unchanged.
    filters : FilterSet
        The filters whose weights move.
    places : FilterSet
        Destination, as many filters in each layer.

    Returns
    -------
    nn.Module
    """
    edited = filters.swap(baseline, target)
    index = FilterIndex.of(edited)
    target_state, edited_state = tensors(unwrap(target, "target")), tensors(edited)
    destination_masks = places.masks(index)
    with torch.no_grad():
        for layer, mask in filters.masks(index).items():
            edited_state[layer][destination_masks[layer]] = target_state[layer][mask]
    return edited


def grafted(baseline: nn.Module, target: nn.Module, filters: FilterSet) -> nn.Module:
    """Copy the baseline with some of the target's filters; its biases stay."""
    # Fingerprints in the set would refuse baseline and target in exchanged roles.
    without_fingerprints = FilterSet(filters.indices, filters.total, filters.index)
    return without_fingerprints.swap(target, baseline)


def experiment(
    name: str, baseline: nn.Module, target: nn.Module, filters: FilterSet, seed: int
) -> nn.Module:
    """Build the network of one of `EXPERIMENTS`."""
    index = FilterIndex.of(target)
    elsewhere = partial(other_places, filters, index, seed)
    if name == "masked":
        return filters.swap(baseline, target)
    if name == "masked, other places":
        return elsewhere().swap(baseline, target)
    if name == "masked, anywhere":
        return random_sets(replace(filters, total=len(index)), 1, seed)[0].swap(baseline, target)
    if name == "weights shuffled":
        return shuffled(target, filters, seed)
    if name == "inputs shuffled":
        return shuffled(target, filters, seed, within_outputs=True)
    if name == "weights moved":
        return with_weights_moved(baseline, target, filters, elsewhere())
    if name == "grafted":
        return grafted(baseline, target, filters)
    if name == "grafted, other places":
        return grafted(baseline, target, elsewhere())
    if name == "grafted, shuffled":
        return shuffled(grafted(baseline, target, filters), filters, seed)
    raise ValueError(f"experiment is {name!r}; expected one of {', '.join(EXPERIMENTS)}")


def locations(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    degradations: Mapping[str, str],
    data: Crops,
    *,
    border: int,
    experiments: Sequence[str] = tuple(EXPERIMENTS),
    draws: int = DRAWS,
    finished_parts: FinishedParts | None = None,
    progress: bool = False,
) -> list[Locations]:
    """Ask whether the discovered filters' weights, locations and connections matter.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    sets : mapping of str to FilterSet
        Discovered filters by name.
    degradations : mapping of str to str
        The degradation that each name's filters serve.
    data : Crops
        The crops to restore.
    border : int
        Pixels left out of the PSNR.
    experiments : sequence of str
        Of `EXPERIMENTS`.
    draws : int
        Number of draws of each random experiment, to average.
    finished_parts : FinishedParts, optional
        Keeps every finished network's measurement.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Locations
        One a name.

    Raises
    ------
    ValueError
        If an experiment or a degradation is unknown, or a set is of another network.

    Notes
    -----
    Source: the claim of Xie et al., NeurIPS 2021, that not the weights alone but the
    locations and connections of discovered filters matter; the experiments are ours.
    """
    if unknown := [name for name in experiments if name not in EXPERIMENTS]:
        raise ValueError(f"experiment is {unknown[0]!r}; expected some of {', '.join(EXPERIMENTS)}")
    if draws < 1:
        raise ValueError(f"draws is {draws}; expected a positive integer")
    for name in sets:
        if degradations.get(name) not in data.lq:
            raise ValueError(
                f"the filters {name!r} serve {degradations.get(name)!r}; expected one of "
                f"{', '.join(data.lq)}"
            )
    networks: dict[str, Callable[[], nn.Module]] = {
        "baseline": lambda: baseline,
        "target": lambda: target,
    }
    keys: dict[tuple[str, str], list[str]] = {}
    for name, filters in sets.items():
        filters.masks(FilterIndex.of(target))
        for experiment_name in experiments:
            for seed in range(draws if EXPERIMENTS[experiment_name][1] else 1):
                # Masking measures the network "masked" under this key too.
                key = f"{experiment_name} {filters.digest} {seed}"
                key = f"swap {filters.digest}" if experiment_name == "masked" else key
                keys.setdefault((name, experiment_name), []).append(key)
                networks[key] = partial(
                    experiment, experiment_name, baseline, target, filters, seed
                )
    values = measure_all(
        networks, data, border=border, target=target, finished_parts=finished_parts,
        title="locations", progress=progress,
    )  # fmt: skip
    results = []
    for name, filters in sets.items():
        means: dict[str, MetricValues] = {
            network: values[network] for network in ("baseline", "target")
        }
        for experiment_name in experiments:
            means[experiment_name] = mean_values(
                [values[key] for key in keys[name, experiment_name]]
            )
        results.append(Locations(name, degradations[name], len(filters), means))
    return results


def locations_data_frame(parts: Sequence[Locations]) -> "pandas.DataFrame":
    """One row a name, experiment, degradation of the input and metric."""
    rows = [row for part in parts for row in part.rows()]
    return data_frame(rows, across=["degradation"])
