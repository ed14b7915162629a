"""Figures of the effects of filters: curves and bars, drawn for a width in inches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from faigfast.analysis.evaluation import METRICS, mean_and_interval
from faigfast.analysis.locations import EXPERIMENTS, Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.report.drawing import (
    PAGE,
    colours,
    line_looks,
    panels,
    set_title,
    shown,
    small,
    wrapped,
)
from faigfast.analysis.report.marks import RED, add_legend, mark_broken
from faigfast.analysis.report.palette import experiment_colour, method_colours
from faigfast.analysis.retraining import Retraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL = 1.75  # inches: height of a panel of curves
BAR = 0.17  # inches: height that a horizontal bar takes
# Limits of the axis, in gains of the target: one method that breaks the network would flatten the
# curves of all others.
AXIS_LIMITS = (-0.1, 2.0)
# The kept share of a gain, in %: a broken network would flatten all other bars.
KEPT_LIMITS = (-50.0, 150.0)
SHORT_LABELS = {"difference": "output difference × 1000"}
COST_LABELS = {
    "psnr": "loss of PSNR against the target, dB",
    "difference": "difference of the output's gradient map from the target's, × 1000",
}


def masking_curves(masking: Masking, width: float = PAGE) -> "Figure":
    """Draw PSNR against the masked share, one panel for each degradation of the input."""
    inputs = list(masking.target)
    groups = list(dict.fromkeys((m.filters, m.method) for m in masking.masked))
    palette = colours(list(dict.fromkeys(filters for filters, _ in groups)))
    looks = line_looks([_curve_label(*group) for group in groups])
    figure, axes = panels(len(inputs), width, PANEL)
    for axis, degradation in zip(axes, inputs, strict=True):
        for label, values, style in (
            ("target", masking.target, "-"),
            ("baseline", masking.baseline, ":"),
        ):
            level = float(values[degradation].mean())
            axis.axhline(level, color="black", linestyle=style, linewidth=0.8, label=label)
        for name, method in groups:
            points = [m for m in masking.masked if (m.filters, m.method) == (name, method)]
            share = [100 * m.share for m in points]
            mean = [float(m.psnr[degradation].mean()) for m in points]
            # Interval of the change within each crop: photographs differ more than networks do.
            full = masking.target[degradation]
            half = [mean_and_interval(m.psnr[degradation] - full)[1] for m in points]
            axis.errorbar(
                share,
                mean,
                half,
                color=palette[name],
                label=_curve_label(name, method),
                **looks[_curve_label(name, method)] | _line_style(method),
            )
            mark_broken(axis, masking, points, degradation, mean)
        set_title(axis, f"input: {shown(degradation)}")
        axis.set(xlabel="masked filters, %", ylabel="PSNR, dB")
        axis.grid(True)
    add_legend(figure, axes)
    return figure


def _line_style(method: str) -> dict[str, str]:
    return {"linestyle": "--" if method == SAME_LAYERS else "-"}


def _curve_label(filters: str, method: str) -> str:
    if method == SAME_LAYERS:
        return f"random of the layers of {shown(filters)}"
    others = "" if method in ("faig", filters) else f" by {method}"
    return f"{shown(filters)} filters{others}"


def methods_beyond_axis(masking: Masking) -> dict[str, list[str]]:
    """Methods whose PSNR curves leave the axis of `method_curves`, by contrast."""
    methods_by_contrast: dict[str, list[str]] = {}
    for contrast in masking.contrasts:
        own = contrast.degradation
        gain = float((masking.target[own] - masking.baseline[own]).mean())
        if gain <= 0:  # the axis has no limits
            continue
        low, high = axis_limits(masking, contrast.name, gain)
        for method in masking.methods:
            points = masking.curve(method, contrast.name)
            costs = [float(masking.cost(m, own).mean()) for m in points]
            if costs and not low <= min(costs) <= max(costs) <= high:
                methods_by_contrast.setdefault(contrast.name, []).append(method)
    return methods_by_contrast


def axis_limits(masking: Masking, filters: str, gain: float) -> tuple[float, float]:
    """Limits of the axis of costs in dB: `AXIS_LIMITS`, or as far as FAIG's own curve goes."""
    low, high = (limit * gain for limit in AXIS_LIMITS)
    own = masking.curve("faig", filters) if "faig" in masking.methods else []
    degradation = next(c.degradation for c in masking.contrasts if c.name == filters)
    costs = [float(masking.cost(m, degradation).mean()) for m in own]
    return min([low, *(1.1 * cost for cost in costs)]), max([high, *(1.1 * c for c in costs)])


def method_curves(masking: Masking, metric: str = "psnr", width: float = PAGE) -> "Figure":
    """Draw the cost of every method's filters to their degradation, one panel a contrast."""
    palette = method_colours(masking.methods)
    looks = line_looks(masking.methods)
    figure, axes = panels(len(masking.contrasts), width, PANEL)
    beyond_axis = methods_beyond_axis(masking) if metric == "psnr" else {}
    for axis, contrast in zip(axes, masking.contrasts, strict=True):
        own = contrast.degradation
        gain = float((masking.target[own] - masking.baseline[own]).mean())
        if metric == "psnr":
            axis.axhline(gain, color="black", linestyle=":", linewidth=0.8, label="all of the gain")
        for method in masking.methods:
            points = masking.curve(method, contrast.name)
            costs = [mean_and_interval(masking.cost(m, own, metric)) for m in points]
            axis.errorbar(
                [0, *(100 * m.share for m in points)],
                [0, *(mean for mean, _ in costs)],
                [0, *(half for _, half in costs)],
                color=palette[method],
                linewidth=1.8 if method == "faig" else None,
                zorder=3 if method == "faig" else None,
                label=method,
                **looks[method] | ({"linestyle": "-"} if method == "faig" else {}),
            )
            if metric == "psnr":
                mark_broken(axis, masking, points, own, [mean for mean, _ in costs])
        if metric == "psnr" and gain > 0:
            axis.set_ylim(axis_limits(masking, contrast.name, gain))
            if names := beyond_axis.get(contrast.name):
                # The caption names all of many.
                text = ", ".join(names) if len(names) < 3 else f"{len(names)} methods"
                axis.text(
                    0.02, 0.98, f"cut: {text}", va="top", transform=axis.transAxes,
                    fontsize=small(),
                )  # fmt: skip
        set_title(axis, f"{shown(contrast.name)} filters, input: {shown(own)}")
        label = SHORT_LABELS.get(metric, f"loss of {METRICS[metric]}")
        axis.set(xlabel="masked filters, %", ylabel=label)
        if metric != "psnr":
            axis.set_yscale("symlog", linthresh=1)
        axis.grid(True)
    add_legend(figure, axes)
    return figure


def modulation_curves(
    modulation: Modulation, metric: str = "psnr", width: float = PAGE
) -> "Figure":
    """Draw a metric against the strength, one panel for each set of filters."""
    figure, axes = panels(len(modulation.names), width, PANEL)
    looks = line_looks(list(modulation.values[0][metric]))
    for axis, name in zip(axes, modulation.names, strict=True):
        strengths, values = modulation.curve(name)
        inputs = list(values[0][metric])
        for degradation, colour in colours(inputs).items():
            if degradation not in inputs:
                continue
            full = values[strengths.index(1.0)] if 1.0 in strengths else values[0]
            mean = [float(v[metric][degradation].mean()) for v in values]
            # Interval of the change within each crop, as in `masking_curves`.
            half = [
                mean_and_interval(v[metric][degradation] - full[metric][degradation])[1]
                for v in values
            ]
            axis.errorbar(
                strengths, mean, half, color=colour, label=f"input: {shown(degradation)}",
                **looks[degradation],
            )  # fmt: skip
        for strength in (0, 1):
            axis.axvline(strength, color="black", linestyle=":", linewidth=0.8)
        set_title(axis, f"{shown(name)} filters")
        axis.set(xlabel="strength: 0 baseline, 1 target", ylabel=METRICS[metric])
        axis.grid(True)
    add_legend(figure, axes)
    return figure


def retraining_bars(parts: Sequence[Retraining], width: float = PAGE) -> "Figure":
    """Draw the gain of target and retrained networks over the baseline, a panel a degradation."""
    most = max(len(part.values) - 1 for part in parts)
    figure, axes = panels(len(parts), width, BAR * most + 0.75, least=3.2)
    for axis, part in zip(axes, parts, strict=True):
        names = list(part.values)[1:]
        base = part.psnr("baseline")
        gains = [mean_and_interval(part.psnr(name) - base) for name in names]
        axis.barh(
            range(len(names)),
            [mean for mean, _ in gains],
            color=[experiment_colour(name, "random" in name) for name in names],
        )
        for n, (mean, half) in enumerate(gains):
            axis.errorbar(mean, n, xerr=half, color=RED, elinewidth=1)
        axis.set_yticks(range(len(names)), [wrapped(shown(name), 1.5) for name in names])
        axis.invert_yaxis()
        set_title(axis, f"input: {shown(part.degradation)}")
        axis.set(xlabel="gain over the baseline, dB")
        axis.grid(True, axis="x")
    return figure


def location_bars(parts: Sequence[Locations], width: float = PAGE) -> "Figure":
    """Draw the share of the target's gain that every location experiment keeps.

    Bars beyond `KEPT_LIMITS` are cut, with the value and an arrow at the cut.
    """
    most = max(len(part.values) - 2 for part in parts)
    figure, axes = panels(len(parts), width, BAR * max(most, 1) + 0.75, least=3.2)
    low, high = KEPT_LIMITS
    for axis, part in zip(axes, parts, strict=True):
        names = [name for name in part.values if name not in ("baseline", "target")]
        for n, name in enumerate(names):
            one = part.outcome(name)
            if one.outcome:
                axis.barh(n, 0)
                axis.text(3, n, one.outcome, va="center", fontsize=small(), color=RED)
                continue
            kept = 100 * one.kept
            bar_end = min(max(kept, low), high)
            axis.barh(n, bar_end, color=experiment_colour(name, EXPERIMENTS[name][1]))
            if bar_end == kept:
                axis.errorbar(kept, n, xerr=100 * one.half, color=RED, elinewidth=1)
            else:
                # The arrow lies on the bar, or beside it where the bar points to the labels.
                arrow = f"{kept:.0f} % →" if kept > high else f"← {kept:.0f} %"
                place, align = (bar_end - 2, "right") if kept > high else (2, "left")
                white = kept > high and not EXPERIMENTS[name][1]
                axis.text(
                    place, n, arrow, ha=align, va="center_baseline", fontsize=small(),
                    color="white" if white else "black",
                )  # fmt: skip
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        for percentage in (0, 100):
            axis.axvline(percentage, color="black", linewidth=0.8)
        set_title(axis, f"{shown(part.name)}: {part.count} filters")
        axis.set(xlabel="kept of the target's gain, %", xlim=(low, high))
        axis.grid(True, axis="x")
    return figure
