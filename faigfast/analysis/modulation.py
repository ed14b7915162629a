"""Modulation: how strongly a target restores, one degradation at a time or several together."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from faigfast.analysis.data_frames import frame
from faigfast.analysis.evaluation import METRICS, Crops, Values, mean_and_interval, restore
from faigfast.analysis.measure import measure_all
from faigfast.filters.filter_set import FilterSet
from faigfast.io.finished_parts import Store
from faigfast.models.state import all_finite, tensors

if TYPE_CHECKING:
    import pandas

LARGEST = 1e9  # of a strength
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Modulation:
    """What networks of several strengths restore.

    Parameters
    ----------
    names : tuple of str
        Whose filters are modulated.
    settings : tuple of tuple of float
        One strength a name, for every network.
    values : tuple of dict
        Metric to degradation of the input to [N], for every network.
    """

    names: tuple[str, ...]
    settings: tuple[tuple[float, ...], ...]
    values: tuple[Values, ...]

    def find(self, **strengths: float) -> Values:
        """Look a network up by the strengths that are not 1."""
        wanted = tuple(float(strengths.get(name, 1.0)) for name in self.names)
        return self.values[self.settings.index(wanted)]

    def curve(self, name: str) -> tuple[list[float], list[Values]]:
        """Strengths of one name, and values, where all others are 1."""
        place = self.names.index(name)
        alone = [
            (setting[place], values)
            for setting, values in zip(self.settings, self.values, strict=True)
            if all(s == 1 for n, s in enumerate(setting) if n != place)
        ]
        alone.sort(key=lambda pair: pair[0])
        return [strength for strength, _ in alone], [values for _, values in alone]

    def frame(self) -> "pandas.DataFrame":
        """One row a network and degradation of the input."""
        rows = []
        for setting, values in zip(self.settings, self.values, strict=True):
            for degradation in next(iter(values.values())):
                row: dict[str, Any] = {
                    f"strength of {n}": s for n, s in zip(self.names, setting, strict=True)
                }
                row["input"] = degradation
                for metric, of in values.items():
                    row[METRICS[metric]], row[f"± {metric}"] = mean_and_interval(of[degradation])
                rows.append(row)
        return frame(rows)


def modulated(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    strengths: Mapping[str, float],
) -> nn.Module:
    """Copy the target with every set of filters at a strength of its own.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair, unchanged.
    sets : mapping of str to FilterSet
        Filters by name; those of several sets take the product of their strengths.
    strengths : mapping of str to float
        By name; 0 is the baseline's filters, 1 the target's, above 1 extrapolates. Names that are
        left out stay at 1.

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
            network = sets[name].swap(baseline, network, strength)
    if network is target:
        return next(iter(sets.values())).swap(baseline, target, 1)
    weights = [value for value in tensors(network).values() if value.is_floating_point()]
    if not all(map(all_finite, weights)):
        given = ", ".join(f"{name!r} {strength:g}" for name, strength in strengths.items())
        raise ValueError(f"weights at the strengths {given} are not finite")
    return network


def check_strength(strength: Any, name: str) -> float:
    """Refuse what is not a finite number, or so large that weights could overflow."""
    if isinstance(strength, bool) or not isinstance(strength, Real) or not math.isfinite(strength):
        raise ValueError(f"strength of {name!r} is {strength!r}; expected a finite number")
    if abs(float(strength)) > LARGEST:
        raise ValueError(
            f"strength of {name!r} is {strength!r}; expected at most {LARGEST:g} in size"
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
    store: Store | None = None,
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
        What is restored.
    strengths : sequence of float
        In any steps.
    together : bool
        Every combination of strengths, a grid, in place of one name after the other.
    border, metrics, store, progress
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
    steps = sorted({check_strength(s, next(iter(sets))) for s in strengths})
    names = tuple(sets)
    if together:
        settings = list(itertools.product(steps, repeat=len(names)))
    else:
        settings = [
            tuple(s if n == place else 1.0 for n in range(len(names)))
            for place in range(len(names))
            for s in steps
        ]
    settings = list(dict.fromkeys(settings))
    networks: dict[str, Callable[[], nn.Module]] = {}
    keys = []
    for setting in settings:
        given = dict(zip(names, setting, strict=True))
        moved = sorted(f"{sets[name].digest}={s!r}" for name, s in given.items() if s != 1)
        keys.append("target" if not moved else f"modulate {' '.join(moved)}")
        networks[keys[-1]] = partial(modulated, baseline, target, sets, given)
    values = measure_all(
        networks, data, border=border, metrics=metrics, target=target, store=store,
        title="modulation", progress=progress,
    )  # fmt: skip
    return Modulation(names, tuple(settings), tuple(values[key] for key in keys))


def modulated_images(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    lq: Tensor,
    settings: Sequence[Mapping[str, float]],
) -> list[Tensor]:
    """Restore one image [1, C, h, w] at several strengths; a list of [C, H, W]."""
    return [restore(modulated(baseline, target, sets, s), lq)[0] for s in settings]
