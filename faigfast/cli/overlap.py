"""`faigfast overlap`: the filters of several degradations and levels, compared."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.contrasts import (
    has_levels,
    levels,
    negatives,
    one_against_rest,
    overlap,
    overlap_data_frame,
    refuse_negatives_alone,
    without_subtraction,
)
from faigfast.analysis.report.captioned import overlap_figure
from faigfast.cli.remarks import describe_attributed
from faigfast.cli.study import open_study, publish
from faigfast.io.lock import alone_in

OWN_SCORES = (
    "Each degradation by its own scores, nothing subtracted: contrasts against all others are "
    "biased towards each other's negatives. --contrast compares contrasts."
)


def run(options: Any, words: Sequence[str]) -> None:
    """Compare the sets of all contrasts, and the levels if there are any."""
    study = open_study(options)
    if len(study.contrasts) < 2:
        raise ValueError(f"contrasts are {study.contrasts[0].name}; expected two to be compared")
    alone = study.contrasts == one_against_rest(tuple(study.measured.lq))
    if not alone:
        refuse_negatives_alone(study.contrasts, tuple(study.measured.lq))
    with alone_in(options.output):
        result = study.attribution()
        contrasts, remarks = study.contrasts, []
        if alone:
            contrasts = without_subtraction(result.degradations)
            remarks = [OWN_SCORES]
        sets = {contrast.name: contrast.top(result, options.fraction) for contrast in contrasts}
        scores = {contrast.name: contrast.scores(result) for contrast in contrasts}
        if left_out := negatives(scores):
            pairs = ", ".join(f"{one} and {other}" for one, other in left_out)
            remarks.append(f"Left out, since one is the other's negative by construction: {pairs}.")
        names = list(sets)
        data_frames = {"overlap": overlap_data_frame(sets, scores)}
        if has_levels(result.degradations):
            data_frames["levels"] = levels(result, options.fraction)
        remarks.append(describe_attributed(study))
        shares = overlap(sets)
        figures = {"overlap": overlap_figure(shares, names, options.fraction, remarks[-1])}
        publish(options, words, "overlap", data_frames, figures, remarks)
