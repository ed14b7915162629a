"""Marks in figures: crosses on broken networks, and one legend for several panels."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.masking import Masking, Measurement
from faigfast.analysis.report.drawing import characters_per_inch, wrapped
from faigfast.analysis.undone import BROKEN

RED = "#CC0000"


def mark_broken(
    axis: Any,
    masking: Masking,
    points: Sequence[Measurement],
    degradation: str,
    heights: Sequence[float],
) -> None:
    """Cross out the points of a curve whose networks are worse than both baseline and target."""
    places = [
        (100 * m.share, height)
        for m, height in zip(points, heights, strict=True)
        if masking.outcome(m, degradation).outcome == BROKEN
    ]
    if places:
        axis.plot(*zip(*places, strict=True), "x", color=RED, markersize=6, label=BROKEN, zorder=5)


def add_legend(figure: Any, axes: Sequence[Any]) -> None:
    """Put one legend below all panels, each label once, and make the figure higher for it."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    width = figure.get_figwidth()
    labels = [wrapped(label, width - 0.6) for label in handles]
    columns = max((n for n in range(1, len(labels) + 1) if _width(labels, n) <= width), default=1)
    rows = -(-len(labels) // columns) + sum(label.count("\n") for label in labels)
    figure.set_figheight(figure.get_figheight() + 0.14 * rows + 0.08)
    figure.legend(list(handles.values()), labels, ncols=columns, loc="outside lower center")


def _width(labels: Sequence[str], columns: int) -> float:
    """Estimate the width in inches of a legend, which is filled column by column."""
    total, rest = 0.0, list(labels)
    for n in range(columns, 0, -1):
        height = -(-len(rest) // n)
        longest = max(len(line) for label in rest[:height] for line in label.split("\n"))
        total, rest = total + 0.45 + longest / (1.1 * characters_per_inch()), rest[height:]
    return total
