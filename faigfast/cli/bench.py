"""`faigfast bench`: the speed of attributions on this machine."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from faigfast.bench import (
    DEFAULT,
    BenchmarkResult,
    Cost,
    Kernels,
    Race,
    benchmark,
    measure_cost,
    measure_kernels,
    race,
)
from faigfast.bench.accuracy_pairs import available, load
from faigfast.bench.workloads import FOLDER
from faigfast.cli.interruption import FINISHED_PAIRS
from faigfast.cli.output import command_line, surroundings, writable_file, write_between
from faigfast.io.atomic import write_text
from faigfast.zoo.pairs import PAIRS, shipped_pair

Result = BenchmarkResult | Race | Cost | Kernels

RACE_PAIRS = (*PAIRS, "waifu2x-noise2-noise3")  # the last if its package is installed

TITLES: dict[type, str] = {Race: "Time to the authors' accuracy", Cost: "The cost of a call"}


def run(options: Any, words: Sequence[str]) -> None:
    """Run the benchmark, print its table and keep its figures."""
    if options.output is not None:
        file = writable_file(options.output)
        if options.kernels and file.suffix == ".md":
            surroundings(file, "bench")
    if options.to_accuracy:

        def keep(result: Race) -> None:
            _keep(result, options.output, words)
            if options.output is not None:
                setattr(options, FINISHED_PAIRS, len(result.pairs))

        raced = race(
            {name: partial(load, name) for name in RACE_PAIRS if name in available()}
            | {FOLDER: shipped_pair},
            repeats=options.repeats,
            progress=not options.quiet,
            keep=keep,
        )
        print(raced.table())
        return
    if options.cost:
        cost_result = measure_cost(repeats=options.repeats, progress=not options.quiet)
        _finish(cost_result, options.output, words)
        return
    if options.kernels:
        _finish(measure_kernels(progress=not options.quiet), options.output, words)
        return
    result = benchmark(
        options.workloads or DEFAULT,
        steps=options.steps,
        repeats=options.repeats,
        contenders=options.contenders,
        progress=not options.quiet,
    )
    _finish(result, options.output, words)


def _finish(result: Result, output: str | None, words: Sequence[str]) -> None:
    """Keep the figures, and print the table."""
    _keep(result, output, words)
    print(result.table())


def _keep(result: Result, output: str | None, words: Sequence[str]) -> None:
    """Keep the table as a document, or all figures as JSON."""
    result.command = ["faigfast", *words]
    if isinstance(result, Kernels) and output is not None and output.endswith(".md"):
        figure = Path(output).with_suffix(".svg")
        result.figure(figure)
        picture = f"![Effective GFLOP/s by size and channels]({figure.name})"
        body = f"Written by `{command_line(words)}`.\n\n{picture}\n\n{result.table()}"
        write_between(output, "bench", body)
    elif output is not None and output.endswith(".md"):
        title = TITLES.get(type(result), "Speed")
        written = f"Written by `{command_line(words)}`."
        if not isinstance(result, Cost):
            written += (
                " The command compares the contenders' scores with float64 before it times them."
            )
        write_text(output, f"# {title}\n\n{written}\n\n```\n{result.table()}\n```\n")
    elif output is not None:
        result.save(output)
