"""Marks in figures: crosses on broken networks, and one legend for several panels."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.masking import Masking, Measurement
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
        axis.plot(*zip(*places, strict=True), "x", color=RED, markersize=9, label=BROKEN, zorder=5)


def common_legend(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Give the handles and labels of all panels, each label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    return list(handles.values()), list(handles)
