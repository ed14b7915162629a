"""`faigfast accuracy`: how accurate every quadrature rule is on the shipped pairs."""

from collections.abc import Callable, Sequence
from textwrap import fill, indent
from typing import Any

from torch import Tensor

from faigfast.bench.accuracy import (
    BLUR,
    CHECK,
    NOISE,
    REFERENCE,
    TOP,
    Row,
    Section,
    measure_accuracy,
)
from faigfast.commands.output import (
    command_line,
    note,
    surroundings,
    writable_file,
    write_between,
)
from faigfast.data.photographs import KEPT_OUT
from faigfast.machine import describe_machine, describe_versions
from faigfast.tables import aligned, markdown
from faigfast.zoo.pairs import PAIRS

WIDTH = 110
READING = (
    "Evaluations: points of the line for an image; where images differ, their mean (and range). "
    "Error: relative L1 error of an image's scores, mean and worst of the images. Contrast: the "
    "same error of the mean scores under blur less those under noise. Top: share of the "
    f"{100 * TOP:g} % of filters ranked highest for a degradation that the converged rule ranks "
    "there too. Completeness: the worst image's error. Estimate: mean of what the rule itself says "
    "its errors are; ÷ error: the estimate over the error, median; covered: images whose error is "
    "not above the estimate. The last row compares what is emulated with the rule it stands for."
)

Set = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def run(options: Any, words: Sequence[str]) -> None:
    """Measure, print the tables, and write them into a document."""
    if options.output is not None:
        surroundings(writable_file(options.output), "accuracy")
    names, sections = measure_accuracy(
        options.pairs or PAIRS, size=options.size, progress=not options.quiet
    )
    missing = [name for name in KEPT_OUT if name.partition(".")[0] not in names]
    if missing:
        note(f"without {', '.join(missing)}: pip install 'faigfast[sklearn]'", options.quiet)
    remarks = [fill(text, WIDTH) for text in (_conditions(names, options.size), READING)]

    def in_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return indent(aligned(head, rows), "  ")

    print("\n\n".join([*(_block(section, in_text) for section in sections), *remarks]))
    if options.output is not None:
        command = f"    {command_line(words)}"
        blocks = [f"### {_block(section, markdown)}" for section in sections]
        write_between(options.output, "accuracy", "\n\n".join([command, *remarks, *blocks]))


def _conditions(names: Sequence[str], size: int) -> str:
    """Say what was measured where."""
    machine, versions = describe_machine(), describe_versions()
    return (
        f"The middle {size}×{size} pixels (ground truth) of {', '.join(names)}, each blurred "
        f"(σ = {BLUR:g}) and noisy ({NOISE:g}): {2 * len(names)} images. The rules run in float32, "
        f"the converged one, {REFERENCE}, in float64. {machine['cpu']}, {machine['threads']} of "
        f"{machine['cores']} cores, {machine['instructions']}, torch {versions['torch']}, faigfast "
        f"{versions['faigfast']}, Python {versions['python']}."
    )


def _block(section: Section, set_table: Set) -> str:
    """Title, agreement, table and notes of one pair."""
    check = section.agreement
    overlap = " and ".join(f"{share:.3f} ({name})" for name, share in check.overlap.items())
    agreement = (
        f"{REFERENCE} in float64 and {CHECK} in float32 differ by {_short(check.errors.mean())} on "
        f"average, {_short(check.errors.max())} in the worst image and {_short(check.contrast)} in "
        f"the contrast; {overlap} of the top {100 * TOP:g} % are the same."
    )
    head = ["rule", "evaluations", "mean error", "worst", "contrast"]
    head += [f"top, {name}" for name in check.overlap]
    head += ["completeness", "estimate", "÷ error", "covered"]
    table = set_table(head, [_cells(row) for row in section.rows])
    return "\n\n".join([section.title, fill(agreement, WIDTH), table, *section.notes])


def _cells(row: Row) -> list[str]:
    low, high = int(row.points.min()), int(row.points.max())
    points = f"{float(row.points.double().mean()):.1f} ({low}–{high})" if low < high else f"{low}"
    errors = (row.errors.mean(), row.errors.max(), row.contrast)
    cells = [row.name, points, *(_short(error) for error in errors)]
    cells += [f"{share:.3f}" for share in row.overlap.values()]
    cells.append(_short(row.completeness))
    if row.estimates.isnan().any():
        return [*cells, *3 * ["–"]]
    ratios = row.estimates / row.errors
    covered = f"{int((ratios >= 1).sum())} of {len(ratios)}"
    return [*cells, _short(row.estimates.mean()), f"{float(ratios.quantile(0.5)):.2f}", covered]


def _short(value: Tensor | float) -> str:
    """Write 0.012 as 1.2e-2."""
    mantissa, exponent = f"{float(value):.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"
