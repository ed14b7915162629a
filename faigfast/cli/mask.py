"""`faigfast mask`: what a pair loses when discovered filters go back to the baseline's."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.baselines import METHODS
from faigfast.analysis.data_frames import frame
from faigfast.analysis.masking import mask, mask_sets
from faigfast.analysis.report.figures import rival_curves
from faigfast.analysis.report.tables import (
    area_sentences,
    areas,
    completeness_rows,
    masked_networks,
    masked_sets,
)
from faigfast.cli.run_folder import alone_in
from faigfast.cli.study import (
    check_shares,
    describe,
    describe_measured,
    measured_alone,
    open_pair,
    open_study,
    publish,
    read_sets,
)


def run(options: Any, words: Sequence[str]) -> None:
    """Rank by every method, mask, measure; or measure sets out of files."""
    if unknown := [name for name in options.methods if name not in METHODS]:
        raise ValueError(f"methods hold {unknown[0]!r}; expected some of {', '.join(METHODS)}")
    check_shares(options.fractions)
    pair = open_pair(options)
    sets = read_sets(options.sets or (), pair)
    if sets:
        options = measured_alone(options, "sets")
    study = open_study(options, pair=pair, metrics=options.metrics)
    with alone_in(options.output):
        common = {
            "border": study.border,
            "metrics": options.metrics,
            "store": study.store,
            "progress": study.progress,
        }
        if sets:
            values = mask_sets(study.baseline, study.target, sets, study.kept, **common)
            publish(
                options,
                words,
                "mask",
                {"sets": masked_sets(values)},
                {},
                [describe_measured(study)],
            )
            return
        results = {method: study.attribution(method) for method in options.methods}
        masking = mask(
            study.baseline,
            study.target,
            results,
            study.kept,
            fractions=options.fractions,
            contrasts=study.contrasts,
            by=options.by,
            **common,
        )
        tables = {"masking": masked_networks(masking), "masking areas": areas(masking)}
        said = []
        if "faig" in results:
            said = area_sentences(masking)
            tables["completeness"] = frame(completeness_rows(results["faig"]))
        figures = {"masking curves": rival_curves(masking)}
        publish(options, words, "mask", tables, figures, [*said, describe(study)])
