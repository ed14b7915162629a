"""Figures of the commands: their options, and the figures of `faigfast attribute`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from faigfast.analysis.report.captioned import kernels_figure, layers_figure, losses_figure
from faigfast.analysis.report.drawing import NO_MATPLOTLIB
from faigfast.analysis.report.paper import FigureFiles
from faigfast.cli.output import command_line
from faigfast.cli.result_files import rankable
from faigfast.filters.kernel_values import top_kernels
from faigfast.io.text_table import counted
from faigfast.result import Attribution

FOLDER = "figures"  # of commands that write none by default
KERNELS = 12


def figure_files(options: Any, words: Sequence[str] = ()) -> FigureFiles:
    """Read the options of figures; refuse a wrong style file, and figures without matplotlib."""
    if options.figures and find_spec("matplotlib") is None:
        raise ImportError(NO_MATPLOTLIB)
    widths = tuple(options.figure_widths)
    return FigureFiles(tuple(options.figures), widths, options.style, command_line(words))


def write_attribution_figures(
    figures: FigureFiles,
    folder: Path,
    result: Attribution,
    pair: tuple[nn.Module, nn.Module],
    fraction: float,
) -> list[str]:
    """Draw the layers of the best filters, their kernels, and the losses along the line.

    Returns
    -------
    list of str
        Names of the files, within the folder.
    """
    if not figures.formats:
        return []
    about = f"{counted(result.images, 'image')}, {result.sampling}."
    names = [name for name in result.degradations if rankable(result, name)]
    sets = {name: result.ranking(name) for name in names}
    count = max(1, int(fraction * len(result.index)))
    tops = {name: ranking[:count] for name, ranking in sets.items()}
    drawn = {}
    if tops:
        drawn["layers"] = layers_figure(tops, result.index, about)
    for name, filters in tops.items():
        drawn[f"kernels {name}"] = kernels_figure(name, top_kernels(*pair, filters, KERNELS), about)
    if result.line.shape[2]:
        drawn["losses"] = losses_figure(result, about)
    files = []
    for name, figure in drawn.items():
        written = figures.write(folder / FOLDER, name, figure)
        files += [f"{FOLDER}/{file}" for file in written]
    return files
