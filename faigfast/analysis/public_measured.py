"""Findings that edit networks and measure them, on the batch that `faigfast.attribute` takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from faigfast.analysis import locations as locating
from faigfast.analysis import masking, modulation
from faigfast.analysis.batch_crops import BatchCrops, joined_by_name, joined_values
from faigfast.analysis.public_arguments import (
    FRACTION,
    Contrasts,
    attributed,
    filter_sets,
    read_contrasts,
)
from faigfast.filters.filter_set import FilterSet
from faigfast.integration.batch import Batches
from faigfast.result import Attribution


def mask(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    *,
    result: Attribution | Mapping[str, Attribution] | None = None,
    fractions: Sequence[float] = masking.FRACTIONS,
    contrasts: Contrasts | None = None,
    by: Literal["kernel", "channel", "layer"] = "kernel",
    biases: bool = False,
    metrics: Sequence[str] = ("psnr",),
    border: int | None = None,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> masking.Masking:
    """Mask the discovered filters, and random ones; measure the networks on the batch.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    batch : tuple, mapping or iterable
        As in `faigfast.attribute`, gt in [0, 1].
    result : Attribution or mapping of str to Attribution, optional
        Result of other images of the same degradations, better than of the measured ones; or one by
        method. None: the batch is attributed first.
    fractions : sequence of float
        Shares of all filters in (0, 1].
    contrasts : sequence of Contrast or str, optional
        Rankings, in words such as "blur:noise"; None: each degradation against all others.
    by : {"kernel", "channel", "layer"}
        The swap unit.
    biases : bool
        Move the biases of channels whose filters are all in a set, as `FilterSet.swap` does.
    metrics : sequence of str
        Of `faigfast.analysis.evaluation.METRICS`; PSNR is always measured.
    border : int, optional
        Pixels left out of PSNR and SSIM on every side; None: the enlargement from x to gt.
    pad, progress
        As in `faigfast.attribute`.
    **options
        Other options of `faigfast.attribute`, where `result` is None.

    Returns
    -------
    Masking
        `outcome` gives the share of the target's gain that a mask undoes.

    Raises
    ------
    TypeError, ValueError
        As `faigfast.attribute` and `faigfast.analysis.masking.mask`.

    Examples
    --------
    >>> import torch
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> masked = mask(a, b, (torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)), fractions=[0.5])
    >>> masked.find("lq", 0.5).count, masked.target["lq"].shape
    (4, torch.Size([2]))
    """
    batch, result = attributed(baseline, target, batch, result, pad, progress, options)
    data = BatchCrops(batch, target, pad, border)
    any_result = result if isinstance(result, Attribution) else next(iter(result.values()))
    ranked = read_contrasts(contrasts, any_result)
    parts = data.measured(
        lambda crops: masking.mask(
            baseline, target, result, crops, fractions=fractions, border=data.border,
            metrics=metrics, contrasts=ranked, by=by, biases=biases,
            progress=progress,
        )
    )  # fmt: skip
    first = parts[0][0]
    masked = []
    for n, measurement in enumerate(first.masked):
        values = joined_values([[part.masked[n].values for part in row] for row in parts])
        masked.append(replace(measurement, values=values))
    pair_values = joined_by_name([[part.pair_values for part in row] for row in parts])
    photographs = tuple(name for row in parts for name in row[0].photographs)
    return replace(first, pair_values=pair_values, masked=tuple(masked), photographs=photographs)


def modulate(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    *,
    result: Attribution | None = None,
    sets: Mapping[str, FilterSet] | None = None,
    fraction: float = FRACTION,
    contrasts: Contrasts | None = None,
    strengths: Sequence[float] = modulation.STRENGTHS,
    together: bool = False,
    biases: bool = False,
    metrics: Sequence[str] = ("psnr",),
    border: int | None = None,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> modulation.Modulation:
    """Measure networks over the strengths of the discovered filters.

    Parameters
    ----------
    baseline, target, batch, contrasts, biases, metrics, border, pad, progress, **options
        As in `mask`.
    result : Attribution, optional
        As in `mask`; not with `sets`.
    sets : mapping of str to FilterSet, optional
        Filters by name; None: the best of each contrast.
    fraction : float
        Share of all filters in a set, where `sets` is None.
    strengths : sequence of float
        0 gives the baseline's filters, 1 the target's.
    together : bool
        Measure all combinations of strengths, not one set at a time.

    Returns
    -------
    Modulation
        `to_frame` gives a table.

    Raises
    ------
    TypeError, ValueError
        As `mask` and `faigfast.analysis.modulation.modulate`.
    """
    batch, sets = filter_sets(
        baseline, target, batch, result, sets, fraction, contrasts, pad, progress, options
    )
    data = BatchCrops(batch, target, pad, border)
    parts = data.measured(
        lambda crops: modulation.modulate(
            baseline, target, sets, crops, strengths=strengths, together=together,
            border=data.border, metrics=metrics, biases=biases, progress=progress,
        )
    )  # fmt: skip
    first = parts[0][0]
    values = [
        joined_values([[part.values[n] for part in row] for row in parts])
        for n in range(len(first.values))
    ]
    return replace(first, values=tuple(values))


def locations(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    *,
    result: Attribution | None = None,
    sets: Mapping[str, FilterSet] | None = None,
    fraction: float = FRACTION,
    experiments: Sequence[str] = tuple(locating.EXPERIMENTS),
    draws: int = masking.DRAWS,
    border: int | None = None,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> list[locating.Locations]:
    """Ask whether the weights, the places or the connections of the discovered filters matter.

    Parameters
    ----------
    baseline, target, batch, border, pad, progress, **options
        As in `mask`.
    result, fraction
        As in `modulate`.
    sets : mapping of str to FilterSet, optional
        Filters by the degradation that they serve; None: the best of each.
    experiments, draws
        As in `faigfast.analysis.locations.locations`.

    Returns
    -------
    list of Locations
        One a set.

    Raises
    ------
    TypeError, ValueError
        As `mask` and `faigfast.analysis.locations.locations`.
    """
    batch, sets = filter_sets(
        baseline, target, batch, result, sets, fraction, None, pad, progress, options
    )
    data = BatchCrops(batch, target, pad, border)
    for name in sets:
        if name not in data.degradations:
            raise ValueError(
                f"sets hold {name!r}; expected degradations of the batch, "
                f"{', '.join(data.degradations)}"
            )
    # A part with one ground truth does not hold every degradation that the sets serve.
    parts = data.measured(
        lambda crops: locating.locations(
            baseline, target, sets, dict.fromkeys(sets, next(iter(crops.lq))), crops,
            border=data.border, experiments=experiments, draws=draws, progress=progress,
        )
    )  # fmt: skip
    return [
        replace(
            one,
            degradation=one.name,
            values=joined_by_name([[part[n].values for part in row] for row in parts]),
        )
        for n, one in enumerate(parts[0][0])
    ]
