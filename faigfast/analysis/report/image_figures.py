"""Figures of restored images: rows with captions, and grids over two strengths."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.analysis.report.drawing import (
    PAGE,
    add_letters,
    new_figure,
    panels,
    set_title,
    shown,
    small,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_IMAGE, MOST_IMAGE = 0.78, 1.6  # inches: width of an image with its caption
HIGHEST_GRID = 4.0  # inches
GAP = 2  # pixels between the images of a grid


def side_by_side(rows: Sequence[dict[str, Tensor]], width: float = PAGE) -> "Figure":
    """Set images [3, H, W] with captions in rows of equal length, broken where they are too wide.

    Letters are the rows'.
    """
    in_row = len(rows[0])
    columns = max(1, min(in_row, int(width / LEAST_IMAGE)))
    lines = -(-in_row // columns)
    columns = -(-in_row // lines)
    room = (width - 0.2) / columns - 0.06
    captions = [[wrapped(shown(caption), room) for caption in images] for images in rows]
    text_lines = max(text.count("\n") + 1 for texts in captions for text in texts)
    first = next(iter(rows[0].values()))
    side = min(room, MOST_IMAGE) * first.shape[-2] / first.shape[-1]
    height = len(rows) * lines * (side + 0.12 * text_lines + 0.1)
    figure, axes = new_figure(len(rows) * lines, columns, width, height)
    for axis in axes.flat:
        axis.set_axis_off()
    for r, (texts, images) in enumerate(zip(captions, rows, strict=True)):
        for n, (text, image) in enumerate(zip(texts, images.values(), strict=True)):
            axis = axes[r * lines + n // columns, n % columns]
            axis.imshow(_pixels(image), interpolation="nearest")
            axis.set_title(text, loc="center", fontsize=small())
    add_letters([axes[r * lines, 0] for r in range(len(rows))])
    return figure


def strength_grid(
    images: dict[str, list[list[Tensor]]],
    strengths: Sequence[float],
    names: tuple[str, str],
    width: float = PAGE,
) -> "Figure":
    """Draw images at all pairs of two strengths, a panel an input.

    Parameters
    ----------
    images : dict of str to list of list of Tensor
        [3, H, W] by input, by strength of the first filters (down) and of the second (across).
    strengths : sequence of float
        In the order of the images.
    names : tuple of str
        Of the two sets of filters.
    width : float
        Of the figure, in inches.
    """
    columns = max(1, min(len(images), int(width / 3.2)))
    height = min(width / columns, HIGHEST_GRID)
    figure, axes = panels(len(images), width, height, least=3.2)
    for axis, (name, by_strength) in zip(axes, images.items(), strict=True):
        height, across = by_strength[0][0].shape[-2:]
        rows = [torch.cat([_framed(image) for image in row], 2) for row in by_strength]
        axis.imshow(_pixels(torch.cat(rows, 1)), interpolation="nearest")
        labels = [f"{strength:g}" for strength in strengths]
        places = torch.arange(len(labels))
        axis.set_xticks((places * (across + GAP) + across / 2).tolist(), labels)
        axis.set_yticks((places * (height + GAP) + height / 2).tolist(), labels)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        set_title(axis, f"input: {shown(name)}")
        axis.set(
            xlabel=f"strength of {shown(names[1])} filters",
            ylabel=f"strength of {shown(names[0])} filters",
        )
    return figure


def _pixels(image: Tensor) -> Any:
    """Give an image [C, H, W] as an array [H, W, 3]; gray ones have no colours of a map."""
    return image.expand(3, -1, -1).permute(1, 2, 0).clamp(0, 1).numpy()


def _framed(image: Tensor) -> Tensor:
    """Add a white gap below an image [C, H, W] and right of it."""
    return torch.nn.functional.pad(image, (0, GAP, 0, GAP), value=1.0)
