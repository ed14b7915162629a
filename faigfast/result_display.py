"""An attribution as text and as HTML: how it was computed, its accuracy and its top layers."""

import math
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.filters.layer_counts import layers_in_words
from faigfast.integration.cautions import cautions, median_barriers
from faigfast.io.text_table import counted
from faigfast.result_errors import contrast_error, errors_in_words

if TYPE_CHECKING:
    from faigfast.result import Attribution

TOP_PERCENT = 1  # share of the filters whose layers are named


def as_text(result: "Attribution") -> str:
    """Write settings and worst errors in one line, then the top layers of each degradation."""
    accuracy = f"worst completeness error {float(result.completeness.max()):.1e}"
    known = result.error[result.error.isfinite()]
    if len(known):
        accuracy += f", worst estimated error {float(known.max()):.1e}"
    head = (
        f"Attribution({', '.join(result.degradations)}: {counted(result.images, 'image')}, "
        f"{counted(len(result.index), 'filter')}; {result.sampling}, {result.backend} "
        f"{result.precision}; {accuracy})"
    )
    best = (f"  {_best(result)} for {n}: {_top_layers(result, n)}" for n in result.degradations)
    badges = [caution.badge for caution in cautions(result)]
    tail = [f"  {errors}"] if (errors := errors_in_words(result)) else []
    tail += ["  caution: " + "; ".join(badges)] if badges else []
    return "\n".join([head, *best, *tail])


def sampling(result: "Attribution") -> str:
    """Write rule, tolerance and points in words."""
    settings = result.setting
    least, most = int(result.points.min()), int(result.points.max())
    points = counted(most, "point") if least == most else f"{least} to {most} points"
    if settings.tol is not None:
        return f"{settings.rule} to tol {settings.tol:g}, {points}"
    goals = {"tol_contrast": settings.tol_contrast, "overlap": settings.overlap}
    given = [f"{name} {value:g}" for name, value in goals.items() if value is not None]
    if given:
        return f"{settings.rule} to {' and '.join(given)}, {points}"
    emulated = f" {settings.steps} emulated" if settings.emulate else ""
    return f"{settings.rule}{emulated}, {points}"


def as_html(result: "Attribution") -> str:
    """Write the same as a table with a row a degradation, and the notes below it."""
    start, end = result.losses.mean(1).unbind(1)  # [D]
    barriers = median_barriers(result)
    columns = (
        "degradation", "mean loss of baseline", "mean loss of target", "median barrier",
        "worst completeness error", "worst estimated error", "error of contrast: points",
        "photographs", f"layers of the {_best(result)}",
    )  # fmt: skip
    rows = []
    for n, name in enumerate(result.degradations):
        error = contrast_error(result, name)
        numbers = (
            start[n], end[n], barriers[name], _worst(result.completeness[n]),
            _worst(result.error[n]), error.points, error.images,
        )  # fmt: skip
        rows.append([name, *(_number(float(x)) for x in numbers), _top_layers(result, name)])
    summary = (
        f"{counted(result.images, 'image')}, {counted(len(result.index), 'filter')}; "
        f"{result.sampling}, {result.backend} {result.precision}"
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in result.notes)
    folded = f"<details><summary>{counted(len(result.notes), 'note')}</summary><ul>{notes}</ul>"
    return (
        f"<div><p><strong>Attribution</strong>: {escape(summary)}</p>"
        f"<table><thead>{_row(columns, 'th')}</thead>"
        f"<tbody>{''.join(_row(row, 'td') for row in rows)}</tbody></table>"
        + (f"{folded}</details>" if notes else "")
        + "</div>"
    )


def _best(result: "Attribution") -> str:
    return counted(_best_count(result), "best filter")


def _best_count(result: "Attribution") -> int:
    return min(max(1, len(result.index) * TOP_PERCENT // 100), int(result.scored.sum()))


def _top_layers(result: "Attribution", name: str) -> str:
    try:
        best = result.ranking(name).indices[: _best_count(result)]
    except ValueError:  # scores or contrasts are exactly 0
        return "cannot be ranked"
    return layers_in_words(best, result.index)


def _worst(values: Tensor) -> float:
    known = values[values.isfinite()]
    return float(known.max()) if len(known) else math.nan


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "–"


def _row(cells: Iterable[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
