"""Material of the full report: everything that its sections need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import csv_text, text_table, write_data_frame
from faigfast.analysis.evaluation import Crops, evaluate
from faigfast.analysis.report.drawing import data_uri, middle
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.paper import FigureFiles, PaperFigure
from faigfast.analysis.report.scenes import Scene
from faigfast.analysis.study import Study
from faigfast.data.degradations import Degradation
from faigfast.filters.filter_set import FilterSet
from faigfast.result import Attribution
from faigfast.training.trainer import Schedule

if TYPE_CHECKING:
    import pandas

PATCH = 24  # side of a low-resolution patch of retraining
FIGURES = "figures"  # folder of the figures for papers
RETRAINING = "retraining"  # folder of the training states
# Limits that keep a page small: pictures of noise do not compress.
SHOWN_CONTRASTS = 3
SHOWN_PHOTOGRAPHS = 3
IMAGE_BYTES = 5_500_000  # of all images of a page, as text
IMAGES_OF_A_SCENE, IMAGES_OF_A_DIAL, IMAGES_OF_A_GRID = 8, 7, 16  # the strip is a scene too
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
    figures : FigureFiles, optional
        Figures for papers in the folder `figures`; None: none.
    about : str
        Attributed and measured crops, for captions.
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
    figures: FigureFiles | None = None
    about: str = ""
    files: list[str] = field(default_factory=list)  # written so far, beside the page
    scenes: dict[str, Scene] = field(default_factory=dict)  # contrast → its first scene

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

    @cached_property
    def pair_psnr(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """PSNR [N] in dB of baseline and target by degradation, of the measured crops."""
        study = self.study
        base, full = (
            evaluate(network, study.measured, border=study.border)
            for network in (study.baseline, study.target)
        )
        return base, full

    def gain(self, degradation: str) -> Tensor:
        """PSNR [N] of the target over the baseline, in dB."""
        base, full = self.pair_psnr
        return full[degradation] - base[degradation]

    @property
    def shown_side(self) -> int:
        """Largest side of an image in pixels, even, so that all images fit into `IMAGE_BYTES`."""
        images = len(self.shown) * (SHOWN_PHOTOGRAPHS * IMAGES_OF_A_SCENE + IMAGES_OF_A_DIAL)
        images += IMAGES_OF_A_GRID + IMAGES_OF_A_SCENE
        pixels = IMAGE_BYTES / images / (3 * 4 / 3)  # three bytes a pixel, as base64
        return int(pixels**0.5) // 2 * 2

    def say_shown(self, page: Page) -> None:
        """Say which contrasts have no images, and whether images are cut."""
        rest = self.study.contrasts[SHOWN_CONTRASTS:]
        if rest:
            page.text(
                f"Images of the first {SHOWN_CONTRASTS} contrasts alone, to keep the page small; "
                f"not shown: {', '.join(contrast.name for contrast in rest)}.",
                note=True,
            )
        side, shown = self.study.measured.gt.shape[-1], self.shown_side
        if side > shown:
            page.text(
                f"Shown are the middle {shown}×{shown} pixels of crops of {side}×{side}.",
                note=True,
            )

    def put(self, page: Page, name: str, data: "pandas.DataFrame", summary: str = "") -> None:
        """Put a table on the page, at most `SHOWN_ROWS` rows, and write all rows to files."""
        head, rows = text_table(data)
        page.table(head, rows[:SHOWN_ROWS], summary=summary, name=name, csv=csv_text(data))
        if len(rows) > SHOWN_ROWS:
            page.text(
                f"The first {SHOWN_ROWS} of {len(rows)} rows; all are in {name}.csv.", note=True
            )
        self.files.extend(write_data_frame(self.folder / name, data))

    def draw(self, name: str, figure: PaperFigure) -> None:
        """Write a figure for papers, if figures are wanted."""
        if self.figures is not None:
            written = self.figures.write(self.folder / FIGURES, name, figure)
            self.files.extend(f"{FIGURES}/{file}" for file in written)

    def picture(self, image: Tensor) -> str:
        """Give the data URI of an image [3, H, W], cut to `shown_side`."""
        return data_uri(middle(image, self.shown_side))

    @property
    def picture_side(self) -> int:
        """Side of the images that `picture` gives."""
        return min(self.shown_side, self.study.measured.gt.shape[-2])
