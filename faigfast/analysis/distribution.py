"""Distribution: the layers of discovered filters, and their change from baseline to target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.data_frames import data_frame, measured
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.kernel_values import top_kernels as top_kernels
from faigfast.models.state import check_same_layout, tensors, unwrap

if TYPE_CHECKING:
    import pandas


def layer_numbers(index: FilterIndex) -> Tensor:
    """Give the number of the layer of every filter, [F]."""
    counts = torch.tensor(index.offsets).diff()
    return torch.repeat_interleave(torch.arange(len(counts)), counts)


def distribution(
    sets: Mapping[str, FilterSet], index: FilterIndex, scored: Tensor | None = None
) -> "pandas.DataFrame":
    """Count discovered filters layer by layer.

    Parameters
    ----------
    sets : mapping of str to FilterSet
        By name.
    index : FilterIndex
        Index of their network.
    scored : Tensor, optional
        [F] of bool, the filters that chance would choose from; None: all.

    Returns
    -------
    pandas.DataFrame
        One row a layer, in order of depth, set and metric: the set's number of filters there, their
        share of the layer, and that share over the share by chance.

    Raises
    ------
    ValueError
        If a set is of another network.
    """
    layers = layer_numbers(index)
    sizes = layers.bincount(minlength=len(index.layers))
    counts = {}
    for name, filters in sets.items():
        filters.masks(index)  # refuses a set of another network
        counts[name] = layers[filters.indices].bincount(minlength=len(sizes))
    rows = []
    chosen = len(index) if scored is None else int(scored.sum())
    for n, layer in enumerate(index.layers):
        row: dict[str, Any] = {
            "depth": n,
            "layer": layer.removesuffix(".weight"),
            "filter_count": int(sizes[n]),
        }
        for name, filters in sets.items():
            number = int(counts[name][n])
            share = number / int(sizes[n])
            rows += [
                row | {"contrast": name} | measured("chosen_count", number),
                row | {"contrast": name} | measured("chosen_fraction", share),
                row | {"contrast": name} | measured("times_chance", share * chosen / len(filters)),
            ]
    return data_frame(rows, across=["contrast"])


@dataclass(frozen=True)
class KernelChange:
    """Change of every filter from baseline to target.

    Parameters
    ----------
    relative_size : Tensor
        [F], ‖θ − θ̄‖ of the kernel over ‖θ̄‖; infinite where the baseline's is zero.
    cosine : Tensor
        [F], cosine between the kernel before and after; NaN where one is zero or 1×1.
    growth : Tensor
        [F], ‖θ‖ / ‖θ̄‖ − 1: above 0 the kernel grew.
    sum_change : Tensor
        [F], change of the sum of the kernel's weights, its response to an even surface.
    """

    relative_size: Tensor
    cosine: Tensor
    growth: Tensor
    sum_change: Tensor

    @classmethod
    def of(cls, baseline: nn.Module, target: nn.Module) -> "KernelChange":
        """Compare two networks kernel by kernel.

        Raises
        ------
        ValueError
            If they are of different architectures.
        """
        baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
        baseline_state, target_state = tensors(baseline), tensors(target)
        check_same_layout(baseline_state, target_state)
        parts: list[tuple[Tensor, ...]] = []
        for layer in FilterIndex.of(target).layers:
            old, new = (
                state[layer].detach().cpu().double().flatten(2).flatten(0, 1)
                for state in (baseline_state, target_state)
            )  # [O·I, k]
            old_norm, new_norm = old.norm(dim=1), new.norm(dim=1)
            cosine = (old * new).sum(1) / (old_norm * new_norm)
            if old.shape[1] == 1:
                cosine = torch.full_like(cosine, torch.nan)
            relative_size = (new - old).norm(dim=1) / old_norm
            growth, sum_change = new_norm / old_norm - 1, new.sum(1) - old.sum(1)
            parts.append((relative_size, cosine, growth, sum_change))
        return cls(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def changes(
    baseline: nn.Module, target: nn.Module, sets: Mapping[str, FilterSet]
) -> "pandas.DataFrame":
    """Summarise the change of discovered filters, beside that of all filters.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    sets : mapping of str to FilterSet
        By name.

    Returns
    -------
    pandas.DataFrame
        One row a set, and one of all filters: medians of relative size, cosine, growth and change
        of the sum, and the shares of kernels that grew, that turned round (cosine below 0) and
        whose sum rose.
    """
    change = KernelChange.of(baseline, target)
    index = FilterIndex.of(target)
    rows = []
    for name, filters in (("all filters", None), *sets.items()):
        if filters is not None:
            filters.masks(index)
        chosen = slice(None) if filters is None else filters.indices
        relative_size, cosine, growth, sum_change = (
            value[chosen]
            for value in (change.relative_size, change.cosine, change.growth, change.sum_change)
        )
        rows.append(
            {
                "contrast": name,
                "filter_count": len(relative_size),
                "relative_change": _median(relative_size),
                "cosine": _median(cosine),
                "growth": _median(growth),
                "grew_fraction": float((growth > 0).double().mean()),
                "turned_fraction": _share(cosine < 0, cosine.isfinite()),
                "sum_rose_fraction": float((sum_change > 0).double().mean()),
                "sum_change": _median(sum_change),
            }
        )
    return data_frame(rows)


def _share(flags: Tensor, among: Tensor) -> float:
    return float(flags[among].double().mean())  # NaN among none


def _median(values: Tensor) -> float:
    known = values[values.isfinite()]
    return float(known.median()) if len(known) else float("nan")
