"""What the sections of the whole report are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.data.degradations import Degradation
from faigfast.filters import FilterSet
from faigfast.findings.evaluation import Crops
from faigfast.findings.figures import (
    svg,
)
from faigfast.findings.frames import shown, write_table
from faigfast.findings.report import Page
from faigfast.findings.study import Study
from faigfast.result import Attribution
from faigfast.training import Schedule

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


PATCH = 24  # side of a low-resolution patch of retraining
RETRAINING = "retraining"  # folder of its states


@dataclass(frozen=True)
class Material:
    """What the report is made from.

    Parameters
    ----------
    study : Study
        Pair, crops, contrasts, store.
    folder : pathlib.Path
        Receives tables and states of retraining.
    commands : mapping of str to str
        Section to the command that gives its numbers.
    labels : Crops
        Crops to predict, degraded in many ways and levels.
    compared : Crops
        Crops to compare the filters of many degradations on.
    recipes : mapping of str to Degradation
        Of the study's degradations; empty where these come from folders.
    lessons : Crops, optional
        Of other photographs, under the same labels.
    training : mapping of str to Tensor
        Photographs to retrain on; none: no retraining.
    schedule : Schedule
        Of the retraining.
    fraction : float
        Share of the filters in most sections.
    retrained : float
        Share of the filters that are modulated and retrained.
    overwrite : bool
        Retrain anew what earlier runs left.
    """

    study: Study
    folder: Path
    commands: Mapping[str, str]
    labels: Crops
    compared: Crops
    recipes: Mapping[str, Degradation] = field(default_factory=dict)
    lessons: Crops | None = None
    training: Mapping[str, Tensor] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=lambda: Schedule(150, 2e-3, 8))
    fraction: float = 0.01
    retrained: float = 0.05
    overwrite: bool = False

    @cached_property
    def result(self) -> Attribution:
        """FAIG of the study's attributed crops."""
        return self.study.attribution()

    @cached_property
    def tops(self) -> dict[str, FilterSet]:
        """Best filters of each contrast."""
        return self.study.tops(self.fraction)

    def put(self, page: Page, name: str, table: "pandas.DataFrame", folded: str = "") -> None:
        """Set a table on the page and write it beside."""
        page.table(*shown(table), folded=folded)
        write_table(self.folder / name, table)

    def draw(self, page: Page, figure: "Figure") -> None:
        """Set a figure on the page."""
        page.figure(svg(figure))
