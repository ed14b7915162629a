"""Results of the analyses as data frames, text tables and sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import TextTable, data_frame
from faigfast.analysis.evaluation import (
    METRICS,
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
    """One row a masked network and degradation of the input: every metric, and the undone share.

    Where the share is left open, "outcome" says why: see `faigfast.analysis.undone`. A column
    counts the biases that went back, if any did.
    """
    with_biases = any(m.biases for m in masking.masked)

    def described(method: str, m: Measurement | None = None) -> dict[str, Any]:
        return {
            "method": method,
            "filters": m.filters if m and m.filters != method else "",
            "asked for, %": 100 * m.fraction if m else 0.0,
            "masked, %": 100 * m.share if m else 0.0,
            "number": m.count if m else 0,
            **({"biases": m.biases if m else 0} if with_biases else {}),
        }

    networks = [(described(name), values) for name, values in masking.pair_values.items()]
    networks += [(described(m.method, m), m.values) for m in masking.masked]
    return data_frame([row for one in networks for row in _metric_rows(*one, masking.pair_values)])


def masked_sets(values: dict[str, MetricValues]) -> "pandas.DataFrame":
    """One row a network and degradation of the input, as in `masked_networks`."""
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
    """Rows of one network, one a degradation of the input; each begins with the description."""
    for degradation, psnr in values["psnr"].items():
        row: dict[str, Any] = {**description, "input": degradation}
        for metric, by_degradation in values.items():
            row[METRICS[metric]], row[f"± {metric}"] = mean_and_interval(
                by_degradation[degradation]
            )
        base, full = (pair_values[name]["psnr"][degradation] for name in ("baseline", "target"))
        one = undone(psnr, base, full)
        row["undone, %"], row["± undone"] = 100 * one.share, 100 * one.half
        row["outcome"] = one.outcome
        yield row


def areas(masking: Masking, metric: str = "psnr") -> "pandas.DataFrame":
    """One row a method and contrast: areas under its curve, and FAIG's lead.

    "area" and FAIG's lead count the loss on the filters' own degradation. "within the gain" counts
    at most the target's gain. "others" is the mean over the other degradations that the target
    restores better than the baseline. FAIG's lead within the gain comes last.
    """
    rows = []
    for contrast in masking.contrasts:
        own = contrast.degradation
        gains = {d: float((masking.target[d] - masking.baseline[d]).mean()) for d in masking.target}
        others = [d for d in masking.target if d != own and gains[d] > 0]
        faig = [
            masking.area("faig", contrast.name, own, metric, within_gain=within)
            for within in (False, True)
            if "faig" in masking.methods
        ]
        for method in masking.methods:
            area, inside = (
                masking.area(method, contrast.name, own, metric, within_gain=within)
                for within in (False, True)
            )
            mean, half = mean_and_interval(area)
            row: dict[str, Any] = {
                "filters": contrast.name,
                "method": method,
                "area": mean,
                "±": half,
                "within the gain": float(inside.mean()) if gains[own] > 0 else None,
            }
            if others:
                cost = [
                    float(masking.area(method, contrast.name, d, metric, within_gain=True).mean())
                    for d in others
                ]
                row["others"] = sum(cost) / len(cost)
            if faig:
                lead = _lead(faig[0] - area, masking)
                if gains[own] > 0:
                    within = _lead(faig[1] - inside, masking)
                    lead |= {f"within, {title}": value for title, value in within.items()}
                row |= dict.fromkeys(lead) if method == "faig" else lead
            rows.append(row)
    return data_frame(rows)


def _lead(values: Tensor, masking: Masking) -> dict[str, Any]:
    """Cells about FAIG's lead in each crop [N]."""
    mean, crops = mean_and_interval(values)
    _, photographs, first, count = over_photographs(values, masking.photographs)
    return {
        "FAIG ahead": mean,
        "± crops": crops,
        "± photographs": photographs,
        "ahead in": f"{first} of {count}",
    }


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
    sentences = []
    for contrast in masking.contrasts:
        rows = [r for r in data.to_dict("records") if r["filters"] == contrast.name]
        other_methods = [row for row in rows if row["method"] != "faig"]
        ahead = [row["method"] for row in other_methods if row["FAIG ahead"] > row["± crops"]]
        behind = [row for row in other_methods if row["FAIG ahead"] < -row["± crops"]]
        # One crop has no interval, and decides nothing.
        undecided = [
            r["method"] for r in other_methods if r["method"] not in ahead and r not in behind
        ]
        text = f"{contrast.name}: under the masking curve FAIG's area is above that of "
        text += f"{', '.join(ahead) or 'none'}"
        if undecided:
            text += f"; not told apart from {', '.join(undecided)}"
        for row in behind:
            text += (
                f"; {-row['FAIG ahead']:.3g} ± {row['± crops']:.2g} dB below that of "
                f"{row['method']}"
            )
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


def completeness_rows(result: Attribution) -> list[dict[str, Any]]:
    """One row a degradation: its mean losses and its errors of completeness.

    Then the worst estimated error of its scores, where there is one, and the number of images that
    reached `tol`, where it was given.
    """
    has_estimates, tol = bool(result.error.isfinite().any()), result.setting.tol
    rows = []
    for d, name in enumerate(result.degradations):
        losses, errors = result.losses[d], result.completeness[d]
        row: dict[str, Any] = {"degradation": name, "images": result.images}
        row["loss of baseline"], row["loss of target"] = losses.mean(0).tolist()
        row["median"], row["worst"] = float(errors.median()), float(errors.max())
        if has_estimates:
            row["estimated"] = float(result.error[d].max())
        if tol is not None:
            row[f"within {tol:g}"] = f"{int(result.reached[d].sum())} of {result.images}"
        rows.append(row)
    return rows


def completeness_table(result: Attribution) -> TextTable:
    """Head and rows of `completeness_rows`, for a terminal."""
    rows = completeness_rows(result)
    formats = {"loss of baseline": ".4g", "loss of target": ".4g"}
    formats |= dict.fromkeys(("median", "worst", "estimated"), ".2e")
    return list(rows[0]), [[format(v, formats.get(k, "")) for k, v in row.items()] for row in rows]


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
