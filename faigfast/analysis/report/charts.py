"""Charts of the page: data and labels, which `assets/charts.js` draws with Observable Plot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.report.drawing import shown

DEGRADATION_COLOURS = 7  # --degradation-1 … in page.css
RIVAL_COLOURS = 7  # --rival-1 …
INK, GRAY, CONTROL = "var(--ink)", "var(--gray)", "var(--control)"
DASHED = "4 3"


@dataclass(frozen=True)
class Series:
    """Look of one curve.

    Parameters
    ----------
    name : str
        Name in the legend and in the CSV.
    colour : str
        A colour of CSS, by a variable that differs between light and dark.
    dash : str
        Dash pattern of SVG; empty: a solid line.
    width : float
        Width of the line in pixels.
    """

    name: str
    colour: str
    dash: str = ""
    width: float = 1.6


@dataclass(frozen=True)
class Panel:
    """One coordinate system of a chart.

    Parameters
    ----------
    title : str
        Above the panel.
    rows : list of dict
        The data, one row a mark; also the rows of the CSV.
    lines : list of dict
        Reference lines: "at" and "label".
    domain : tuple of float, optional
        Limits of the values, where marks outside are cut and named; None: all of them.
    note : str
        Below the panel, such as what is cut.
    """

    title: str
    rows: list[dict[str, Any]]
    lines: list[dict[str, Any]] = field(default_factory=list)
    domain: tuple[float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart of one or more panels.

    Parameters
    ----------
    kind : {"curves", "bars", "layers", "matrix", "channels"}
        Which function of `assets/charts.js` draws it.
    name : str
        Stem of the downloaded files.
    title : str
        Caption.
    description : str
        One sentence for readers who do not see the chart.
    panels : sequence of Panel
        Drawn side by side.
    x, y : str
        Labels of the axes, with units.
    series : sequence of Series
        Legend of curves.
    logarithmic : sequence of str
        Axes ("x", "y") with a switch to a logarithmic scale.
    """

    kind: str
    name: str
    title: str
    description: str
    panels: Sequence[Panel]
    x: str = ""
    y: str = ""
    series: Sequence[Series] = ()
    logarithmic: Sequence[str] = ()

    def content(self) -> dict[str, Any]:
        """Give everything that the script needs, as JSON: no NaN, no infinity."""
        panels = [vars(panel) | {"title": shown(panel.title)} for panel in self.panels]
        series = [vars(one) for one in self.series]
        return json_values(vars(self) | {"panels": panels, "series": series})


def json_values(value: Any) -> Any:
    """Replace every number without a value by None, in dicts and sequences too."""
    if isinstance(value, Mapping):
        return {key: json_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def degradation_series(names: Sequence[str]) -> dict[str, Series]:
    """Give each degradation a colour that no method and no layer has."""
    return {
        name: Series(shown(name), f"var(--degradation-{n % DEGRADATION_COLOURS + 1})")
        for n, name in enumerate(names)
    }


def method_series(methods: Sequence[str]) -> list[Series]:
    """Draw FAIG as a thick line, the random controls gray, and every rival in its own colour."""
    rivals = [name for name in methods if name not in ("faig", "random", SAME_LAYERS)]
    looks = {
        "faig": Series("faig", INK, width=2.8),
        "random": Series("random", CONTROL, "1 3"),
        SAME_LAYERS: Series(SAME_LAYERS, GRAY, DASHED, 2.2),
    }
    return [
        looks.get(name) or Series(name, f"var(--rival-{rivals.index(name) % RIVAL_COLOURS + 1})")
        for name in methods
    ]


def matrix_chart(
    name: str, values: Tensor, rows: Sequence[str], columns: Sequence[str], title: str,
    labels: tuple[str, str],
) -> Chart:  # fmt: skip
    """Show shares [K, M] in [0, 1] as a heat map of percentages; NaN is left open.

    `labels` say what a row and a column are.
    """
    cells = [
        {"row": shown(row), "column": shown(column), "percent": 100 * value}
        for row, values_of_row in zip(rows, values.tolist(), strict=True)
        for column, value in zip(columns, values_of_row, strict=True)
    ]
    described = f"{title}. A row is {labels[0]}, a column is {labels[1]}."
    return Chart("matrix", name, title, described, [Panel("", cells)], y=labels[0], x=labels[1])
