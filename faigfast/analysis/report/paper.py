"""Figures for papers: drawn for the width of a column and of a page, each with its caption."""

import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faigfast.analysis.report.drawing import COLUMN, NO_MATPLOTLIB, PAGE
from faigfast.io.atomic import atomic_write, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("pdf", "svg", "png")
NARROWEST, WIDEST = 2.0, 20.0  # inches
STYLE = Path(__file__).parent / "assets" / "paper.mplstyle"
# Without times and versions, so that the same figure has the same bytes.
METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class PaperFigure:
    """A figure that is drawn for any width.

    Parameters
    ----------
    draw : callable
        Takes a width in inches and gives a matplotlib figure of this width.
    caption : str
        What the figure shows, on how many crops, and the meaning of intervals.
    """

    draw: Callable[[float], "Figure"]
    caption: str


@dataclass(frozen=True)
class FigureFiles:
    """Formats, widths and style of the files of figures.

    Parameters
    ----------
    formats : tuple of str
        Of `FORMATS`; empty: no files.
    widths : tuple of float
        Width of a column and of a page, in inches.
    style : path-like, optional
        A matplotlib style file, whose settings go over those of `STYLE`.
    command : str
        The command that makes the figures, for captions.

    Raises
    ------
    ValueError
        If a width is not in 2 to 20 inches, or the style file has a wrong line.
    FileNotFoundError
        If there is no style file.
    """

    formats: tuple[str, ...] = ("svg",)
    widths: tuple[float, float] = (COLUMN, PAGE)
    style: str | os.PathLike[str] | None = None
    command: str = ""

    def __post_init__(self) -> None:
        for width in self.widths:
            if not NARROWEST <= width <= WIDEST:
                raise ValueError(
                    f"figure_widths hold {width:g}; expected {NARROWEST:g} to {WIDEST:g} inches"
                )
        if self.style is not None:
            read_style(self.style)

    def write(self, folder: Path, name: str, figure: PaperFigure) -> list[str]:
        """Write `NAME-column`, `NAME-page` in every format, and the caption as `NAME.txt`.

        Returns
        -------
        list of str
            Names of the files.
        """
        if not self.formats:
            return []
        stem, files = file_stem(name), []
        for label, width in zip(("column", "page"), self.widths, strict=True):
            with paper_style(self.style):
                drawn = figure.draw(width)
                for suffix in dict.fromkeys(self.formats):
                    files.append(f"{stem}-{label}.{suffix}")
                    with atomic_write(folder / files[-1]) as path:
                        path.write_bytes(content(drawn, suffix))
        files.append(f"{stem}.txt")
        command = f"\n\nCommand: {self.command}" if self.command else ""
        write_text(folder / files[-1], f"{figure.caption}{command}\n")
        return files


def file_stem(name: str) -> str:
    """Replace the characters of a name that a file name should not have."""
    return re.sub(r"[^\w.+-]", "-", name)


@contextmanager
def paper_style(style: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Set matplotlib's settings to those of papers, and back afterwards.

    Parameters
    ----------
    style : path-like, optional
        A matplotlib style file, whose settings go over those of `STYLE`.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_style`.
    ImportError
        If matplotlib is not installed.
    """
    settings = [read_style(path) for path in (STYLE, style) if path is not None]
    from matplotlib.style import context

    with context(settings, after_reset=True):
        yield


def read_style(path: str | os.PathLike[str]) -> Any:
    """Read a matplotlib style file.

    Returns
    -------
    matplotlib.RcParams
        The settings in the file alone.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If matplotlib does not know a setting or does not take its value.
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import rc_params_from_file
    except ImportError:
        raise ImportError(NO_MATPLOTLIB) from None
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"style {path} is missing; expected a matplotlib style file")
    with _complaints() as complaints:
        try:
            settings = rc_params_from_file(path, use_default_template=False)
        except UnicodeDecodeError:
            raise ValueError(f"style {path} is no text; expected lines of KEY: VALUE") from None
    if complaints:
        raise ValueError(
            f"style {path} is wrong: {' '.join(complaints[0].split())}; expected lines of "
            "KEY: VALUE with settings of matplotlib"
        )
    return settings


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what matplotlib logs about a style file."""
    texts: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage().partition("\nYou probably")[0])

    logger, collector = logging.getLogger("matplotlib"), Collector()
    propagated = logger.propagate
    logger.addHandler(collector)
    logger.propagate = False
    try:
        yield texts
    finally:
        logger.removeHandler(collector)
        logger.propagate = propagated


def content(figure: "Figure", suffix: str) -> bytes:
    """Draw a figure as one of `FORMATS`; dollar signs in names are no mathematics."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    powers = _powers(figure)
    for part in figure.findobj(Text):
        part.set_parse_math(part in powers)
    file = io.BytesIO()
    # A tight box would change the width.
    with rc_context({"svg.hashsalt": "faigfast", "savefig.bbox": None}):
        figure.savefig(file, format=suffix, metadata=METADATA[suffix])
    drawn = file.getvalue()
    return drawn[drawn.index(b"<svg") :] if suffix == "svg" else drawn


def _powers(figure: "Figure") -> set[Any]:
    """Give the tick labels of logarithmic axes, whose powers of ten are mathematics."""
    from matplotlib.ticker import LogFormatter

    both = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    return {
        label
        for axis in both
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for label in (*axis.get_majorticklabels(), *axis.get_minorticklabels())
    }


def svg(figure: "Figure") -> str:
    """Draw a figure as one <svg> element."""
    return content(figure, "svg").decode()
