"""What the sections of the whole report are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import shown, write_table
from faigfast.analysis.evaluation import Crops
from faigfast.analysis.report.figures import data_uri, middle, svg
from faigfast.analysis.report.page import Page
from faigfast.analysis.study import Study
from faigfast.data.degradations import Degradation
from faigfast.filters.filter_set import FilterSet
from faigfast.result import Attribution
from faigfast.training.train import Schedule

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


PATCH = 24  # side of a low-resolution patch of retraining
RETRAINING = "retraining"  # folder of its states
# What a page shows at most, so that it stays small: pictures of noise do not compress.
SHOWN_CONTRASTS = 3
SHOWN_SIDE = 128
SHOWN_ROWS = 1000


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
    files: list[str] = field(default_factory=list)  # written so far, beside the page

    @cached_property
    def result(self) -> Attribution:
        """FAIG of the study's attributed crops."""
        return self.study.attribution()

    @cached_property
    def tops(self) -> dict[str, FilterSet]:
        """Best filters of each contrast."""
        return self.study.tops(self.fraction)

    @property
    def shown(self) -> tuple[Contrast, ...]:
        """Contrasts of which images are shown."""
        return self.study.contrasts[:SHOWN_CONTRASTS]

    def say_shown(self, page: Page) -> None:
        """Say it where not all contrasts are shown, and where images are cut."""
        rest = self.study.contrasts[SHOWN_CONTRASTS:]
        if rest:
            page.text(
                f"Images of the first {SHOWN_CONTRASTS} contrasts alone, to keep the page small; "
                f"not shown: {', '.join(contrast.name for contrast in rest)}.",
                note=True,
            )
        side = self.study.kept.gt.shape[-1]
        if side > SHOWN_SIDE:
            page.text(
                f"Shown are the middle {SHOWN_SIDE}×{SHOWN_SIDE} pixels of crops of {side}×{side}.",
                note=True,
            )

    def put(self, page: Page, name: str, table: "pandas.DataFrame", folded: str = "") -> None:
        """Set a table on the page, a very long one in part, and write it whole beside."""
        page.table(*shown(table.head(SHOWN_ROWS)), folded=folded)
        if len(table) > SHOWN_ROWS:
            page.text(
                f"The first {SHOWN_ROWS} of {len(table)} rows; all are in {name}.csv.", note=True
            )
        self.files.extend(write_table(self.folder / name, table))

    def draw(self, page: Page, figure: "Figure") -> None:
        """Set a figure on the page."""
        page.figure(svg(figure))

    def picture(self, image: Tensor) -> str:
        """Give the address of an image [3, H, W], cut to what is shown."""
        return data_uri(middle(image, SHOWN_SIDE))
