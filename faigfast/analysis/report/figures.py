"""Figures of the analyses, and their text in an HTML page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.analysis.evaluation import METRICS, mean_and_interval
from faigfast.analysis.locations import EXPERIMENTS, Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.report.drawing import COLOURS as COLOURS
from faigfast.analysis.report.drawing import GRAY as GRAY
from faigfast.analysis.report.drawing import colours, new_figure, panels, shown
from faigfast.analysis.report.drawing import data_uri as data_uri
from faigfast.analysis.report.drawing import middle as middle
from faigfast.analysis.report.drawing import svg as svg
from faigfast.analysis.report.filter_figures import channel_bars as channel_bars
from faigfast.analysis.report.filter_figures import kernel_changes_figure as kernel_changes_figure
from faigfast.analysis.report.filter_figures import layer_distribution as layer_distribution
from faigfast.analysis.report.filter_figures import matrix as matrix
from faigfast.analysis.report.marks import RED, common_legend, mark_broken
from faigfast.analysis.report.palette import experiment_colour, method_colours
from faigfast.analysis.retraining import Retraining

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Limits of the axis, in gains of the target: one method that breaks the network would flatten the
# curves of all others.
AXIS_LIMITS = (-0.1, 2.0)
# The kept share of a gain, in %: a broken network would flatten all other bars.
KEPT_LIMITS = (-50.0, 150.0)
COST_LABELS = {
    "psnr": "loss of PSNR against the target, dB",
    "difference": "difference of the output's gradient map from the target's, × 1000",
}


def masking_curves(masking: Masking) -> "Figure":
    """Draw PSNR against the masked share, one panel for each degradation of the input."""
    inputs = list(masking.target)
    names = list(dict.fromkeys(m.filters for m in masking.masked))
    palette = colours(names)
    figure, axes = panels(len(inputs), 4.6, 3.6)
    for axis, degradation in zip(axes, inputs, strict=True):
        for label, values, style in (
            ("target", masking.target, "-"),
            ("baseline", masking.baseline, ":"),
        ):
            level = float(values[degradation].mean())
            axis.axhline(level, color="black", linestyle=style, linewidth=1, label=label)
        for name, method in dict.fromkeys((m.filters, m.method) for m in masking.masked):
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
                linestyle="--" if method == SAME_LAYERS else "-",
                marker="o",
                capsize=3,
                label=_curve_label(name, method),
            )
            mark_broken(axis, masking, points, degradation, mean)
        axis.set(
            title=f"input: {shown(degradation)}", xlabel="masked filters, %", ylabel="PSNR, dB"
        )
        axis.grid(alpha=0.3)
    figure.legend(*common_legend(axes), fontsize="small", ncols=4, loc="outside lower center")
    return figure


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
        low, high = (limit * gain for limit in AXIS_LIMITS)
        for method in masking.methods:
            points = masking.curve(method, contrast.name)
            costs = [float(masking.cost(m, own).mean()) for m in points]
            if costs and not low <= min(costs) <= max(costs) <= high:
                methods_by_contrast.setdefault(contrast.name, []).append(method)
    return methods_by_contrast


def method_curves(masking: Masking, metric: str = "psnr") -> "Figure":
    """Draw the cost of every method's filters to their degradation, one panel a contrast."""
    palette = method_colours(masking.methods)
    figure, axes = panels(len(masking.contrasts), 4.8, 3.8)
    beyond_axis = methods_beyond_axis(masking) if metric == "psnr" else {}
    for axis, contrast in zip(axes, masking.contrasts, strict=True):
        own = contrast.degradation
        gain = float((masking.target[own] - masking.baseline[own]).mean())
        if metric == "psnr":
            axis.axhline(gain, color="black", linestyle=":", linewidth=1, label="all of the gain")
        for method in masking.methods:
            points = masking.curve(method, contrast.name)
            costs = [mean_and_interval(masking.cost(m, own, metric)) for m in points]
            axis.errorbar(
                [0, *(100 * m.share for m in points)],
                [0, *(mean for mean, _ in costs)],
                [0, *(half for _, half in costs)],
                color=palette[method],
                linestyle="--" if method == SAME_LAYERS else "-",
                linewidth=2.5 if method == "faig" else 1.2,
                marker="o",
                markersize=4,
                capsize=3,
                label=method,
            )
            if metric == "psnr":
                mark_broken(axis, masking, points, own, [mean for mean, _ in costs])
        if metric == "psnr" and gain > 0:
            axis.set_ylim(AXIS_LIMITS[0] * gain, AXIS_LIMITS[1] * gain)
            if names := beyond_axis.get(contrast.name):
                axis.text(
                    0.02, 0.97, f"cut; leaves the picture: {', '.join(names)}", va="top",
                    transform=axis.transAxes, fontsize="x-small",
                )  # fmt: skip
        axis.set(
            title=f"{contrast.name} filters, input: {own}",
            xlabel="masked filters, %",
            ylabel=COST_LABELS.get(metric, f"loss of {METRICS[metric]}"),
        )
        if metric != "psnr":
            axis.set_yscale("symlog", linthresh=1)
        axis.grid(alpha=0.3)
    figure.legend(*common_legend(axes), fontsize="small", ncols=5, loc="outside lower center")
    return figure


def modulation_curves(modulation: Modulation, metric: str = "psnr") -> "Figure":
    """Draw a metric against the strength, one panel for each set of filters."""
    figure, axes = panels(len(modulation.names), 4.6, 3.6)
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
                strengths, mean, half, color=colour, marker="o", capsize=3,
                label=f"input: {shown(degradation)}",
            )  # fmt: skip
        for strength in (0, 1):
            axis.axvline(strength, color="black", linestyle=":", linewidth=1)
        axis.set(
            title=f"{shown(name)} filters",
            xlabel="strength (0: baseline's weights, 1: target's)",
            ylabel=METRICS[metric],
        )
        axis.grid(alpha=0.3)
    figure.legend(*common_legend(axes), fontsize="small", ncols=4, loc="outside lower center")
    return figure


def retraining_bars(parts: Sequence[Retraining]) -> "Figure":
    """Draw the PSNR of baseline, target and retrained networks, one panel for each degradation."""
    figure, axes = panels(len(parts), 4.1, 3.4)
    for axis, part in zip(axes, parts, strict=True):
        names = list(part.values)
        base = part.psnr("baseline")
        gains = [mean_and_interval(part.psnr(name) - base) for name in names[1:]]
        axis.bar(
            [name.replace(" of ", "\nof ") for name in names[1:]],
            [mean for mean, _ in gains],
            yerr=[half for _, half in gains],
            capsize=4,
            color=[experiment_colour(name, "random" in name) for name in names[1:]],
        )
        axis.tick_params(axis="x", labelsize="x-small")
        axis.set(title=f"input: {shown(part.degradation)}", ylabel="gain over the baseline, dB")
        axis.grid(alpha=0.3, axis="y")
    return figure


def location_bars(parts: Sequence[Locations]) -> "Figure":
    """Draw the share of the target's gain that every location experiment keeps.

    Bars beyond `KEPT_LIMITS` are cut, with the value and an arrow at the cut.
    """
    figure, axes = panels(len(parts), 4.8, 4.0)
    low, high = KEPT_LIMITS
    for axis, part in zip(axes, parts, strict=True):
        names = [name for name in part.values if name not in ("baseline", "target")]
        for n, name in enumerate(names):
            one = part.outcome(name)
            if one.outcome:
                axis.barh(n, 0)
                axis.text(2, n, one.outcome, va="center", fontsize="small", color=RED)
                continue
            kept = 100 * one.kept
            bar_end = min(max(kept, low), high)
            axis.barh(n, bar_end, color=experiment_colour(name, EXPERIMENTS[name][1]))
            if bar_end == kept:
                half = 100 * one.half
                axis.errorbar(kept, n, xerr=half, color=RED, capsize=3, elinewidth=1.2)
            else:
                arrow = f"{kept:.0f} % →" if kept > high else f"← {kept:.0f} %"
                align = "right" if kept > high else "left"
                axis.text(bar_end, n - 0.45, arrow, ha=align, va="bottom", fontsize="x-small")
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        for percentage in (0, 100):
            axis.axvline(percentage, color="black", linewidth=1)
        axis.set(
            title=f"{shown(part.name)}: {part.count} filters",
            xlabel="kept of the target's gain, %",
            xlim=(low, high),
        )
        axis.tick_params(axis="y", labelsize="small")
        axis.grid(alpha=0.3, axis="x")
    return figure


def side_by_side(rows: Sequence[dict[str, Tensor]]) -> "Figure":
    """Set images [3, H, W] with captions in rows of equal length."""
    columns = len(rows[0])
    figure, axes = new_figure(len(rows), columns, 2.1 * columns, 2.4 * len(rows))
    for axes_of_row, images in zip(axes, rows, strict=True):
        for axis, (caption, image) in zip(axes_of_row, images.items(), strict=True):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.set_title(caption, fontsize="small")
    return figure
