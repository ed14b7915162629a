"""Masking: what a network loses when its discovered filters go back to the baseline's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast.filters import FilterSet
from faigfast.findings.contrasts import Contrast, check_contrasts, one_against_rest
from faigfast.findings.evaluation import Crops, Values, measure, restore
from faigfast.findings.rivals import OF_WEIGHTS
from faigfast.findings.store import Store
from faigfast.findings.units import check_pair, top_units
from faigfast.result import Attribution

FRACTIONS = (0.01, 0.03, 0.05, 0.1)
RANDOM_SETS = 3
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
    values : dict
        Metric to degradation of the input to [N]; of random filters, the mean over the sets.
    method : str
        What ranked the filters.
    count : int
        Number of filters that are masked.
    """

    filters: str
    fraction: float
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
        return (full - now) / (full - base)

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
        return sorted(found, key=lambda m: m.fraction)

    def change(self, measurement: Measurement, degradation: str, metric: str = "psnr") -> Tensor:
        """Give the cost in each crop [N]: a loss of quality, or a difference that grew."""
        now = measurement.values[metric][degradation]
        if metric in LOWER_IS_BETTER:
            return now
        return self.ends["target"][metric][degradation] - now

    def area(self, method: str, filters: str, degradation: str, metric: str = "psnr") -> Tensor:
        """Mean cost over the masked share, from nothing to the largest, in each crop [N].

        The area under the curve by the trapezoidal rule, divided by its width: in dB of PSNR.
        """
        points = self.curve(method, filters)
        if not points:
            raise ValueError(f"no filters of {method!r} for {filters!r} were masked")
        share = [0.0, *(m.fraction for m in points)]
        cost = [self.change(m, degradation, metric) for m in points]
        heights = torch.stack([torch.zeros_like(cost[0]), *cost])
        return torch.trapezoid(heights, torch.tensor(share).to(heights), dim=0) / share[-1]


def random_sets(like: FilterSet, count: int = RANDOM_SETS, seed: int = 0) -> list[FilterSet]:
    """Draw as many filters as `like` has, uniformly, `count` times."""
    assert like.total is not None
    generator = torch.Generator().manual_seed(seed)
    return [
        FilterSet(
            torch.randperm(like.total, generator=generator)[: len(like)],
            like.total,
            like.index,
            like.baseline,
            like.target,
        )
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
        Of `faigfast.findings.evaluation.METRICS`; PSNR is always measured.
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
    store, metrics = store or Store(), tuple(dict.fromkeys(("psnr", *metrics)))
    first = next(iter(results.values()))
    contrasts = one_against_rest(first.degradations) if contrasts is None else tuple(contrasts)
    check_contrasts(contrasts, first.degradations)
    fractions = sorted(set(fractions))
    if not fractions:
        raise ValueError("fractions are empty; expected shares in (0, 1]")
    for one in results.values():
        check_pair(one, baseline, target)

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
            groups.append(("random", "random", fraction, random_sets(like)))

    reference: dict[str, Tensor] | None = None
    if any(name in LOWER_IS_BETTER for name in metrics):
        reference = {name: restore(target, lq) for name, lq in data.lq.items()}

    def measured(name: str, network: nn.Module) -> Values:
        def compute() -> dict[str, Tensor]:
            values = measure(network, data, border=border, metrics=metrics, reference=reference)
            return {f"{m}/{d}": v for m, of in values.items() for d, v in of.items()}

        values: Values = {}
        for key, value in store.tensors(f"mask {name} {border} {metrics}", compute).items():
            metric, _, degradation = key.partition("/")
            values.setdefault(metric, {})[degradation] = value
        bar.update()
        return values

    total = 2 + sum(len(sets) for *_, sets in groups)
    with tqdm(total=total, desc="masking", unit="network", disable=not progress) as bar:
        ends = {"baseline": measured("baseline", baseline), "target": measured("target", target)}
        masked = []
        for method, filters, fraction, sets in groups:
            runs = [
                measured(f"{method} {filters} {one.digest}", one.swap(baseline, target))
                for one in sets
            ]
            masked.append(Measurement(filters, fraction, _mean(runs), method, len(sets[0])))
    return Masking(ends, tuple(masked), contrasts, data.photographs)


def _mean(runs: Sequence[Values]) -> Values:
    return {
        metric: {d: torch.stack([run[metric][d] for run in runs]).mean(0) for d in of}
        for metric, of in runs[0].items()
    }
