"""Results of the analyses as data frames, text tables and sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.analysis.columns import COLUMNS
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import (
    CROPS,
    PHOTOGRAPHS,
    TextTable,
    data_frame,
    measured,
)
from faigfast.analysis.evaluation import (
    MetricValues,
    difference_text,
    mean_and_interval,
    over_photographs,
)
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.undone import BROKEN, NO_GAIN, gains, undone
from faigfast.analysis.undone import undone_share as undone_share
from faigfast.result import Attribution

if TYPE_CHECKING:
    import pandas


def masked_networks(masking: Masking) -> "pandas.DataFrame":
    """One row a masked network, degradation of the input and metric; undone share among them.

    Where the share is left open, "outcome" says why: see `faigfast.analysis.undone`. A column
    counts the biases that went back, if any did.
    """
    with_biases = any(m.biases for m in masking.masked)

    def described(method: str, m: Measurement | None = None) -> dict[str, Any]:
        return {
            "contrast": m.filters if m and m.filters != method else "",
            "method": method,
            "fraction": m.fraction if m else 0.0,
            "masked_fraction": m.share if m else 0.0,
            "filter_count": m.count if m else 0,
            **({"bias_count": m.biases if m else 0} if with_biases else {}),
        }

    networks = [(described(name), values) for name, values in masking.pair_values.items()]
    networks += [(described(m.method, m), m.values) for m in masking.masked]
    return data_frame([row for one in networks for row in _metric_rows(*one, masking.pair_values)])


def masked_sets(values: dict[str, MetricValues]) -> "pandas.DataFrame":
    """One row a network, degradation of the input and metric, as in `masked_networks`."""
    return data_frame(
        [
            row
            for name, metric_values in values.items()
            for row in _metric_rows({"network": name}, metric_values, values)
        ]
    )


def _metric_rows(
    description: dict[str, Any], values: MetricValues, pair_values: Mapping[str, MetricValues]
) -> Iterator[dict[str, Any]]:
    """Rows of one network, one a degradation of the input and metric."""
    for degradation, psnr in values["psnr"].items():
        row: dict[str, Any] = {"degradation": degradation, **description}
        for metric, by_degradation in values.items():
            yield row | measured(metric, *mean_and_interval(by_degradation[degradation]))
        base, full = (pair_values[name]["psnr"][degradation] for name in ("baseline", "target"))
        one = undone(psnr, base, full)
        yield row | measured("undone", one.share, one.half) | {"outcome": one.outcome}


def areas(masking: Masking, metric: str = "psnr") -> "pandas.DataFrame":
    """One row a contrast, method and metric: areas under its curve, and FAIG's lead.

    "area" and "faig_ahead" count the loss on the filters' own degradation. "area_within_gain" and
    "faig_ahead_within_gain" count at most the target's gain. "area_others" is the mean over the
    other degradations that the target restores better than the baseline. Leads have an interval
    over crops, and one over photographs around the mean of the photographs.
    """
    rows: list[dict[str, Any]] = []
    for contrast in masking.contrasts:
        own = contrast.degradation
        gained = {
            d: float((masking.target[d] - masking.baseline[d]).mean()) for d in masking.target
        }
        others = [d for d in masking.target if d != own and gained[d] > 0]
        within_gain = (False, True) if gained[own] > 0 else (False,)
        for method in masking.methods:
            row = {"degradation": own, "contrast": contrast.name, "method": method}
            over_crops = row | {"interval": CROPS}
            area = partial(masking.area, method, contrast.name, metric=metric)
            rows.append(over_crops | measured("area", *mean_and_interval(area(own))))
            if gained[own] > 0:
                inside = mean_and_interval(area(own, within_gain=True))
                rows.append(over_crops | measured("area_within_gain", *inside))
            if others:
                cost = [float(area(d, within_gain=True).mean()) for d in others]
                rows.append(over_crops | measured("area_others", sum(cost) / len(cost)))
            if method == "faig" or "faig" not in masking.methods:
                continue
            for within in within_gain:
                faig = masking.area("faig", contrast.name, own, metric, within_gain=within)
                lead = faig - area(own, within_gain=within)
                rows += [row | one for one in _lead(lead, masking, "_within_gain" * within)]
    return data_frame(rows, across=["interval"])


def _lead(values: Tensor, masking: Masking, suffix: str) -> Iterator[dict[str, Any]]:
    """Cells about FAIG's lead in each crop [N]."""
    mean, half, ahead, count = over_photographs(values, masking.photographs)
    name = f"faig_ahead{suffix}"
    yield {"interval": CROPS, **measured(name, *mean_and_interval(values))}
    yield {"interval": PHOTOGRAPHS, **measured(name, mean, half)}
    yield {"interval": PHOTOGRAPHS, **measured(f"photographs_ahead{suffix}", ahead)}
    if not suffix:
        yield {"interval": PHOTOGRAPHS, **measured("photograph_count", count)}


def modulation_sentences(modulation: Modulation, contrasts: Sequence[Contrast]) -> list[str]:
    """Say for each contrast whether PSNR at half strength lies between strengths 0 and 1."""
    sentences = []
    for contrast in contrasts:
        strengths, values = modulation.curve(contrast.name)
        if not {0.0, 0.5, 1.0} <= set(strengths):
            continue
        low, half, full = (
            values[strengths.index(s)]["psnr"][contrast.degradation] for s in (0.0, 0.5, 1.0)
        )
        inside = (half > low.minimum(full)) & (half < low.maximum(full))
        way = float(full.mean() - low.mean())
        place = float(half.mean() - low.mean()) / way if way else math.nan
        word = "lies between" if 0 < place < 1 else "does not lie between"
        sentences.append(
            f"{contrast.name}: mean PSNR at half strength {word} mean PSNR at strength 0 and at "
            f"strength 1. It is at {100 * place:.0f} % of the way from strength 0 to strength 1 "
            f"({difference_text(half - low)} from strength 0). In {int(inside.sum())} of "
            f"{len(inside)} crops, the crop's own PSNR at half strength lies between its other two."
        )
    return sentences


def area_sentences(masking: Masking) -> list[str]:
    """Say for each contrast whose areas FAIG's area exceeds, and which exceed FAIG's."""
    data = areas(masking)
    leads = data[(data["metric"] == "faig_ahead") & (data["interval"] == CROPS)]
    sentences = []
    for contrast in masking.contrasts:
        of_contrast = leads[leads["contrast"] == contrast.name].to_dict("records")
        ahead = [row["method"] for row in of_contrast if row["ci95_low"] > 0]
        behind = [row for row in of_contrast if row["ci95_high"] < 0]
        # One crop has no interval, and decides nothing.
        undecided = [
            r["method"] for r in of_contrast if r["method"] not in ahead and r not in behind
        ]
        text = f"{contrast.name}: under the masking curve FAIG's area is above that of "
        text += f"{', '.join(ahead) or 'none'}"
        if undecided:
            text += f"; not told apart from {', '.join(undecided)}"
        for row in behind:
            half = (row["ci95_high"] - row["ci95_low"]) / 2
            text += f"; {-row['value']:.3g} ± {half:.2g} dB below that of {row['method']}"
        own = contrast.degradation
        if not gains(masking.baseline[own], masking.target[own]):
            text += f"; but the target gains nothing over the baseline on {own}"
        sentences.append(text + ".")
    return sentences


def masking_table(masking: Masking) -> TextTable:
    """Head and rows: a network, then PSNR and the undone share for each degradation."""
    inputs = list(masking.target)
    head = ["network"]
    for name in inputs:
        head += [f"{name}, dB", "to target, dB", "undone, %"]

    def row(label: str, psnr: dict[str, Tensor]) -> list[str]:
        cells = [label]
        for name in inputs:
            base, full = masking.baseline[name], masking.target[name]
            change, half = mean_and_interval(psnr[name] - full)
            mean, share = float(psnr[name].mean()), undone(psnr[name], base, full).text(".1f")
            cells += [f"{mean:.2f}", f"{change:+.2f} ± {half:.2f}", share]
        return cells

    rows = [row("baseline", masking.baseline), row("target", masking.target)]
    rows += [
        row(f"{100 * m.fraction:g} % {filters_text(m)} masked", m.psnr) for m in masking.masked
    ]
    return head, rows


def filters_text(m: Measurement) -> str:
    """Name the filters of a measurement in a table."""
    return f"random of the layers of {m.filters}" if m.method == SAME_LAYERS else m.filters


def completeness(result: Attribution) -> "pandas.DataFrame":
    """Make a data frame of `completeness_rows`."""
    return data_frame(completeness_rows(result))


def completeness_rows(result: Attribution) -> list[dict[str, Any]]:
    """One row a degradation: its mean losses and its errors of completeness.

    Then the worst estimated error of its scores, where there is one, and the number of images that
    reached `tol`, where it was given.
    """
    has_estimates, tol = bool(result.error.isfinite().any()), result.setting.tol
    rows = []
    for d, name in enumerate(result.degradations):
        losses, errors = result.losses[d], result.completeness[d]
        row: dict[str, Any] = {"degradation": name, "image_count": result.images}
        row["loss_baseline"], row["loss_target"] = losses.mean(0).tolist()
        row["completeness_median"] = float(errors.median())
        row["completeness_max"] = float(errors.max())
        if has_estimates:
            row["error_max"] = float(result.error[d].max())
        if tol is not None:
            row |= {"tol": tol, "images_within_tol": int(result.reached[d].sum())}
        rows.append(row)
    return rows


def completeness_table(result: Attribution) -> TextTable:
    """Head and rows of `completeness_rows`, for a terminal; works without pandas."""
    formats = {"loss_baseline": ".4g", "loss_target": ".4g"}
    formats |= dict.fromkeys(("completeness_median", "completeness_max", "error_max"), ".2e")
    rows = []
    for row in completeness_rows(result):
        heads = {name: COLUMNS[name].head for name in row} | {"degradation": "degradation"}
        cells = {heads[k]: format(v, formats.get(k, "")) for k, v in row.items()}
        if cells.pop(COLUMNS["tol"].head, None):
            within = cells.pop(COLUMNS["images_within_tol"].head)
            cells[f"within {row['tol']:g}"] = f"{within} of {row['image_count']}"
        rows.append(cells)
    return list(rows[0]), [list(cells.values()) for cells in rows]


def verdicts(masking: Masking) -> list[str]:
    """Say for every degradation what masking the smallest share undoes, or that it breaks."""
    sentences = []
    for m in masking.masked:
        own = m.filters
        fraction = masking.masked[0].fraction
        if m.fraction != fraction or own == "random" or m.method == SAME_LAYERS:
            continue
        share = f"{100 * m.fraction:g} %"
        outcome = masking.outcome(m, own)
        if outcome.outcome == NO_GAIN:
            sentences.append(f"The target gains nothing over the baseline on {own}.")
            continue
        others = [
            text
            for other in masking.target
            if other != own and (text := _effect(masking, m, other))
        ]
        text = f"Masking the top {share} {own} filters {_effect(masking, m, own)}"
        sentences.append(
            f"{text} ({', '.join(_controls(masking, m))})"
            f"{', and it ' if others else ''}{' and it '.join(others)}."
        )
    return sentences


def _effect(masking: Masking, m: Measurement, degradation: str) -> str:
    """Say what masking does to one degradation of the input; "" where there was no gain."""
    outcome = masking.outcome(m, degradation)
    if outcome.outcome == BROKEN:
        mean = float(m.psnr[degradation].mean())
        pair = (float(one[degradation].mean()) for one in (masking.baseline, masking.target))
        return (
            f"breaks the network on {degradation}: {mean:.2f} dB, {min(pair) - mean:.2f} dB below "
            "the worse of baseline and target"
        )
    if outcome.outcome:
        return ""
    return f"undoes {outcome.text(unit=' %')} of the target's gain on {degradation}"


def _controls(masking: Masking, m: Measurement) -> list[str]:
    """Say what as many random filters do to the degradation of a measurement's filters."""
    texts = []
    for words, filters, method in (
        ("random ones", "random", "random"),
        ("random ones of the same layers", m.filters, SAME_LAYERS),
    ):
        known = (one.filters == filters and one.method == method for one in masking.masked)
        if any(known):
            control = masking.find(filters, m.fraction, method)
            texts.append(f"{words}: {masking.outcome(control, m.filters).text(unit=' %')}")
    return texts
