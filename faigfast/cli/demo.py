"""`faigfast demo`: attribution and masking of the shipped pair on photographs."""

from collections.abc import Sequence
from typing import Any

from faigfast.analysis.demo import run_demo
from faigfast.cli.estimate import announce_demo
from faigfast.cli.figures import figure_files
from faigfast.cli.output import writable_folder
from faigfast.io.lock import alone_in


def run(options: Any, words: Sequence[str]) -> None:
    """Run the demo, which prints its table and the report's path itself."""
    folder = writable_folder(options.output)
    with alone_in(folder):
        figures = figure_files(options, words)
        announce_demo(options)
        run_demo(folder, steps=options.steps, progress=not options.quiet, figures=figures)
