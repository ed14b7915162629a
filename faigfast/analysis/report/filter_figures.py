"""Figures of the filters themselves: kernels, channels, layers, and what sets have in common."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from faigfast.analysis.distribution import layer_numbers
from faigfast.analysis.report.drawing import colours, new_figure, shown
from faigfast.analysis.report.marks import common_legend
from faigfast.analysis.report.palette import GRAY
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def kernel_changes_figure(kernels: Sequence[tuple[str, Tensor, Tensor]], title: str) -> "Figure":
    """Draw kernels before and after, and their change, one column a kernel.

    Baseline and target share a colour scale, the change has its own: a trained change is often a
    tenth of the kernel, or several times its size. The largest value of a scale is below each.
    """
    count = len(kernels)
    figure, axes = new_figure(3, count, 0.95 * count + 0.9, 4.4)
    for column, (name, before, after) in enumerate(kernels):
        both = float(torch.stack([before.abs().max(), after.abs().max()]).max())
        rows = (
            (before, both),
            (after, both),
            (after - before, float((after - before).abs().max())),
        )
        for axis, (kernel, most) in zip(axes[:, column], rows, strict=True):
            axis.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-(most or 1.0), vmax=most or 1.0)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"±{most:.2g}", fontsize=6, labelpad=2)
        axes[0, column].set_title(shown(name).replace(" ", "\n"), fontsize=6)
    for axis, label in zip(axes[:, 0], ("baseline", "target", "change"), strict=True):
        axis.set_ylabel(label, fontsize="small")
    figure.suptitle(
        f"{title}; red above 0, blue below, each scale's largest value below it", fontsize="medium"
    )
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
        axis.stairs(heights, edges.tolist(), fill=True, color=(GRAY, "#444444")[n % 2])
    every = torch.cat(list(scores.values()))
    positive = every[every > 0]
    if len(positive) and bool((every >= 0).all()):
        axis.set_yscale("log")  # a channel without a score has no bar
        least, most = float(positive.min()), float(positive.max())
        axis.set_ylim(max(least, 1e-6 * most) / 2, 2 * most)
    else:  # contrasts are negative too
        axis.set_yscale("symlog", linthresh=float(every.abs().median()) or 1.0)
    axis.set_xticks(range(len(scores)), list(map(shown, scores)), rotation=90, fontsize="x-small")
    axis.set(ylabel="score of an output channel", xlim=(-1, len(scores)))
    axis.grid(alpha=0.3, axis="y")
    return figure


def matrix(
    values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str, labels: tuple[str, str]
) -> "Figure":
    """Draw shares [K, M] in [0, 1] as a matrix of percentages; NaN as a dash.

    `labels` say what a row and a column are.
    """
    side = 1.6 + 0.55 * max(len(rows), len(columns))
    figure, axes = new_figure(1, 1, max(side, 4.0), max(side - 0.4, 3.4))
    axis = axes[0, 0]
    axis.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=1)
    for n, row in enumerate(values.tolist()):
        for m, value in enumerate(row):
            colour = "white" if value > 0.6 else "black"
            text = "–" if math.isnan(value) else f"{100 * value:.0f}"
            axis.text(m, n, text, ha="center", va="center", color=colour, fontsize=8)
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
        axis.plot(range(len(layers)), chance, "k_", markersize=5, label="expected by chance")
        axis.set(title=f"{shown(name)}: {len(filters)} filters", ylabel="filters in layer")
        axis.set_xticks(range(len(layers)), [])
        axis.grid(alpha=0.3, axis="y")
    figure.legend(*common_legend(axes[:, 0]), fontsize="x-small", loc="outside upper right")
    axes[-1, 0].set_xticks(range(len(layers)), layers, rotation=90, fontsize="x-small")
    return figure
