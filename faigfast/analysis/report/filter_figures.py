"""Figures of the filters themselves: kernels, channels, layers, and what sets have in common."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.analysis.distribution import layer_numbers
from faigfast.analysis.report.drawing import (
    PAGE,
    add_letters,
    characters_per_inch,
    colours,
    new_figure,
    set_title,
    shortened,
    shown,
    small,
    wrapped,
)
from faigfast.analysis.report.marks import add_legend
from faigfast.analysis.report.palette import GRAY
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.result import Attribution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Inches.
KERNEL = 0.5  # width of a kernel with its label
LEAST_CELL, MOST_CELL = 0.21, 0.5  # of a matrix; smaller ones hold no number


def kernel_changes_figure(
    kernels: Sequence[tuple[str, Tensor, Tensor]], width: float = PAGE
) -> "Figure":
    """Draw kernels before and after, and their change, a column a kernel, numbered by rank.

    Baseline and target share a colour scale, the change has its own: a trained change is often a
    tenth of the kernel, or several times its size. The largest value of a scale is below each.
    """
    columns = max(1, min(len(kernels), int((width - 0.4) / KERNEL)))
    blocks = -(-len(kernels) // columns)
    columns = -(-len(kernels) // blocks)
    figure, axes = new_figure(3 * blocks, columns, width, 2.1 * blocks)
    for axis in axes.flat:
        axis.set_axis_off()
    for n, (_, before, after) in enumerate(kernels):
        both = float(torch.stack([before.abs().max(), after.abs().max()]).max())
        rows = (
            (before, both),
            (after, both),
            (after - before, float((after - before).abs().max())),
        )
        top, column = 3 * (n // columns), n % columns
        for axis, (kernel, most) in zip(axes[top : top + 3, column], rows, strict=True):
            axis.set_axis_on()
            axis.spines[:].set_visible(True)
            axis.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-(most or 1.0), vmax=most or 1.0)
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(f"±{most:.1g}", fontsize=small())
        axes[top, column].set_title(str(n + 1), loc="center")
    for axis, label in zip(axes[:, 0], blocks * ("baseline", "target", "change"), strict=True):
        axis.set_ylabel(label, fontsize=small())
    return figure


def channel_bars(scores: Mapping[str, Tensor], width: float = PAGE) -> "Figure":
    """Draw the scores of every layer's output channels, largest first, layers in order of depth.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Layer to [out channels], as `faigfast.analysis.pruning.channel_importance` gives them.
    width : float
        Of the figure, in inches.
    """
    figure, axes = new_figure(1, 1, width, 1.7 + _names_height(scores))
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
    _name_layers(axis, list(scores), width)
    axis.set(ylabel="score of an output channel", xlim=(-1, len(scores)))
    axis.grid(True, axis="y")
    return figure


def _names_height(layers: Iterable[str]) -> float:
    """Estimate the height in inches of the names that `_name_layers` writes."""
    return max(len(shortened(layer)) for layer in layers) / characters_per_inch()


def _name_layers(axis: Any, layers: Sequence[str], width: float) -> None:
    """Name as many layers below an axis as have room."""
    step = -(-len(layers) // int((width - 0.6) / 0.125))
    names = [shortened(shown(layer)) for layer in layers[::step]]
    axis.set_xticks(range(0, len(layers), step), names, rotation=90)


def matrix(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    labels: tuple[str, str],
    width: float = PAGE,
) -> "Figure":
    """Draw shares [K, M] in [0, 1] as a matrix of percentages; NaN as a dash.

    Cells without room for a number have a bar of colours beside them. `labels` say what a row and
    a column are.
    """
    per_inch = characters_per_inch()
    row_names, column_names = ([shortened(shown(n)) for n in names] for names in (rows, columns))
    beside, below = (max(map(len, names)) / per_inch for names in (row_names, column_names))
    cell = min(MOST_CELL, (width - beside - 0.5) / len(columns))
    numbered = cell >= LEAST_CELL
    height = cell * len(rows) + 0.75 * below + 0.6
    figure, axes = new_figure(1, 1, width, max(height, 1.6))
    axis = axes[0, 0]
    image = axis.imshow(values.numpy(), cmap="Blues", vmin=0, vmax=1)
    for n, row in enumerate(values.tolist()):
        for m, value in enumerate(row):
            if numbered or math.isnan(value):
                colour = "white" if value > 0.6 else "black"
                text = "–" if math.isnan(value) else f"{100 * value:.0f}"
                axis.text(
                    m, n, text, ha="center", va="center", color=colour, fontsize=small()
                )  # fmt: skip
    if not numbered:
        bar = figure.colorbar(image, ax=axis, shrink=0.8, ticks=[0, 0.5, 1])
        bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    axis.set_xticks(
        range(len(columns)), column_names, rotation=45, ha="right", rotation_mode="anchor"
    )
    axis.set_yticks(range(len(rows)), row_names)
    axis.spines[["top", "right"]].set_visible(True)
    axis.set(ylabel=wrapped(labels[0], max(height - 0.4, 1.0)), xlabel=labels[1])
    return figure


def layer_distribution(
    sets: Mapping[str, FilterSet], index: FilterIndex, width: float = PAGE
) -> "Figure":
    """Draw how many filters of each set lie in each layer, in order of depth, beside chance."""
    palette = colours(list(sets))
    layers = [layer.removesuffix(".weight") for layer in index.layers]
    sizes = layer_numbers(index).bincount(minlength=len(layers))
    height = 1.15 * len(sets) + _names_height(layers) + 0.2
    figure, axes = new_figure(len(sets), 1, width, height)
    for axis, (name, filters) in zip(axes[:, 0], sets.items(), strict=True):
        counts = layer_numbers(index)[filters.indices].bincount(minlength=len(layers))
        axis.bar(range(len(layers)), counts.tolist(), color=palette[name])
        chance = (sizes * (len(filters) / len(index))).tolist()
        axis.plot(range(len(layers)), chance, "k_", markersize=4, label="expected by chance")
        set_title(axis, f"{shown(name)}: {len(filters)} filters")
        axis.set_xticks(range(len(layers)), [])
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.grid(True, axis="y")
    add_letters(axes[:, 0])
    figure.supylabel("filters in the layer", fontsize=axes[0, 0].yaxis.label.get_fontsize())
    add_legend(figure, axes[:, 0])
    _name_layers(axes[-1, 0], layers, width)
    return figure


def line_figure(result: Attribution, width: float = PAGE) -> "Figure":
    """Draw the mean loss of every degradation along the line from baseline to target."""
    figure, axes = new_figure(1, 1, width, 2.2)
    result.plot("line", ax=axes[0, 0])
    return figure
