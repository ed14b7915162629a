"""Charts of effects: masking, modulation, locations, retraining."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.evaluation import METRICS, mean_and_interval
from faigfast.analysis.locations import EXPERIMENTS, Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.report.charts import (
    CONTROL,
    DASHED,
    GRAY,
    INK,
    Chart,
    Panel,
    Series,
    degradation_series,
    method_series,
)
from faigfast.analysis.report.drawing import shown
from faigfast.analysis.report.figures import (
    COST_LABELS,
    KEPT_LIMITS,
    axis_limits,
    methods_beyond_axis,
)
from faigfast.analysis.retraining import Retraining

MASKED_SHARE = "masked share of all filters, %"
INTERVALS = "Bands and bars are 95 % intervals over crops."


def method_chart(masking: Masking, metric: str = "psnr") -> Chart:
    """Show the cost of every method's filters to their degradation, one panel a contrast."""
    panels = []
    beyond_axis = methods_beyond_axis(masking) if metric == "psnr" else {}
    for contrast in masking.contrasts:
        own = contrast.degradation
        rows = [
            row
            for method in masking.methods
            for row in _cost_rows(masking, method, contrast.name, own, metric)
        ]
        gain = float((masking.target[own] - masking.baseline[own]).mean())
        lines, domain, note = [], None, ""
        if metric == "psnr":
            lines = [{"at": gain, "label": "all of the target's gain"}]
            if gain > 0 and contrast.name in beyond_axis:
                domain = axis_limits(masking, contrast.name, gain)
                methods = ", ".join(beyond_axis[contrast.name])
                note = (
                    f"The axis ends at {domain[1] / gain:.2g} times the gain; {methods} goes "
                    "beyond. Arrows mark cut points; “All values” shows them."
                )
        title = f"{contrast.name} filters masked, {own} input"
        panels.append(Panel(title, rows, lines, domain, note))
    label = COST_LABELS.get(metric, f"loss of {METRICS[metric]}")
    return Chart(
        "curves",
        f"masking-{metric}",
        f"Cost of masking the top filters of each method. {INTERVALS} × marks a broken network.",
        f"Curves of {label} over the masked share, one for each method: "
        f"{', '.join(masking.methods)}.",
        panels, MASKED_SHARE, label, method_series(masking.methods),
        ("x",) if metric == "psnr" else ("x", "y"),
    )  # fmt: skip


def _cost_rows(
    masking: Masking, method: str, filters: str, own: str, metric: str
) -> list[dict[str, Any]]:
    points: list[tuple[float, Measurement | None]] = [(0.0, None)]
    points += [(100 * m.share, m) for m in masking.curve(method, filters)]
    if len(points) == 1:
        return []
    rows = []
    for share, m in points:
        mean, half = mean_and_interval(masking.cost(m, own, metric)) if m else (0.0, 0.0)
        outcome = masking.outcome(m, own).outcome if m and metric == "psnr" else ""
        rows.append(_point(method, share, mean, half) | {"outcome": outcome})
    return rows


def _point(series: str, x: float, mean: float, half: float) -> dict[str, Any]:
    return {"series": shown(series), "x": x, "y": mean, "low": mean - half, "high": mean + half}


def masking_chart(masking: Masking) -> Chart:
    """Show PSNR against the masked share, one panel for each degradation of the input."""
    inputs = list(masking.target)
    looks = degradation_series([c.name for c in masking.contrasts])
    groups = list(dict.fromkeys((m.filters, m.method) for m in masking.masked))
    series = [_look(looks, *group) for group in groups]
    panels = []
    for degradation in inputs:
        full = masking.target[degradation]
        rows = []
        for group, look in zip(groups, series, strict=True):
            rows.append(_point(look.name, 0.0, float(full.mean()), 0.0) | {"outcome": ""})
            for m in masking.masked:
                if (m.filters, m.method) == group:
                    # Interval of the change within each crop: crops differ more than networks.
                    half = mean_and_interval(m.psnr[degradation] - full)[1]
                    mean = float(m.psnr[degradation].mean())
                    outcome = masking.outcome(m, degradation).outcome
                    row = _point(look.name, 100 * m.share, mean, half)
                    rows.append(row | {"outcome": outcome})
        lines = [
            {"at": float(values[degradation].mean()), "label": name}
            for name, values in (("target", masking.target), ("baseline", masking.baseline))
        ]
        panels.append(Panel(f"{degradation} input", rows, lines))
    return Chart(
        "curves", "masking", f"PSNR against the masked share. {INTERVALS}",
        "Curves of PSNR over the masked share of filters, one for each set of filters.",
        panels, MASKED_SHARE, "PSNR, dB", series, ("x",),
    )  # fmt: skip


def _look(looks: dict[str, Series], filters: str, method: str) -> Series:
    if method == SAME_LAYERS:
        name = f"random of the layers of {shown(filters)}"
        return Series(name, looks[filters].colour, DASHED)
    if filters not in looks:
        return Series(shown(filters), GRAY, "1 3")
    return Series(f"{shown(filters)} filters", looks[filters].colour, width=2.2)


def modulation_chart(modulation: Modulation, metric: str = "psnr") -> Chart:
    """Show a metric against the strength, one panel for each set of filters."""
    panels = []
    inputs = list(modulation.values[0][metric])
    looks = degradation_series(inputs)
    for name in modulation.names:
        strengths, values = modulation.curve(name)
        full = values[strengths.index(1.0)] if 1.0 in strengths else values[0]
        rows = []
        for degradation in inputs:
            for strength, value in zip(strengths, values, strict=True):
                change = value[metric][degradation] - full[metric][degradation]
                mean = float(value[metric][degradation].mean())
                point = _point(degradation, strength, mean, mean_and_interval(change)[1])
                rows.append(point | {"outcome": ""})
        panels.append(Panel(f"{name} filters at every strength", rows))
    return Chart(
        "curves", f"modulation-{metric}",
        f"Restoration at strengths between and beyond the two networks. {INTERVALS}",
        f"Curves of {METRICS[metric]} over the strength of a set of filters, one for each "
        "degradation of the input.",
        panels, "strength (0: baseline's weights, 1: target's)", METRICS[metric],
        list(looks.values()),
    )  # fmt: skip


def location_chart(parts: Sequence[Locations]) -> Chart:
    """Show the share of the target's gain that every location experiment keeps."""
    panels = []
    low, high = KEPT_LIMITS
    for part in parts:
        rows: list[dict[str, Any]] = []
        for name in part.values:
            if name in ("baseline", "target"):
                continue
            one = part.outcome(name)
            kept, half = 100 * one.kept, 100 * one.half
            colour = _experiment(name, EXPERIMENTS[name][1])
            row = {"name": name, "value": kept, "low": kept - half, "high": kept + half}
            rows.append(row | {"outcome": one.outcome, "colour": colour})
        cut = [r["name"] for r in rows if not r["outcome"] and not low <= r["value"] <= high]
        note = f"The axis ends at {low:g} and {high:g} %; beyond: {', '.join(cut)}." if cut else ""
        lines = [{"at": 0, "label": "baseline"}, {"at": 100, "label": "target"}]
        title = f"{part.name}: {part.count} filters"
        panels.append(Panel(title, rows, lines, KEPT_LIMITS if cut else None, note))
    return Chart(
        "bars", "locations",
        "Kept share of the target's gain. In the colour of text: the discovered filters; gray: "
        "random filters, places or orders, mean of three draws. Lines: 95 % intervals over crops.",
        "Bars of the kept share of the target's gain, one for each experiment.",
        panels, "kept of the target's gain, %",
    )  # fmt: skip


def retraining_chart(parts: Sequence[Retraining]) -> Chart:
    """Show the gain of retrained networks over the baseline, one panel for each degradation."""
    panels = []
    for part in parts:
        base, rows = part.psnr("baseline"), []
        for name in part.values:
            if name != "baseline":
                mean, half = mean_and_interval(part.psnr(name) - base)
                colour = _experiment(name, "random" in name)
                row = {"name": name, "value": mean, "low": mean - half, "high": mean + half}
                rows.append(row | {"outcome": "", "colour": colour})
        panels.append(Panel(f"{part.degradation} input", rows, [{"at": 0, "label": "baseline"}]))
    return Chart(
        "bars", "retraining",
        "Gain over the baseline after retraining. In the colour of text: the discovered filters "
        "alone; gray: random filters, all parameters, target. Lines: 95 % intervals over crops.",
        "Bars of the gain in PSNR over the baseline, one for each retrained network.",
        panels, "gain over the baseline, dB",
    )  # fmt: skip


def _experiment(name: str, random: bool) -> str:
    return CONTROL if random else INK if name in ("masked", "grafted", "discovered") else GRAY
