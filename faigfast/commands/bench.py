"""`faigfast bench`: who computes an attribution how fast here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faigfast.bench import DEFAULT, benchmark
from faigfast.commands.output import writable_folder


def run(options: Any, words: Sequence[str]) -> None:
    """Run the benchmark, print its table and keep its figures."""
    if options.output is not None:
        if Path(options.output).is_dir():
            raise ValueError(f"--output {options.output} is a folder; expected a file name")
        writable_folder(str(Path(options.output).parent), "the folder of --output,")
    report = benchmark(
        options.workloads or DEFAULT,
        steps=options.steps,
        repeats=options.repeats,
        contenders=options.contenders,
        progress=not options.quiet,
    )
    report.command = ["faigfast", *words]
    if options.output is not None:
        report.save(options.output)
    print(report.table())
