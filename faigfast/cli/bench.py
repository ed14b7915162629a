"""`faigfast bench`: who computes an attribution how fast here."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from faigfast.bench import (
    DEFAULT,
    CompiledKernels,
    Cost,
    Kernels,
    Race,
    Report,
    benchmark,
    compile_kernels,
    measure_cost,
    measure_kernels,
    race,
)
from faigfast.cli.output import command_line, surroundings, writable_file, write_between
from faigfast.io.atomic import write_text
from faigfast.zoo.pairs import PAIRS, shipped_pair

TITLES: dict[type, str] = {Race: "Time to the authors' accuracy", Cost: "The cost of a call"}
COMPILED = "bench --compiled"  # whose part of a document is its own


def run(options: Any, words: Sequence[str]) -> None:
    """Run the benchmark, print its table and keep its figures."""
    if options.output is not None:
        file = writable_file(options.output)
        if options.kernels and file.suffix == ".md":
            surroundings(file, "bench")
        if options.compiled and file.suffix == ".md":
            surroundings(file, COMPILED)
    if options.to_accuracy:
        found = race(
            {name: partial(shipped_pair, name) for name in PAIRS},
            repeats=options.repeats,
            progress=not options.quiet,
        )
        _finish(found, options.output, words)
        return
    if options.cost:
        found_cost = measure_cost(repeats=options.repeats, progress=not options.quiet)
        _finish(found_cost, options.output, words)
        return
    if options.compiled:
        _finish(compile_kernels(progress=not options.quiet), options.output, words)
        return
    if options.kernels:
        _finish(measure_kernels(progress=not options.quiet), options.output, words)
        return
    report = benchmark(
        options.workloads or DEFAULT,
        steps=options.steps,
        repeats=options.repeats,
        contenders=options.contenders,
        progress=not options.quiet,
    )
    _finish(report, options.output, words)


def _finish(
    report: Report | Race | Cost | Kernels | CompiledKernels,
    output: str | None,
    words: Sequence[str],
) -> None:
    """Print the table; keep it as a document, or all figures as JSON."""
    report.command = ["faigfast", *words]
    if isinstance(report, CompiledKernels) and output is not None and output.endswith(".md"):
        body = f"Written by `{command_line(words)}`.\n\n{report.table()}"
        write_between(output, COMPILED, body)
    elif isinstance(report, Kernels) and output is not None and output.endswith(".md"):
        figure = Path(output).with_suffix(".svg")
        report.figure(figure)
        image = f"![Effective GFLOP/s by size and channels]({figure.name})"
        body = f"Written by `{command_line(words)}`.\n\n{image}\n\n{report.table()}"
        write_between(output, "bench", body)
    elif output is not None and output.endswith(".md"):
        title = TITLES.get(type(report), "Speed")
        compares = "" if isinstance(report, Cost) else ", which compares before it times"
        written = f"Written by `{command_line(words)}`{compares}."
        write_text(output, f"# {title}\n\n{written}\n\n```\n{report.table()}\n```\n")
    elif output is not None:
        report.save(output)
    print(report.table())
