"""`faigfast distribution`: where discovered filters lie, and what became of them."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.distribution import changes, distribution, heads
from faigfast.analysis.report.figures import kernel_heads, layer_distribution
from faigfast.cli.run_folder import alone_in
from faigfast.cli.study import describe_attributed, open_study, publish


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
        figures = {"distribution": layer_distribution(sets, index)}
        for name, filters in sets.items():
            kernels = heads(*pair, filters, options.heads)
            figures[f"kernels {name}"] = kernel_heads(kernels, f"{name}: best {len(kernels)}")
        counts = distribution(sets, index, result.scored)
        tables = {"distribution": counts, "changes": changes(*pair, sets)}
        publish(options, words, "distribution", tables, figures, [describe_attributed(study)])
