"""`faigfast accuracy`: how accurate every quadrature rule is on the shipped pairs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from textwrap import fill, indent
from typing import Any

from torch import Tensor

from faigfast.bench import accuracy_by_size as by_size
from faigfast.bench.accuracy import (
    AUTHORS,
    BLUR,
    EMULATED,
    IN_FLOAT32,
    NOISE,
    PHOTOGRAPHS_OF_SLOW,
    REFERENCE,
    SIZE,
    SLOW,
    TOP_FRACTION,
    PairAccuracy,
    RuleAccuracy,
    measure_accuracy,
)
from faigfast.cli.output import command_line, note, surroundings, writable_file, write_between
from faigfast.data.photographs import KEPT_OUT
from faigfast.integration.refinement import LARGE
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.fitted_table import WIDTH, fitted
from faigfast.io.text_table import markdown

READING = (
    "Evaluations: number of points on the line for one image; if it differs between images, their "
    "mean (and range). Mean error, worst: relative L1 error of an image's scores, mean and maximum "
    "over the images. Contrast: relative L1 error of the contrast, which is the mean scores under "
    "blur minus the mean scores under noise. Top: for a degradation, the fraction of the converged "
    f"rule's top {100 * TOP_FRACTION:g} % of filters that are also in this rule's top. "
    "Completeness: largest completeness error of any image. Estimate: the rule's own estimate of "
    "its error, mean over the images. Estimate ÷ error: estimate divided by actual error, median "
    "over the images. Covered: number of images whose error is at most the estimate. One row "
    f"compares {EMULATED} with {AUTHORS}; every other row compares a rule with the converged rule."
)

READING_BY_SIZE = (
    "A cell has three figures. The first is the relative L1 error of an image's scores, mean over "
    "the images. In brackets follow the largest error of any image and the relative L1 error of "
    "the contrast, which is the mean scores under blur minus the mean scores under noise; then the "
    "mean number of points where images differ in it. Two columns of midpoint and of graded show "
    "their two default numbers of points: the smaller number is for input "
    f"images of {math.isqrt(LARGE)}×{math.isqrt(LARGE)} pixels or more, the larger number for "
    "smaller input images. An input image is half as wide and half as high as its ground truth."
)

Typesetter = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def run(options: Any, words: Sequence[str]) -> None:
    """Measure, print the tables, and write them into a document."""
    if options.by_size and options.size is not None:
        raise ValueError("--size and --by_size are both given; expected one of them")
    part = "accuracy --by_size" if options.by_size else "accuracy"
    if options.output is not None:
        surroundings(writable_file(options.output), part)
    names, remarks, blocks = (_by_size if options.by_size else _all_rules)(options)
    missing = [name for name in KEPT_OUT if name.partition(".")[0] not in names]
    if missing:
        note(f"without {', '.join(missing)}: pip install 'faigfast[sklearn]'", options.quiet)

    def in_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return indent(fitted(head, rows, WIDTH - 2), "  ")

    remarks = [fill(text, WIDTH) for text in remarks]
    print("\n\n".join([*(block(in_text) for block in blocks), *remarks]))
    if options.output is not None:
        command = f"    {command_line(words)}"
        written = [f"### {block(markdown)}" for block in blocks]
        write_between(options.output, part, "\n\n".join([command, *remarks, *written]))


Document = tuple[Sequence[str], Sequence[str], Sequence[Callable[[Typesetter], str]]]


def _all_rules(options: Any) -> Document:
    """Give the photographs, the remarks, and a block for each pair."""
    size = SIZE if options.size is None else options.size
    names, sections = measure_accuracy(options.pairs, size=size, progress=not options.quiet)
    conditions = (
        f"Ground truth: the middle {size}×{size} pixels of {_degraded(names)}, which gives "
        f"{2 * len(names)} images; {SLOW[0]} and published pairs have the first "
        f"{PHOTOGRAPHS_OF_SLOW} photographs. All rules run in float32; the converged rule is "
        f"{REFERENCE}. {_where()}"
    )
    return names, (conditions, READING), [partial(_block, section) for section in sections]


def _by_size(options: Any) -> Document:
    """Give the photographs, the remarks, and a block for each pair."""
    pairs = options.pairs or by_size.PAIRS
    names, sizes = by_size.measure_by_size(pairs, progress=not options.quiet)
    conditions = (
        f"Ground truth: crops spread over {_degraded(names)}. All rules run in float32; the "
        f"converged rule is {by_size.REFERENCE}. {_where()}"
    )
    blocks = [partial(_size_block, pair, [s for s in sizes if s.pair == pair]) for pair in pairs]
    return names, (conditions, READING_BY_SIZE), blocks


def _degraded(names: Sequence[str]) -> str:
    return (
        f"{', '.join(names)}. Each crop is degraded once by blur (σ = {BLUR:g}) and once by noise "
        f"(σ = {NOISE:g})"
    )


def _where() -> str:
    """Name the hardware and the versions of the measurement."""
    hardware, versions = describe_machine(), describe_versions()
    return (
        f"{hardware['cpu']}, {hardware['threads']} of {hardware['cores']} cores, "
        f"{hardware['instructions']}, torch {versions['torch']}, faigfast {versions['faigfast']}, "
        f"Python {versions['python']}."
    )


def _size_block(pair: str, sizes: Sequence[by_size.SizeAccuracy], typeset: Typesetter) -> str:
    """Title and table of one pair."""
    head = ["ground truth", "images", *(row.name for row in sizes[0].rows)]
    lines = [
        [f"{size.side}×{size.side}", f"2 × {size.images}", *map(_three, size.rows)]
        for size in sizes
    ]
    return f"{pair}\n\n{typeset(head, lines)}"


def _three(row: RuleAccuracy) -> str:
    mean, worst = _short(row.errors.mean()), _short(row.errors.max())
    differ = bool((row.points != row.points[0]).any())
    points = f", {float(row.points.double().mean()):.1f} points" if differ else ""
    return f"{mean} ({worst}; {_short(row.contrast)}){points}"


def _block(section: PairAccuracy, typeset: Typesetter) -> str:
    """Title, agreement, table and notes of one pair."""
    comparison = section.agreement
    overlap = " and ".join(
        f"{share:.3f} under {name}" for name, share in comparison.overlap.items()
    )
    mean, worst = _short(comparison.errors.mean()), _short(comparison.errors.max())
    agreement = (
        f"Two converged rules, {REFERENCE} and {comparison.name}, differ by {mean} on average over "
        f"the images, by {worst} in the worst image and by {_short(comparison.contrast)} in the "
        "contrast. The fraction of the top "
        f"{100 * TOP_FRACTION:g} % of filters that both rules select is {overlap}. Scores of "
        f"{IN_FLOAT32} differ from float64 by {_short(section.rounding)}."
    )
    head = ["rule", "evaluations", "mean error", "worst", "contrast"]
    head += [f"top, {name}" for name in comparison.overlap]
    head += ["completeness", "estimate", "estimate ÷ error", "covered"]
    text = typeset(head, [_cells(row) for row in section.rows])
    return "\n\n".join([section.title, fill(agreement, WIDTH), text, *section.notes])


def _cells(row: RuleAccuracy) -> list[str]:
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
