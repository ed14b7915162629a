"""Masking: what a network loses when its discovered filters go back to the baseline's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast.filters import FilterSet
from faigfast.findings.evaluation import Crops, evaluate
from faigfast.result import Attribution

FRACTIONS = (0.01, 0.03, 0.05, 0.1)
RANDOM_SETS = 3


@dataclass(frozen=True)
class Measurement:
    """PSNR of one network.

    Parameters
    ----------
    filters : str
        Whose filters are masked: a degradation's or "random".
    fraction : float
        Share of all filters that is masked.
    psnr : dict of str to Tensor
        [N] in dB by degradation of the input; of random filters, the mean over the sets.
    """

    filters: str
    fraction: float
    psnr: dict[str, Tensor]


@dataclass(frozen=True)
class Masking:
    """Baseline, target, and every masked network on the same crops.

    Parameters
    ----------
    baseline, target : dict of str to Tensor
        PSNR [N] in dB by degradation of the input.
    masked : tuple of Measurement
        One for every filter set.
    """

    baseline: dict[str, Tensor]
    target: dict[str, Tensor]
    masked: tuple[Measurement, ...]

    def lost(self, measurement: Measurement, degradation: str) -> float:
        """Share of the target's gain over the baseline that masking undoes; 1 is all of it."""
        base, full, now = (
            float(values[degradation].mean())
            for values in (self.baseline, self.target, measurement.psnr)
        )
        return (full - now) / (full - base)

    def find(self, filters: str, fraction: float) -> Measurement:
        """Look one measurement up."""
        return next(m for m in self.masked if m.filters == filters and m.fraction == fraction)


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
    result: Attribution,
    data: Crops,
    *,
    fractions: Sequence[float] = FRACTIONS,
    border: int,
    channel: str = "rgb",
    progress: bool = False,
) -> Masking:
    """Mask each degradation's top filters, and random ones, and measure what is left.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair that `result` attributes.
    result : Attribution
        Of the degradations in `data`.
    data : Crops
        What is restored; better not the images that were attributed.
    fractions : sequence of float
        Shares of all filters in (0, 1].
    border : int
        Pixels left out of the PSNR on every side.
    channel : {"rgb", "y"}
        As in `psnr`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Masking
        The random measurement is the mean over three sets.

    Notes
    -----
    Source: section 4.2 of Xie et al., NeurIPS 2021, with PSNR in place of gradient maps.
    """
    groups: list[tuple[str, float, list[FilterSet]]] = []
    for fraction in fractions:
        tops = [(name, result.top(name, fraction)) for name in result.degradations]
        groups += [(name, fraction, [top]) for name, top in tops]
        groups.append(("random", fraction, random_sets(tops[0][1])))

    def measured(network: nn.Module) -> dict[str, Tensor]:
        bar.update()
        return evaluate(network, data, border=border, channel=channel)

    total = 2 + sum(len(sets) for _, _, sets in groups)
    with tqdm(total=total, desc="masking", unit="network", disable=not progress) as bar:
        masked = []
        ends = measured(baseline), measured(target)
        for filters, fraction, sets in groups:
            runs = [measured(one.swap(baseline, target)) for one in sets]
            mean = {name: torch.stack([run[name] for run in runs]).mean(0) for name in data.lq}
            masked.append(Measurement(filters, fraction, mean))
    return Masking(*ends, tuple(masked))
