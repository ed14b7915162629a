"""`faigfast overlap`: the filters of several degradations and levels, compared."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.contrasts import has_levels, levels, overlap, overlap_data_frame
from faigfast.analysis.report.figures import matrix
from faigfast.cli.study import describe_attributed, open_study, publish
from faigfast.io.lock import alone_in


def run(options: Any, words: Sequence[str]) -> None:
    """Compare the sets of all contrasts, and the levels if there are any."""
    study = open_study(options)
    if len(study.contrasts) < 2:
        raise ValueError(f"contrasts are {study.contrasts[0].name}; expected two to be compared")
    with alone_in(options.output):
        result = study.attribution()
        sets = study.tops(options.fraction)
        scores = {contrast.name: contrast.scores(result) for contrast in study.contrasts}
        names = list(sets)
        data_frames = {"overlap": overlap_data_frame(sets, scores)}
        if has_levels(result.degradations):
            data_frames["levels"] = levels(result, options.fraction)
        share = f"top {100 * options.fraction:g} %, common filters in %"
        figures = {"overlap": matrix(overlap(sets), names, names, share, ("of", "also in"))}
        publish(options, words, "overlap", data_frames, figures, [describe_attributed(study)])
