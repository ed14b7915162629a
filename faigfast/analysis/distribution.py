"""Distribution: where discovered filters lie, and what became of them on the way to the target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.data_frames import frame
from faigfast.filters.filter_set import FilterIndex, FilterSet
from faigfast.models.state import check_same_layout, tensors, unwrap

if TYPE_CHECKING:
    import pandas


def layer_of(index: FilterIndex) -> Tensor:
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
        Of their network.
    scored : Tensor, optional
        [F] of bool, the filters among which chance would choose; None: all.

    Returns
    -------
    pandas.DataFrame
        One row a layer, in order of depth: its filters, then for each name how many of its set lie
        there, which share of the layer that is, and how many times the share chance would give.

    Raises
    ------
    ValueError
        If a set is of another network.
    """
    layers = layer_of(index)
    sizes = layers.bincount(minlength=len(index.layers))
    counts = {}
    for name, filters in sets.items():
        filters.masks(index)  # refuses those of another network
        counts[name] = layers[filters.indices].bincount(minlength=len(sizes))
    rows = []
    chosen = len(index) if scored is None else int(scored.sum())
    for n, layer in enumerate(index.layers):
        row: dict[str, Any] = {
            "depth": n,
            "layer": layer.removesuffix(".weight"),
            "filters": int(sizes[n]),
        }
        for name, filters in sets.items():
            share = int(counts[name][n]) / int(sizes[n])
            row[f"{name}, number"] = int(counts[name][n])
            row[f"{name}, % of layer"] = 100 * share
            row[f"{name}, × chance"] = share * chosen / len(filters)
        rows.append(row)
    return frame(rows)


@dataclass(frozen=True)
class Change:
    """What became of every filter between baseline and target.

    Parameters
    ----------
    size : Tensor
        [F], ‖θ − θ̄‖ of the kernel over ‖θ̄‖; infinite where the baseline's is zero.
    turn : Tensor
        [F], cosine between the kernel before and after; NaN where one is zero or 1×1.
    gain : Tensor
        [F], ‖θ‖ / ‖θ̄‖ − 1: above 0 the kernel grew.
    sum : Tensor
        [F], change of the sum of its weights, what it does to an even surface.
    """

    size: Tensor
    turn: Tensor
    gain: Tensor
    sum: Tensor

    @classmethod
    def of(cls, baseline: nn.Module, target: nn.Module) -> "Change":
        """Compare two networks kernel by kernel.

        Raises
        ------
        ValueError
            If they are of different architectures.
        """
        first, last = unwrap(baseline, "baseline"), unwrap(target, "target")
        start, end = tensors(first), tensors(last)
        check_same_layout(start, end)
        parts: list[tuple[Tensor, ...]] = []
        for layer in FilterIndex.of(last).layers:
            old, new = (
                state[layer].detach().cpu().double().flatten(2).flatten(0, 1)
                for state in (start, end)
            )  # [O·I, k]
            a, b = old.norm(dim=1), new.norm(dim=1)
            cosine = (old * new).sum(1) / (a * b)
            if old.shape[1] == 1:
                cosine = torch.full_like(cosine, torch.nan)
            parts.append(((new - old).norm(dim=1) / a, cosine, b / a - 1, new.sum(1) - old.sum(1)))
        return cls(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def changes(
    baseline: nn.Module, target: nn.Module, sets: Mapping[str, FilterSet]
) -> "pandas.DataFrame":
    """Sum up what changed in discovered filters, beside all filters.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    sets : mapping of str to FilterSet
        By name.

    Returns
    -------
    pandas.DataFrame
        One row a set, and one of all filters: medians of the size of the change, of the cosine
        between kernels before and after and of the gain, shares of kernels that grew, that turned
        round (cosine below 0) and whose sum rose, and the median of that sum's change.
    """
    change = Change.of(baseline, target)
    index = FilterIndex.of(target)
    rows = []
    for name, filters in (("all filters", None), *sets.items()):
        if filters is not None:
            filters.masks(index)
        chosen = slice(None) if filters is None else filters.indices
        size, turn, gain, total = (
            value[chosen] for value in (change.size, change.turn, change.gain, change.sum)
        )
        rows.append(
            {
                "filters": name,
                "number": len(size),
                "size of change": _median(size),
                "cosine": _median(turn),
                "gain": _median(gain),
                "grew, %": 100 * float((gain > 0).double().mean()),
                "turned round, %": 100 * _share(turn < 0, turn.isfinite()),
                "sum rose, %": 100 * float((total > 0).double().mean()),
                "change of sum": _median(total),
            }
        )
    return frame(rows)


def _share(flags: Tensor, among: Tensor) -> float:
    return float(flags[among].double().mean())  # NaN among none


def _median(values: Tensor) -> float:
    known = values[values.isfinite()]
    return float(known.median()) if len(known) else float("nan")


def heads(
    baseline: nn.Module, target: nn.Module, filters: FilterSet, count: int = 12
) -> list[tuple[str, Tensor, Tensor]]:
    """Take the kernels at the head of a ranking, before and after.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    filters : FilterSet
        Best first.
    count : int
        How many; fewer where the set has fewer.

    Returns
    -------
    list of (str, Tensor, Tensor)
        "layer out,in" and the kernel in baseline and target, each as two dimensions: kernels of one
        dimension as a row, of those of three the slices side by side.
    """
    index = FilterIndex.of(target)
    filters.masks(index)
    start, end = tensors(unwrap(baseline, "baseline")), tensors(unwrap(target, "target"))
    found = []
    for flat in filters.indices[:count].tolist():
        layer, row, column = index.locate(flat)
        before, after = (
            _flat(state[layer][row, column].detach().cpu().float()) for state in (start, end)
        )
        found.append((f"{layer.removesuffix('.weight')} {row},{column}", before, after))
    return found


def _flat(kernel: Tensor) -> Tensor:
    if kernel.ndim == 1:
        return kernel[None]
    return kernel if kernel.ndim == 2 else torch.cat(list(kernel), dim=1)
