"""The sections of the whole report: each computes one finding and sets it on the page."""

from collections.abc import Callable

from faigfast.findings.report import Page
from faigfast.findings.sections.ability import photographs, places, quality, rivals, units
from faigfast.findings.sections.filters import layers, overlaps, pruning
from faigfast.findings.sections.material import Material
from faigfast.findings.sections.use import modulation, prediction, retraining

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
