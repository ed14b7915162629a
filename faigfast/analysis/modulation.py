"""Modulation: a target that restores more or less strongly, one degradation or several at once."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from faigfast.analysis.columns import STRENGTH_OF
from faigfast.analysis.data_frames import data_frame, measured
from faigfast.analysis.evaluation import Crops, MetricValues, mean_and_interval, restore
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.measure import measure_all
from faigfast.filters.filter_set import FilterSet
from faigfast.models.state import all_finite, tensors

if TYPE_CHECKING:
    import pandas

LARGEST_STRENGTH = 1e9
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Modulation:
    """Metrics of networks with several strengths.

    Parameters
    ----------
    names : tuple of str
        Names of the modulated filter sets.
    strengths : tuple of tuple of float
        One strength per name, for every network.
    values : tuple of dict
        Metric to degradation of the input to [N], for every network.
    """

    names: tuple[str, ...]
    strengths: tuple[tuple[float, ...], ...]
    values: tuple[MetricValues, ...]

    def find(self, **wanted: float) -> MetricValues:
        """Look up the values of a network by its strengths other than 1."""
        strengths = tuple(float(wanted.get(name, 1.0)) for name in self.names)
        return self.values[self.strengths.index(strengths)]

    def curve(self, name: str) -> tuple[list[float], list[MetricValues]]:
        """Strengths of one name, and the values where all other strengths are 1."""
        position = self.names.index(name)
        alone = [
            (strengths[position], values)
            for strengths, values in zip(self.strengths, self.values, strict=True)
            if all(s == 1 for n, s in enumerate(strengths) if n != position)
        ]
        alone.sort(key=lambda pair: pair[0])
        return [strength for strength, _ in alone], [values for _, values in alone]

    def to_frame(self) -> "pandas.DataFrame":
        """One row a network, degradation of the input and metric.

        Each set of filters has a column of strengths: "strength_" and its name in snake_case.
        """
        columns = strength_columns(self.names)
        rows = []
        for strengths, values in zip(self.strengths, self.values, strict=True):
            for degradation in next(iter(values.values())):
                row: dict[str, Any] = {"degradation": degradation}
                row |= zip(columns, strengths, strict=True)
                for metric, by_degradation in values.items():
                    now = by_degradation[degradation]
                    rows.append(row | measured(metric, *mean_and_interval(now)))
        return data_frame(rows, names=columns)


def strength_columns(names: Sequence[str]) -> dict[str, str]:
    """Column of the strengths → name of the filters; names that would be one column are numbered.

    Examples
    --------
    >>> strength_columns(["blur:noise", "blur-noise"])
    {'strength_blur_noise': 'blur:noise', 'strength_blur_noise_2': 'blur-noise'}
    """
    columns: dict[str, str] = {}
    for name in names:
        stem = STRENGTH_OF + (re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "filters")
        candidates = (f"{stem}{'' if n == 1 else f'_{n}'}" for n in itertools.count(1))
        columns[next(c for c in candidates if c not in columns)] = name
    return columns


def modulated(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    strengths: Mapping[str, float],
    *,
    biases: bool = False,
) -> nn.Module:
    """Copy the target with every set of filters at a strength of its own.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair, unchanged.
    sets : mapping of str to FilterSet
        Filters by name; a filter in several sets takes the product of their strengths.
    strengths : mapping of str to float
        By name; 0 gives the baseline's filters, 1 the target's, above 1 extrapolates. Names left
        out stay at 1.
    biases : bool
        Give the bias of a channel the strength of a set that holds all filters of the channel, as
        `FilterSet.swap` does.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        If a name has no set, a strength or a weight at it is not finite, or as `FilterSet.swap`.
    """
    if not sets:
        raise ValueError("sets are empty; expected at least one")
    for name, strength in strengths.items():
        if name not in sets:
            raise ValueError(f"strength of {name!r}; expected some of {', '.join(sets)}")
        check_strength(strength, name)
    network = target
    for name, strength in strengths.items():
        if strength != 1:
            filters = sets[name]
            if network is not target:  # it may be the baseline by now
                filters = replace(filters, baseline="", target="")
            network = filters.swap(baseline, network, strength, biases=biases)
    if network is target:
        return next(iter(sets.values())).swap(baseline, target, 1)
    weights = [value for value in tensors(network).values() if value.is_floating_point()]
    if not all(map(all_finite, weights)):
        given = ", ".join(f"{name!r} {strength:g}" for name, strength in strengths.items())
        raise ValueError(f"weights at the strengths {given} are not finite")
    return network


def check_strength(strength: Any, name: str) -> float:
    """Refuse a strength that is not a finite number, or could make weights overflow."""
    if isinstance(strength, bool) or not isinstance(strength, Real) or not math.isfinite(strength):
        raise ValueError(f"strength of {name!r} is {strength!r}; expected a finite number")
    if abs(float(strength)) > LARGEST_STRENGTH:
        raise ValueError(
            f"strength of {name!r} is {strength!r}; expected at most {LARGEST_STRENGTH:g} in size"
        )
    return float(strength)


def modulate(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    data: Crops,
    *,
    strengths: Sequence[float] = STRENGTHS,
    together: bool = False,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    biases: bool = False,
    finished_parts: FinishedParts | None = None,
    progress: bool = False,
) -> Modulation:
    """Measure networks over the strengths of one set at a time, or of all together.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    sets : mapping of str to FilterSet
        Discovered filters by name.
    data : Crops
        The crops to restore.
    strengths : sequence of float
        In any order.
    together : bool
        Measure every combination of strengths, a grid, instead of one name after the other.
    biases : bool
        As in `modulated`.
    border, metrics, finished_parts, progress
        As in `faigfast.analysis.masking.mask`.

    Returns
    -------
    Modulation

    Raises
    ------
    ValueError
        If nothing is given, a strength is not finite, or as `FilterSet.swap`.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021, who modulate one degradation at a time.
    """
    if not sets or not len(strengths):
        raise ValueError("sets or strengths are empty; expected at least one of each")
    levels = sorted({check_strength(s, next(iter(sets))) for s in strengths})
    names = tuple(sets)
    if together:
        combinations = list(itertools.product(levels, repeat=len(names)))
    else:
        combinations = [
            tuple(s if n == position else 1.0 for n in range(len(names)))
            for position in range(len(names))
            for s in levels
        ]
    combinations = list(dict.fromkeys(combinations))
    networks: dict[str, Callable[[], nn.Module]] = {}
    keys = []
    for combination in combinations:
        strength_of = dict(zip(names, combination, strict=True))
        moved = sorted(f"{sets[name].digest}={s!r}" for name, s in strength_of.items() if s != 1)
        how = "modulate with biases" if biases else "modulate"
        keys.append("target" if not moved else f"{how} {' '.join(moved)}")
        networks[keys[-1]] = partial(modulated, baseline, target, sets, strength_of, biases=biases)
    values = measure_all(
        networks, data, border=border, metrics=metrics, target=target,
        finished_parts=finished_parts, title="modulation", progress=progress,
    )  # fmt: skip
    return Modulation(names, tuple(combinations), tuple(values[key] for key in keys))


def modulated_images(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    lq: Tensor,
    strengths: Sequence[Mapping[str, float]],
    pad: int = 0,
    *,
    biases: bool = False,
) -> list[Tensor]:
    """Restore one image [1, C, h, w] at several strengths; a list of [C, H, W]."""
    networks = (modulated(baseline, target, sets, s, biases=biases) for s in strengths)
    return [restore(network, lq, pad)[0] for network in networks]
