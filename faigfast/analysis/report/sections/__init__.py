"""The sections of the full report: each runs one analysis and adds it to the page."""

from collections.abc import Callable

from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections.ability import (
    location_experiments,
    masking_by_method,
    masking_by_swap_unit,
    pair_quality,
    restored_photographs,
)
from faigfast.analysis.report.sections.filters import (
    channel_scores,
    filter_explorer,
    filter_layers,
    filter_overlaps,
)
from faigfast.analysis.report.sections.material import Material
from faigfast.analysis.report.sections.use import modulation, prediction, retraining

SECTIONS: dict[str, Callable[[Page, Material], None]] = {
    "the pair": pair_quality,
    "photographs": restored_photographs,
    "masking": masking_by_method,
    "units": masking_by_swap_unit,
    "locations": location_experiments,
    "modulation": modulation,
    "prediction": prediction,
    "retraining": retraining,
    "overlap": filter_overlaps,
    "distribution": filter_layers,
    "filters": filter_explorer,
    "pruning": channel_scores,
}
