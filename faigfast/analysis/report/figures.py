"""Figures of the analyses, and their text in an HTML page."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.analysis.distribution import layer_numbers
from faigfast.analysis.evaluation import METRICS, mean_and_interval
from faigfast.analysis.locations import Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.report.marks import RED, common_legend, mark_broken
from faigfast.analysis.retraining import Retraining
from faigfast.data.images import encode_png
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Distinguishable without red-green vision (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7A5195")
GRAY = "#888888"
MOST_COLUMNS = 3
# Limits of the axis, in gains of the target: one method that breaks the network would flatten the
# curves of all others.
AXIS_LIMITS = (-0.1, 2.0)


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple["Figure", Any]:
    """Make a matplotlib figure without a window; sizes in inches.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'faigfast[report]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def panels(count: int, width: float, height: float) -> tuple["Figure", list[Any]]:
    """Make a figure of panels, at most three in a row; size of a panel in inches."""
    columns = min(count, MOST_COLUMNS)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, width * columns, height * rows)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def svg(figure: "Figure") -> str:
    """Draw a figure as one <svg> element; dollar signs in names are no mathematics."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    for part in figure.findobj(Text):
        part.set_parse_math(False)
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "faigfast"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


def shown(name: str) -> str:
    """Write a name of the user's so that SVG and legends show it.

    XML has no control characters, and matplotlib hides labels that begin with "_".
    """
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return f"\N{ZERO WIDTH SPACE}{printable}" if printable.startswith("_") else printable


def middle(image: Tensor, side: int) -> Tensor:
    """Cut [..., H, W] to at most `side` pixels each way, around its middle."""
    top, left = (max(0, size - side) // 2 for size in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def data_uri(image: Tensor) -> str:
    """Encode an image [3, H, W] in [0, 1] as the address of a PNG inside the page."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each name a colour of its own; "random" is gray."""
    known = [name for name in names if name != "random"]
    chosen = dict(zip(known, COLOURS, strict=False))
    if len(known) > len(COLOURS):
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        positions = (n / (len(known) - 1) for n in range(len(known)))
        chosen = {n: to_hex(colormaps["turbo"](p)) for n, p in zip(known, positions, strict=True)}
    return {**chosen, "random": GRAY}


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
    palette = colours([name for name in masking.methods if name not in ("faig", SAME_LAYERS)])
    palette |= {"faig": "black", SAME_LAYERS: GRAY}
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
            ylabel="loss of PSNR, dB" if metric == "psnr" else f"change of {METRICS[metric]}",
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
            mean = [float(v[metric][degradation].mean()) for v in values]
            axis.plot(
                strengths, mean, color=colour, marker="o", label=f"input: {shown(degradation)}"
            )
        for strength in (0, 1):
            axis.axvline(strength, color="black", linestyle=":", linewidth=1)
        axis.set(
            title=f"{shown(name)} filters",
            xlabel="strength: 0 baseline, 1 target",
            ylabel=METRICS[metric],
        )
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    return figure


def retraining_bars(parts: Sequence[Retraining]) -> "Figure":
    """Draw the PSNR of baseline, target and retrained networks, one panel for each degradation."""
    figure, axes = panels(len(parts), 4.1, 3.4)
    for axis, part in zip(axes, parts, strict=True):
        names = list(part.values)
        base = part.psnr("baseline")
        gains = [mean_and_interval(part.psnr(name) - base) for name in names[1:]]
        axis.bar(
            names[1:],
            [mean for mean, _ in gains],
            yerr=[half for _, half in gains],
            capsize=4,
            color=["black", COLOURS[0], GRAY, COLOURS[2]],
        )
        axis.set(title=f"input: {shown(part.degradation)}", ylabel="gain over the baseline, dB")
        axis.grid(alpha=0.3, axis="y")
    return figure


def kernel_changes_figure(kernels: Sequence[tuple[str, Tensor, Tensor]], title: str) -> "Figure":
    """Draw kernels before and after, and their change, one column and colour scale a kernel."""
    count = len(kernels)
    figure, axes = new_figure(3, count, 0.95 * count + 0.7, 3.6)
    for column, (name, before, after) in enumerate(kernels):
        most = float(torch.stack([before.abs().max(), after.abs().max()]).max()) or 1.0
        rows = (before, after, after - before)
        for axis, kernel in zip(axes[:, column], rows, strict=True):
            axis.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-most, vmax=most)
            axis.set(xticks=[], yticks=[])
        axes[0, column].set_title(shown(name).replace(" ", "\n"), fontsize=6)
    for axis, label in zip(axes[:, 0], ("baseline", "target", "change"), strict=True):
        axis.set_ylabel(label, fontsize="small")
    figure.suptitle(title, fontsize="medium")
    return figure


def location_bars(parts: Sequence[Locations]) -> "Figure":
    """Draw the share of the target's gain that every location experiment keeps."""
    figure, axes = panels(len(parts), 4.8, 4.0)
    for axis, part in zip(axes, parts, strict=True):
        names = [name for name in part.values if name not in ("baseline", "target")]
        outcomes = [part.outcome(name) for name in names]
        kept = [0.0 if one.outcome else 100 * one.kept for one in outcomes]
        for n, one in enumerate(outcomes):  # no bar
            axis.text(2, n, one.outcome, va="center", fontsize="small", color=RED)
        axis.barh(names, kept, color=[COLOURS[2] if "graft" in n else COLOURS[0] for n in names])
        axis.invert_yaxis()
        for percentage in (0, 100):
            axis.axvline(percentage, color="black", linewidth=1)
        axis.set(
            title=f"{part.name}: {part.count} filters",
            xlabel="kept of the target's gain, %",
            xlim=(min(-20.0, *kept) if min(kept) > -150 else -150, max(110.0, *kept)),
        )
        axis.tick_params(axis="y", labelsize="small")
        axis.grid(alpha=0.3, axis="x")
    return figure


def channel_bars(scores: Mapping[str, Tensor]) -> "Figure":
    """Draw the scores of every layer's output channels, largest first, layers in order of depth.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Layer to [out channels], as `faigfast.analysis.pruning.channel_importance` gives them.
    """
    width = min(24.0, max(9.2, 0.25 * len(scores)))
    figure, axes = new_figure(1, 1, width, 3.6)
    axis = axes[0, 0]
    for n, values in enumerate(scores.values()):
        # Layers are equally wide, however many channels they have.
        edges = torch.linspace(n - 0.42, n + 0.42, len(values) + 1, dtype=torch.float64)
        heights = values.sort(descending=True).values.tolist()
        axis.stairs(heights, edges.tolist(), fill=True, color=COLOURS[n % 2])
    every = torch.cat(list(scores.values()))
    positive = every[every > 0]
    if len(positive) and bool((every >= 0).all()):
        axis.set_yscale("log")  # a channel without a score has no bar
        least, most = float(positive.min()), float(positive.max())
        axis.set_ylim(max(least, 1e-6 * most) / 2, 2 * most)
    else:  # contrasts are negative too
        axis.set_yscale("symlog", linthresh=float(every.abs().median()) or 1.0)
    axis.set_xticks(range(len(scores)), list(map(shown, scores)), rotation=90, fontsize="x-small")
    axis.set(ylabel="score of a channel", xlim=(-1, len(scores)))
    axis.grid(alpha=0.3, axis="y")
    return figure


def matrix(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str, labels: tuple[str, str]
) -> "Figure":
    """Draw shares [K, M] in [0, 1] as a matrix with its numbers."""
    side = 1.6 + 0.55 * max(len(rows), len(columns))
    figure, axes = new_figure(1, 1, max(side, 4.0), max(side - 0.4, 3.4))
    axis = axes[0, 0]
    axis.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=1)
    for n, row in enumerate(values.tolist()):
        for m, value in enumerate(row):
            colour = "white" if value > 0.6 else "black"
            axis.text(
                m, n, f"{100 * value:.0f}", ha="center", va="center", color=colour, fontsize=8
            )
    axis.set_xticks(
        range(len(columns)), list(map(shown, columns)), rotation=45, ha="right", fontsize="small"
    )
    axis.set_yticks(range(len(rows)), list(map(shown, rows)), fontsize="small")
    axis.set(title=title, ylabel=labels[0], xlabel=labels[1])
    return figure


def layer_distribution(sets: Mapping[str, FilterSet], index: FilterIndex) -> "Figure":
    """Draw how many filters of each set lie in each layer, in order of depth, beside chance."""
    palette = colours(list(sets))
    layers = [shown(layer.removesuffix(".weight")) for layer in index.layers]
    sizes = layer_numbers(index).bincount(minlength=len(layers))
    width = min(24.0, max(9.2, 0.25 * len(layers)))
    figure, axes = new_figure(len(sets), 1, width, 1.9 * len(sets) + 1)
    for axis, (name, filters) in zip(axes[:, 0], sets.items(), strict=True):
        counts = layer_numbers(index)[filters.indices].bincount(minlength=len(layers))
        axis.bar(range(len(layers)), counts.tolist(), color=palette[name])
        chance = (sizes * (len(filters) / len(index))).tolist()
        axis.plot(range(len(layers)), chance, "k_", markersize=5, label="by chance")
        axis.set(title=f"{shown(name)}: {len(filters)} filters", ylabel="filters")
        axis.set_xticks(range(len(layers)), [])
        axis.grid(alpha=0.3, axis="y")
    axes[0, 0].legend(fontsize="x-small")
    axes[-1, 0].set_xticks(range(len(layers)), layers, rotation=90, fontsize="x-small")
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
