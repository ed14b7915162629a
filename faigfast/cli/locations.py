"""`faigfast locations`: whether weights, locations and connections of discovered filters matter."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.locations import EXPERIMENTS, locations, locations_data_frame
from faigfast.analysis.report.captioned import location_figure
from faigfast.cli.remarks import describe
from faigfast.cli.study import open_study, publish
from faigfast.io.lock import alone_in


def run(options: Any, words: Sequence[str]) -> None:
    """Run every experiment for every contrast."""
    if options.draws < 1:
        raise ValueError(f"draws is {options.draws}; expected a positive integer")
    study = open_study(options)
    with alone_in(options.output):
        parts = locations(
            study.baseline,
            study.target,
            study.tops(options.fraction),
            {contrast.name: contrast.degradation for contrast in study.contrasts},
            study.measured,
            border=study.border,
            draws=options.draws,
            finished_parts=study.finished_parts,
            progress=study.progress,
        )
        legend = [f"{name}: {text}." for name, (text, _) in EXPERIMENTS.items()]
        publish(
            options,
            words,
            "locations",
            {"locations": locations_data_frame(parts)},
            {"locations": location_figure(parts, describe(study))},
            [*legend, describe(study)],
        )
