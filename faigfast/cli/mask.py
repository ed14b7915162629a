"""`faigfast mask`: the loss of a pair when discovered filters go back to the baseline's."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.baselines import METHODS, WEIGHT_METHODS
from faigfast.analysis.masking import mask, mask_sets
from faigfast.analysis.report.captioned import masking_figure
from faigfast.analysis.report.tables import (
    area_sentences,
    areas,
    completeness,
    masked_networks,
    masked_sets,
)
from faigfast.analysis.swapped_networks import BIASES, about_biases
from faigfast.analysis.undone import MEANING
from faigfast.cli.estimate import announce_mask
from faigfast.cli.remarks import describe, describe_measured
from faigfast.cli.study import (
    check_shares,
    measured_alone,
    open_pair,
    open_study,
    publish,
    read_sets,
)
from faigfast.io.lock import alone_in


def run(options: Any, words: Sequence[str]) -> None:
    """Rank by every method, mask and measure; or measure the sets of files."""
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
            "biases": options.biases,
            "finished_parts": study.finished_parts,
            "progress": study.progress,
        }
        if sets:
            values = mask_sets(study.baseline, study.target, sets, study.measured, **common)
            publish(
                options,
                words,
                "mask",
                {"sets": masked_sets(values)},
                {},
                [
                    *([about_biases(study.target, sets)] if options.biases else []),
                    MEANING,
                    describe_measured(study),
                ],
            )
            return
        announce_mask(study, options)
        results = {method: study.attribution(method) for method in options.methods}
        masking = mask(
            study.baseline,
            study.target,
            results,
            study.measured,
            fractions=options.fractions,
            contrasts=study.contrasts,
            by=options.by,
            **common,
        )
        data_frames = {"masking": masked_networks(masking), "masking areas": areas(masking)}
        sentences = [MEANING]
        if options.biases:
            moved = any(m.biases for m in masking.masked)
            rest = "the column bias_count counts them" if moved else "no set holds all of a channel"
            sentences.append(f"{BIASES}: {rest}.")
        if "faig" in results:
            sentences = [*area_sentences(masking), *sentences]
            data_frames["completeness"] = completeness(results["faig"])
        rivals = any(name != "faig" and name not in WEIGHT_METHODS for name in options.methods)
        described = describe(study, rivals)
        figures = {"masking curves": masking_figure(masking, described)}
        publish(options, words, "mask", data_frames, figures, [*sentences, described])
