"""Material of the full report: everything that its sections need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import text_table, write_data_frame
from faigfast.analysis.evaluation import Crops
from faigfast.analysis.report.figures import data_uri, middle, svg
from faigfast.analysis.report.page import Page
from faigfast.analysis.study import Study
from faigfast.data.degradations import Degradation
from faigfast.filters.filter_set import FilterSet
from faigfast.result import Attribution
from faigfast.training.trainer import Schedule

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


PATCH = 24  # side of a low-resolution patch of retraining
RETRAINING = "retraining"  # folder of the training states
# Limits that keep a page small: pictures of noise do not compress.
SHOWN_CONTRASTS = 3
SHOWN_SIDE = 128
SHOWN_ROWS = 1000


@dataclass(frozen=True)
class Material:
    """Study, crops and options of a report.

    Parameters
    ----------
    study : Study
        Pair, crops, contrasts, finished parts.
    folder : pathlib.Path
        Receives tables and states of retraining.
    commands : mapping of str to str
        Section to the command that gives its numbers.
    predicted_crops : Crops
        Crops to predict, degraded in many ways and levels.
    compared_crops : Crops
        Crops to compare the filters of many degradations on.
    recipes : mapping of str to Degradation
        Recipes of the study's degradations; empty where degraded images come from folders.
    teaching_crops : Crops, optional
        Crops of other photographs to learn from, under the same labels.
    training_photographs : mapping of str to Tensor
        Photographs to retrain on; empty: no retraining.
    schedule : Schedule
        Schedule of the retraining.
    fraction : float
        Share of the filters in most sections.
    retrained_fraction : float
        Share of the filters in modulation and retraining.
    overwrite : bool
        Discard the training states of earlier runs.
    """

    study: Study
    folder: Path
    commands: Mapping[str, str]
    predicted_crops: Crops
    compared_crops: Crops
    recipes: Mapping[str, Degradation] = field(default_factory=dict)
    teaching_crops: Crops | None = None
    training_photographs: Mapping[str, Tensor] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=lambda: Schedule(150, 2e-3, 8))
    fraction: float = 0.01
    retrained_fraction: float = 0.05
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
        """Contrasts with images on the page."""
        return self.study.contrasts[:SHOWN_CONTRASTS]

    def say_shown(self, page: Page) -> None:
        """Say which contrasts have no images, and whether images are cut."""
        rest = self.study.contrasts[SHOWN_CONTRASTS:]
        if rest:
            page.text(
                f"Images of the first {SHOWN_CONTRASTS} contrasts alone, to keep the page small; "
                f"not shown: {', '.join(contrast.name for contrast in rest)}.",
                note=True,
            )
        side = self.study.measured.gt.shape[-1]
        if side > SHOWN_SIDE:
            page.text(
                f"Shown are the middle {SHOWN_SIDE}×{SHOWN_SIDE} pixels of crops of {side}×{side}.",
                note=True,
            )

    def put(self, page: Page, name: str, data: "pandas.DataFrame", summary: str = "") -> None:
        """Put a table on the page, at most `SHOWN_ROWS` rows, and write all rows to files."""
        page.table(*text_table(data.head(SHOWN_ROWS)), summary=summary)
        if len(data) > SHOWN_ROWS:
            page.text(
                f"The first {SHOWN_ROWS} of {len(data)} rows; all are in {name}.csv.", note=True
            )
        self.files.extend(write_data_frame(self.folder / name, data))

    def draw(self, page: Page, figure: "Figure") -> None:
        """Put a figure on the page."""
        page.figure(svg(figure))

    def picture(self, image: Tensor) -> str:
        """Give the data URI of an image [3, H, W], cut to `SHOWN_SIDE`."""
        return data_uri(middle(image, SHOWN_SIDE))
