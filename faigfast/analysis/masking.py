"""Masking: the loss of a network whose discovered filters go back to the baseline's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from faigfast.analysis.baselines import WEIGHT_METHODS
from faigfast.analysis.contrasts import Contrast, check_contrasts, one_against_rest
from faigfast.analysis.evaluation import Crops, MetricValues, mean_values, ratio_or_nan
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.measure import measure_all
from faigfast.analysis.swap_units import (
    check_pair,
    random_of_same_layers,
    random_swap_units,
    top_swap_units,
)
from faigfast.analysis.swapped_networks import count_biases, swap_name, swapped_networks
from faigfast.analysis.undone import Undone, undone
from faigfast.filters.filter_set import FilterSet
from faigfast.models.state import blaming
from faigfast.result import Attribution

FRACTIONS = (0.01, 0.03, 0.05, 0.1)
DRAWS = 3  # random sets or experiments, whose mean is taken
SAME_LAYERS = "random of the same layers"  # a method: in each layer as many as FAIG has there
LOWER_IS_BETTER = ("difference", "difference_authors")


@dataclass(frozen=True)
class Measurement:
    """Metrics of one masked network.

    Parameters
    ----------
    filters : str
        Which filters are masked: the name of a contrast, or of a method that looks at weights
        alone and has one set for all.
    fraction : float
        Requested share of all filters.
    share : float
        Masked share of all filters; of random filters, the mean over the sets.
    values : dict
        Metric to degradation of the input to [N]; of random filters, the mean over the sets.
    method : str
        Method that ranked the filters.
    count : int
        Number of masked filters, averaged like the share.
    biases : int
        Number of biases that went back with them, averaged like the share.
    """

    filters: str
    fraction: float
    share: float
    values: MetricValues
    method: str = "faig"
    count: int = 0
    biases: int = 0

    @property
    def psnr(self) -> dict[str, Tensor]:
        """PSNR [N] in dB by degradation of the input."""
        return self.values["psnr"]


@dataclass(frozen=True)
class Masking:
    """Baseline, target, and every masked network on the same crops.

    Parameters
    ----------
    pair_values : dict
        Metric values of the "baseline" and of the "target".
    masked : tuple of Measurement
        One for every filter set.
    contrasts : tuple of Contrast
        The contrasts that the filters were ranked by.
    photographs : tuple of str
        The photograph of each crop.
    """

    pair_values: dict[str, MetricValues]
    masked: tuple[Measurement, ...]
    contrasts: tuple[Contrast, ...]
    photographs: tuple[str, ...]

    @property
    def baseline(self) -> dict[str, Tensor]:
        """PSNR [N] of the baseline by degradation of the input."""
        return self.pair_values["baseline"]["psnr"]

    @property
    def target(self) -> dict[str, Tensor]:
        """PSNR [N] of the target by degradation of the input."""
        return self.pair_values["target"]["psnr"]

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method whose filters were masked, in order."""
        return tuple(dict.fromkeys(m.method for m in self.masked))

    def lost(self, measurement: Measurement, degradation: str) -> float:
        """Share of the target's gain over the baseline that masking undoes; 1 is all of it.

        A network that masking breaks has a share too, above 1; see `outcome`.
        """
        base, full, now = (
            float(values[degradation].mean())
            for values in (self.baseline, self.target, measurement.psnr)
        )
        return ratio_or_nan(full - now, full - base)

    def outcome(self, measurement: Measurement, degradation: str) -> Undone:
        """Share of the target's gain that masking undoes, or why there is none."""
        values = (measurement.psnr, self.baseline, self.target)
        return undone(*(one[degradation] for one in values))

    def find(self, filters: str, fraction: float, method: str = "") -> Measurement:
        """Look up a measurement: of FAIG's filters or one set for all contrasts, or a method's."""
        methods = (method,) if method else ("faig", filters)
        return next(
            m
            for m in self.masked
            if m.filters == filters and m.fraction == fraction and m.method in methods
        )

    def curve(self, method: str, filters: str) -> list[Measurement]:
        """Measurements of a method's filters for one contrast, by share."""
        own = (filters, method) if method in WEIGHT_METHODS else (filters,)
        curve = [m for m in self.masked if m.method == method and m.filters in own]
        return sorted(curve, key=lambda m: (m.share, m.fraction))

    def cost(self, measurement: Measurement, degradation: str, metric: str = "psnr") -> Tensor:
        """Give the cost in each crop [N]: a loss of quality, or a difference that grew."""
        now = measurement.values[metric][degradation]
        if metric in LOWER_IS_BETTER:
            return now
        return self.pair_values["target"][metric][degradation] - now

    def area(
        self,
        method: str,
        filters: str,
        degradation: str,
        metric: str = "psnr",
        within_gain: bool = False,
    ) -> Tensor:
        """Mean cost over the masked share, from nothing to the largest, in each crop [N].

        The area under the curve by the trapezoidal rule, divided by its width: dB for PSNR. The
        curves of all methods are cut where the shortest ends, since swap units differ in size.

        Parameters
        ----------
        method, filters : str
            Which filters are masked.
        degradation : str
            Degradation of the input.
        metric : str
            The measured metric.
        within_gain : bool
            Count in each crop at most the target's gain over the baseline there, and 0 where it
            gains nothing: a network that masking makes worse than the baseline has lost more than
            it had learnt.
        """
        points = self.curve(method, filters)
        if not points:
            raise ValueError(f"no filters of {method!r} for {filters!r} were masked")
        curves = [curve for m in self.methods if (curve := self.curve(m, filters))]
        last_share = min(curve[-1].share for curve in curves)
        costs = [self.cost(m, degradation, metric) for m in points]
        if within_gain:
            start, full = (self.pair_values[n][metric][degradation] for n in ("baseline", "target"))
            gain = start - full if metric in LOWER_IS_BETTER else full - start
            costs = [value.minimum(gain.clamp(min=0)) for value in costs]
        heights = [torch.zeros_like(costs[0])]
        shares = [0.0]
        for m, height in zip(points, costs, strict=True):
            if m.share > last_share:  # interpolate there
                part = (last_share - shares[-1]) / (m.share - shares[-1])
                heights.append(torch.lerp(heights[-1], height, part))
                shares.append(last_share)
                break
            heights.append(height)
            shares.append(m.share)
        area = torch.trapezoid(torch.stack(heights), torch.tensor(shares).to(heights[0]), dim=0)
        return area / last_share


def check_contrast_names(contrasts: Iterable[Contrast]) -> None:
    """Refuse a contrast with the name of a method that has one set for all contrasts."""
    if clash := {c.name for c in contrasts} & {*WEIGHT_METHODS}:
        raise ValueError(
            f"a contrast is called {min(clash)!r}, as a method is; expected another name"
        )


def random_sets(like: FilterSet, count: int = DRAWS, seed: int = 0) -> list[FilterSet]:
    """Draw as many filters as `like` has, uniformly, `count` times.

    Raises
    ------
    ValueError
        If the set does not know the number of its network's filters.
    """
    if like.total is None:
        raise ValueError("the set does not tell the number of its network's filters")
    generator = torch.Generator().manual_seed(seed)
    return [
        replace(like, indices=torch.randperm(like.total, generator=generator)[: len(like)])
        for _ in range(count)
    ]


def mask(
    baseline: nn.Module,
    target: nn.Module,
    result: Attribution | Mapping[str, Attribution],
    data: Crops,
    *,
    fractions: Sequence[float] = FRACTIONS,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    contrasts: Sequence[Contrast] | None = None,
    by: str = "kernel",
    biases: bool = False,
    finished_parts: FinishedParts | None = None,
    progress: bool = False,
) -> Masking:
    """Mask each method's top filters for each contrast, and random ones; measure what is left.

    Two controls are measured too: random filters, and for each contrast random ones of the
    same layers, as many in each layer as FAIG has there (without FAIG: the first method). Whole
    layers have no such control.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair of the results.
    result : Attribution or mapping of str to Attribution
        Results for the degradations in `data`: FAIG's, or one by method.
    data : Crops
        The crops to restore; better not the attributed images.
    fractions : sequence of float
        Shares of all filters in (0, 1].
    border : int
        Pixels left out of PSNR and SSIM on every side.
    metrics : sequence of str
        Of `faigfast.analysis.evaluation.METRICS`; PSNR is always measured.
    contrasts : sequence of Contrast, optional
        Rankings to mask by; None: each degradation against all others.
    by : {"kernel", "channel", "layer"}
        The swap unit.
    biases : bool
        Move the biases of channels whose filters are all in a set, as `FilterSet.swap` does.
    finished_parts : FinishedParts, optional
        Keeps every finished network's measurement.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Masking
        The random measurements are means over three sets.

    Raises
    ------
    ValueError
        If a fraction is outside (0, 1], a result is of another network, a contrast of a degradation
        that is not there, or the crops are too small for the border.

    Notes
    -----
    Source: section 4.2 of Xie et al., NeurIPS 2021, with PSNR and SSIM beside gradient maps.
    """
    results = {"faig": result} if isinstance(result, Attribution) else dict(result)
    metrics = tuple(dict.fromkeys(("psnr", *metrics)))
    any_result = next(iter(results.values()))
    contrasts = one_against_rest(any_result.degradations) if contrasts is None else tuple(contrasts)
    check_contrasts(contrasts, any_result.degradations)
    check_contrast_names(contrasts)
    fractions = sorted(set(fractions))
    if not fractions:
        raise ValueError("fractions are empty; expected shares in (0, 1]")
    for one_result in results.values():
        check_pair(one_result, baseline, target)
    # No method may choose a filter that another method did not score.
    scored = torch.stack([one.scored for one in results.values()]).all(0)
    results = {method: replace(one, scored=scored) for method, one in results.items()}
    any_result = next(iter(results.values()))
    leader = "faig" if "faig" in results else next(iter(results))

    groups: list[tuple[str, str, float, list[FilterSet]]] = []
    for fraction in fractions:
        tops: list[FilterSet] = []
        for method, one in results.items():
            for contrast in contrasts:
                top = top_swap_units(target, one, contrast, fraction, by)
                if method in WEIGHT_METHODS:  # one set for all contrasts
                    groups.append((method, method, fraction, [top]))
                    break
                tops.append(top)
                groups.append((method, contrast.name, fraction, [top]))
        if "random" not in results:
            like = tops[0] if tops else groups[-1][-1][0]
            draws = random_swap_units(target, any_result, like, by, DRAWS)
            groups.append(("random", "random", fraction, draws))
        if by != "layer" and leader != "random":
            for contrast in contrasts:
                top = top_swap_units(target, results[leader], contrast, fraction, by)
                draws = random_of_same_layers(target, any_result, top, by, DRAWS)
                groups.append((SAME_LAYERS, contrast.name, fraction, draws))

    networks: dict[str, Callable[[], nn.Module]] = {
        "baseline": lambda: baseline,
        "target": lambda: target,
    }
    for *_, sets in groups:
        networks |= swapped_networks(sets, baseline, target, biases)
    values = measure_all(
        networks, data, border=border, metrics=metrics, target=target,
        finished_parts=finished_parts, title="masking", progress=progress,
    )  # fmt: skip
    masked = []
    for method, filters, fraction, sets in groups:
        count = sum(map(len, sets)) / len(sets)
        mean = mean_values([values[swap_name(one, biases)] for one in sets])
        share = count / len(any_result.index)
        moved = sum(count_biases(target, one) for one in sets) / len(sets) if biases else 0
        masked.append(
            Measurement(filters, fraction, share, mean, method, round(count), round(moved))
        )
    pair_values = {name: values[name] for name in ("baseline", "target")}
    return Masking(pair_values, tuple(masked), contrasts, data.photographs)


def mask_sets(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    data: Crops,
    *,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    biases: bool = False,
    finished_parts: FinishedParts | None = None,
    progress: bool = False,
) -> dict[str, MetricValues]:
    """Mask given sets of filters, such as those of files, and measure what is left.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    sets : mapping of str to FilterSet
        By name.
    data, border, metrics, biases, finished_parts, progress
        As in `mask`.

    Returns
    -------
    dict of str to dict
        Metric values of "baseline", "target" and each set's network.

    Raises
    ------
    ValueError
        If a set is of another network, a filter does not exist, or as `mask`.
    """
    if clash := {"baseline", "target"} & sets.keys():
        raise ValueError(f"a set is called {sorted(clash)[0]!r}; expected another name")
    for name, one in sets.items():  # before anything is measured
        with blaming(f"set {name!r}", ValueError):
            one.check_pair(baseline, target)
    networks: dict[str, Callable[[], nn.Module]] = {
        "baseline": lambda: baseline,
        "target": lambda: target,
        **swapped_networks(sets.values(), baseline, target, biases),
    }
    metrics = tuple(dict.fromkeys(("psnr", *metrics)))
    values = measure_all(
        networks, data, border=border, metrics=metrics, target=target,
        finished_parts=finished_parts, title="masking", progress=progress,
    )  # fmt: skip
    pair_values = {name: values[name] for name in ("baseline", "target")}
    return pair_values | {name: values[swap_name(one, biases)] for name, one in sets.items()}
