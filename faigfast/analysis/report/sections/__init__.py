"""The sections of the whole report: each computes one finding and sets it on the page."""

from collections.abc import Callable

from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections.ability import photographs, places, quality, rivals, units
from faigfast.analysis.report.sections.filters import layers, overlaps, pruning
from faigfast.analysis.report.sections.material import Material
from faigfast.analysis.report.sections.use import modulation, prediction, retraining

SECTIONS: dict[str, Callable[[Page, Material], None]] = {
    "the pair": quality,
    "photographs": photographs,
    "masking": rivals,
    "units": units,
    "locations": places,
    "modulation": modulation,
    "prediction": prediction,
    "retraining": retraining,
    "overlap": overlaps,
    "distribution": layers,
    "pruning": pruning,
}
