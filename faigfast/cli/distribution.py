"""`faigfast distribution`: the layers of discovered filters, and their change between networks."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.distribution import changes, distribution, top_kernels
from faigfast.analysis.report.captioned import kernels_figure, layers_figure
from faigfast.cli.remarks import describe_attributed
from faigfast.cli.study import open_study, publish
from faigfast.io.lock import alone_in


def run(options: Any, words: Sequence[str]) -> None:
    """Count by layer, sum up the changes, draw the heads of the rankings."""
    if options.heads < 1:
        raise ValueError(f"heads is {options.heads}; expected a positive integer")
    study = open_study(options)
    pair = study.baseline, study.target
    with alone_in(options.output):
        result = study.attribution()
        index = result.index
        sets = study.tops(options.fraction)
        described = describe_attributed(study)
        figures = {"distribution": layers_figure(sets, index, described)}
        for name, filters in sets.items():
            kernels = top_kernels(*pair, filters, options.heads)
            figures[f"kernels {name}"] = kernels_figure(name, kernels, described)
        counts = distribution(sets, index, result.scored)
        data_frames = {"distribution": counts, "changes": changes(*pair, sets)}
        publish(options, words, "distribution", data_frames, figures, [described])
