"""The findings as tables and sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import Table, frame
from faigfast.analysis.evaluation import (
    METRICS,
    Values,
    difference,
    mean_and_interval,
    over_photographs,
    share_of,
)
from faigfast.analysis.masking import Masking, Measurement
from faigfast.analysis.modulation import Modulation
from faigfast.result import Attribution

if TYPE_CHECKING:
    import pandas


def masked_networks(masking: Masking) -> "pandas.DataFrame":
    """One row a masked network and degradation of the input: every metric, and what was undone."""

    def about(method: str, m: Measurement | None = None) -> dict[str, Any]:
        return {
            "method": method,
            "filters": m.filters if m and m.filters != method else "",
            "asked for, %": 100 * m.fraction if m else 0.0,
            "masked, %": 100 * m.share if m else 0.0,
            "number": m.count if m else 0,
        }

    known = [(about(end), values) for end, values in masking.ends.items()]
    known += [(about(m.method, m), m.values) for m in masking.masked]
    return frame([row for one in known for row in _measured(*one, masking.ends)])


def masked_sets(values: dict[str, Values]) -> "pandas.DataFrame":
    """One row a network and degradation of the input: every metric, and what was undone."""
    return frame(
        [
            row
            for name, found in values.items()
            for row in _measured({"network": name}, found, values)
        ]
    )


def _measured(
    about: dict[str, Any], found: Values, ends: Mapping[str, Values]
) -> Iterator[dict[str, Any]]:
    """Rows of one network, one a degradation of the input, below what is said about it."""
    for degradation, psnr in found["psnr"].items():
        row: dict[str, Any] = {**about, "input": degradation}
        for metric, of in found.items():
            row[METRICS[metric]], row[f"± {metric}"] = mean_and_interval(of[degradation])
        base, full = (ends[end]["psnr"][degradation] for end in ("baseline", "target"))
        share, half = undone(full - psnr, full - base)
        row["undone, %"], row["± undone"] = 100 * share, 100 * half
        yield row


def undone(lost: Tensor, gain: Tensor) -> tuple[float, float]:
    """Share of the target's gain that is lost, both [N], and half of its 95 % interval over crops.

    The interval is that of a ratio of two means, by its linear expansion; NaN of one crop, and both
    where the target gains nothing.
    """
    whole = float(gain.mean())
    share = share_of(float(lost.mean()), whole)
    if math.isnan(share):
        return share, math.nan
    return share, mean_and_interval(lost - share * gain)[1] / whole


def areas(masking: Masking, metric: str = "psnr") -> "pandas.DataFrame":
    """One row a method and contrast: areas under its curve, and how far FAIG is ahead.

    Both "area" and what FAIG is ahead by count what the filters' own degradation loses. "Within
    the gain" counts no more than the target had gained; "others" is the mean over the other
    degradations that the target restores better than the baseline. What FAIG is ahead within the
    gain stands last.
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
                ahead = _ahead(faig[0] - area, masking)
                if gains[own] > 0:
                    within = _ahead(faig[1] - inside, masking)
                    ahead |= {f"within, {title}": value for title, value in within.items()}
                row |= dict.fromkeys(ahead) if method == "faig" else ahead
            rows.append(row)
    return frame(rows)


def _ahead(values: Tensor, masking: Masking) -> dict[str, Any]:
    """Cells about what FAIG is ahead in each crop [N]."""
    mean, crops = mean_and_interval(values)
    _, photographs, first, count = over_photographs(values, masking.photographs)
    return {
        "FAIG ahead": mean,
        "± crops": crops,
        "± photographs": photographs,
        "ahead in": f"{first} of {count}",
    }


def modulation_sentences(modulation: Modulation, contrasts: Sequence[Contrast]) -> list[str]:
    """Say for each contrast whether half the strength lies between none and all."""
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
            f"{contrast.name}: half the strength {word} none and all, at {100 * place:.0f} % of "
            f"the way ({difference(half - low)} above none), and in {int(inside.sum())} of "
            f"{len(inside)} crops taken alone."
        )
    return sentences


def area_sentences(masking: Masking) -> list[str]:
    """Say for each contrast whether FAIG's area is the largest, and by how much it is not."""
    table = areas(masking)
    sentences = []
    for contrast in masking.contrasts:
        rows = [r for r in table.to_dict("records") if r["filters"] == contrast.name]
        rivals = [row for row in rows if row["method"] != "faig"]
        ahead = [row["method"] for row in rivals if row["FAIG ahead"] > row["± crops"]]
        behind = [row for row in rivals if row["FAIG ahead"] < -row["± crops"]]
        # Of one crop there is no interval, and nothing can be told.
        open_ = [r["method"] for r in rivals if r["method"] not in ahead and r not in behind]
        text = f"{contrast.name}: under the masking curve FAIG's area is above that of "
        text += f"{', '.join(ahead) or 'none'}"
        if open_:
            text += f"; not told apart from {', '.join(open_)}"
        for row in behind:
            text += (
                f"; {-row['FAIG ahead']:.3g} ± {row['± crops']:.2g} dB below that of "
                f"{row['method']}"
            )
        own = contrast.degradation
        if not float((masking.target[own] - masking.baseline[own]).mean()) > 0:
            text += f"; but the target gains nothing over the baseline on {own}"
        sentences.append(text + ".")
    return sentences


def masking_table(masking: Masking) -> Table:
    """Head and rows: a network, then PSNR and the undone share for each degradation."""
    inputs = list(masking.target)
    head = ["network"]
    for name in inputs:
        head += [f"{name}, dB", "to target, dB", "undone, %"]

    def row(label: str, psnr: dict[str, Tensor], undone: list[float]) -> list[str]:
        cells = [label]
        for name, share in zip(inputs, undone, strict=True):
            change, half = mean_and_interval(psnr[name] - masking.target[name])
            mean = float(psnr[name].mean())
            cells += [f"{mean:.2f}", f"{change:+.2f} ± {half:.2f}", f"{100 * share:.1f}"]
        return cells

    rows = [
        row("baseline", masking.baseline, [1.0] * len(inputs)),
        row("target", masking.target, [0.0] * len(inputs)),
    ]
    rows += [
        row(
            f"{100 * m.fraction:g} % {m.filters} masked",
            m.psnr,
            [masking.lost(m, name) for name in inputs],
        )
        for m in masking.masked
    ]
    return head, rows


def completeness_rows(result: Attribution) -> list[dict[str, Any]]:
    """One row a degradation: its mean losses and the relative errors of its sums.

    The worst estimated error of its scores follows where there is one, and how many images reached
    `tol` where it was given.
    """
    known, tol = bool(result.error.isfinite().any()), result.setting.tol
    rows = []
    for d, name in enumerate(result.degradations):
        losses, errors = result.losses[d], result.completeness[d]
        row: dict[str, Any] = {"degradation": name, "images": result.images}
        row["loss of baseline"], row["loss of target"] = losses.mean(0).tolist()
        row["median"], row["worst"] = float(errors.median()), float(errors.max())
        if known:
            row["estimated"] = float(result.error[d].max())
        if tol is not None:
            row[f"within {tol:g}"] = f"{int(result.reached[d].sum())} of {result.images}"
        rows.append(row)
    return rows


def completeness_table(result: Attribution) -> Table:
    """Head and rows of `completeness_rows`, for a terminal."""
    rows = completeness_rows(result)
    forms = {"loss of baseline": ".4g", "loss of target": ".4g"}
    forms |= dict.fromkeys(("median", "worst", "estimated"), ".2e")
    return list(rows[0]), [[format(v, forms.get(k, "")) for k, v in row.items()] for row in rows]


def verdicts(masking: Masking) -> list[str]:
    """Say for every degradation what masking the smallest share does, good or bad."""
    sentences = []
    for m in masking.masked:
        if m.fraction != masking.masked[0].fraction or m.filters == "random":
            continue
        chance = masking.find("random", m.fraction)
        share = f"{100 * m.fraction:g} %"
        others = " and ".join(
            f"{100 * masking.lost(m, other):.0f} % of that on {other}"
            for other in masking.target
            if other != m.filters
        )
        if math.isnan(masking.lost(m, m.filters)):
            sentences.append(f"The target gains nothing over the baseline on {m.filters}.")
            continue
        sentences.append(
            f"Masking the top {share} {m.filters} filters undoes "
            f"{100 * masking.lost(m, m.filters):.0f} % of the target's gain on {m.filters} "
            f"(random ones {100 * masking.lost(chance, m.filters):.0f} %), and {others}."
        )
    return sentences
