"""Masking: what a network loses when its discovered filters go back to the baseline's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from faigfast.analysis.baselines import OF_WEIGHTS
from faigfast.analysis.contrasts import Contrast, check_contrasts, one_against_rest
from faigfast.analysis.evaluation import Crops, Values, mean_values, share_of
from faigfast.analysis.measure import measure_all
from faigfast.analysis.swap_units import check_pair, random_units, top_units
from faigfast.filters.filter_set import FilterSet
from faigfast.io.finished_parts import Store
from faigfast.models.state import blaming
from faigfast.result import Attribution

FRACTIONS = (0.01, 0.03, 0.05, 0.1)
DRAWS = 3  # of everything random, of which the mean is taken
LOWER_IS_BETTER = ("difference", "difference_authors")


@dataclass(frozen=True)
class Measurement:
    """What one masked network does.

    Parameters
    ----------
    filters : str
        Whose filters are masked: the name of a contrast, or of a method that looks at weights
        alone and has one set for all.
    fraction : float
        Share of all filters that is asked for.
    share : float
        Share of all filters that is masked; of random filters, the mean over the sets.
    values : dict
        Metric to degradation of the input to [N]; of random filters, the mean over the sets.
    method : str
        What ranked the filters.
    count : int
        Number of filters that are masked, as the share.
    """

    filters: str
    fraction: float
    share: float
    values: Values
    method: str = "faig"
    count: int = 0

    @property
    def psnr(self) -> dict[str, Tensor]:
        """PSNR [N] in dB by degradation of the input."""
        return self.values["psnr"]


@dataclass(frozen=True)
class Masking:
    """Baseline, target, and every masked network on the same crops.

    Parameters
    ----------
    ends : dict
        Values of the "baseline" and of the "target".
    masked : tuple of Measurement
        One for every filter set.
    contrasts : tuple of Contrast
        What the rankings followed.
    photographs : tuple of str
        The photograph of each crop.
    """

    ends: dict[str, Values]
    masked: tuple[Measurement, ...]
    contrasts: tuple[Contrast, ...]
    photographs: tuple[str, ...]

    @property
    def baseline(self) -> dict[str, Tensor]:
        """PSNR [N] of the baseline by degradation of the input."""
        return self.ends["baseline"]["psnr"]

    @property
    def target(self) -> dict[str, Tensor]:
        """PSNR [N] of the target by degradation of the input."""
        return self.ends["target"]["psnr"]

    @property
    def methods(self) -> tuple[str, ...]:
        """Every method whose filters were masked, in order."""
        return tuple(dict.fromkeys(m.method for m in self.masked))

    def lost(self, measurement: Measurement, degradation: str) -> float:
        """Share of the target's gain over the baseline that masking undoes; 1 is all of it."""
        base, full, now = (
            float(values[degradation].mean())
            for values in (self.baseline, self.target, measurement.psnr)
        )
        return share_of(full - now, full - base)

    def find(self, filters: str, fraction: float) -> Measurement:
        """Look one measurement of FAIG's filters, or of one set for all, up."""
        return next(
            m
            for m in self.masked
            if m.filters == filters and m.fraction == fraction and m.method in ("faig", filters)
        )

    def curve(self, method: str, filters: str) -> list[Measurement]:
        """Measurements of a method's filters for one contrast, by share."""
        own = (filters, method) if method in OF_WEIGHTS else (filters,)
        found = [m for m in self.masked if m.method == method and m.filters in own]
        return sorted(found, key=lambda m: (m.share, m.fraction))

    def change(self, measurement: Measurement, degradation: str, metric: str = "psnr") -> Tensor:
        """Give the cost in each crop [N]: a loss of quality, or a difference that grew."""
        now = measurement.values[metric][degradation]
        if metric in LOWER_IS_BETTER:
            return now
        return self.ends["target"][metric][degradation] - now

    def area(
        self,
        method: str,
        filters: str,
        degradation: str,
        metric: str = "psnr",
        within_gain: bool = False,
    ) -> Tensor:
        """Mean cost over the masked share, from nothing to the largest, in each crop [N].

        The area under the curve by the trapezoidal rule, divided by its width: in dB of PSNR. The
        curves of all methods end where the shortest does, since whole units differ in size.

        Parameters
        ----------
        method, filters : str
            Which filters are masked.
        degradation : str
            Of the input.
        metric : str
            What was measured.
        within_gain : bool
            Count no more than the target's gain over the baseline: a network that masking makes
            worse than the baseline has lost more than what it learnt.
        """
        points = self.curve(method, filters)
        if not points:
            raise ValueError(f"no filters of {method!r} for {filters!r} were masked")
        end = min(found[-1].share for m in self.methods if (found := self.curve(m, filters)))
        cost = [self.change(m, degradation, metric) for m in points]
        if within_gain:
            start, full = (self.ends[end][metric][degradation] for end in ("baseline", "target"))
            gain = start - full if metric in LOWER_IS_BETTER else full - start
            cost = [value.minimum(gain.clamp(min=0)) for value in cost]
        heights = [torch.zeros_like(cost[0])]
        places = [0.0]
        for m, height in zip(points, cost, strict=True):
            if m.share > end:  # cut there
                part = (end - places[-1]) / (m.share - places[-1])
                heights.append(torch.lerp(heights[-1], height, part))
                places.append(end)
                break
            heights.append(height)
            places.append(m.share)
        area = torch.trapezoid(torch.stack(heights), torch.tensor(places).to(heights[0]), dim=0)
        return area / end


def check_names(contrasts: Iterable[Contrast]) -> None:
    """Refuse a contrast that is called as a method with one set for all."""
    if clash := {c.name for c in contrasts} & {*OF_WEIGHTS}:
        raise ValueError(
            f"a contrast is called {min(clash)!r}, as a method is; expected another name"
        )


def random_sets(like: FilterSet, count: int = DRAWS, seed: int = 0) -> list[FilterSet]:
    """Draw as many filters as `like` has, uniformly, `count` times.

    Raises
    ------
    ValueError
        If the set does not tell how many filters its network has.
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
    store: Store | None = None,
    progress: bool = False,
) -> Masking:
    """Mask each method's top filters for each contrast, and random ones; measure what is left.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair that the results attribute.
    result : Attribution or mapping of str to Attribution
        Of degradations in `data`: FAIG's, or by method.
    data : Crops
        What is restored; better not the images that were attributed.
    fractions : sequence of float
        Shares of all filters in (0, 1].
    border : int
        Pixels left out of PSNR and SSIM on every side.
    metrics : sequence of str
        Of `faigfast.analysis.evaluation.METRICS`; PSNR is always measured.
    contrasts : sequence of Contrast, optional
        Rankings to mask by; None: each degradation against all others.
    by : {"kernel", "channel", "layer"}
        What is swapped as a whole.
    store : Store, optional
        Keeps every finished network's measurement.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Masking
        The random measurement is the mean over three sets.

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
    first = next(iter(results.values()))
    contrasts = one_against_rest(first.degradations) if contrasts is None else tuple(contrasts)
    check_contrasts(contrasts, first.degradations)
    check_names(contrasts)
    fractions = sorted(set(fractions))
    if not fractions:
        raise ValueError("fractions are empty; expected shares in (0, 1]")
    for one in results.values():
        check_pair(one, baseline, target)
    # No method may choose what another had no score for.
    scored = torch.stack([one.scored for one in results.values()]).all(0)
    results = {method: replace(one, scored=scored) for method, one in results.items()}
    first = next(iter(results.values()))

    groups: list[tuple[str, str, float, list[FilterSet]]] = []
    for fraction in fractions:
        tops: list[FilterSet] = []
        for method, one in results.items():
            for contrast in contrasts:
                top = top_units(target, one, contrast, fraction, by)
                if method in OF_WEIGHTS:  # one set for all contrasts
                    groups.append((method, method, fraction, [top]))
                    break
                tops.append(top)
                groups.append((method, contrast.name, fraction, [top]))
        if "random" not in results:
            like = tops[0] if tops else groups[-1][-1][0]
            draws = random_units(target, first, like, by, DRAWS)
            groups.append(("random", "random", fraction, draws))

    networks: dict[str, Callable[[], nn.Module]] = {
        "baseline": lambda: baseline,
        "target": lambda: target,
    }
    for *_, sets in groups:
        networks |= {f"swap {one.digest}": partial(one.swap, baseline, target) for one in sets}
    values = measure_all(
        networks, data, border=border, metrics=metrics, target=target, store=store,
        title="masking", progress=progress,
    )  # fmt: skip
    masked = []
    for method, filters, fraction, sets in groups:
        count = sum(map(len, sets)) / len(sets)
        found = mean_values([values[f"swap {one.digest}"] for one in sets])
        share = count / len(first.index)
        masked.append(Measurement(filters, fraction, share, found, method, round(count)))
    ends = {end: values[end] for end in ("baseline", "target")}
    return Masking(ends, tuple(masked), contrasts, data.photographs)


def mask_sets(
    baseline: nn.Module,
    target: nn.Module,
    sets: Mapping[str, FilterSet],
    data: Crops,
    *,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    store: Store | None = None,
    progress: bool = False,
) -> dict[str, Values]:
    """Mask given sets of filters, such as those of files, and measure what is left.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    sets : mapping of str to FilterSet
        By name.
    data, border, metrics, store, progress
        As in `mask`.

    Returns
    -------
    dict of str to dict
        Values of "baseline", "target" and each set's network.

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
        **{f"swap {one.digest}": partial(one.swap, baseline, target) for one in sets.values()},
    }
    metrics = tuple(dict.fromkeys(("psnr", *metrics)))
    values = measure_all(
        networks, data, border=border, metrics=metrics, target=target, store=store,
        title="masking", progress=progress,
    )  # fmt: skip
    ends = {end: values[end] for end in ("baseline", "target")}
    return ends | {name: values[f"swap {one.digest}"] for name, one in sets.items()}
