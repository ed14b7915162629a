"""Drawing: figures without a window, panels, colours, and pictures inside a page."""

import base64
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.analysis.report.palette import DASHES, DEGRADATIONS, GRAY, MARKERS
from faigfast.data.images import encode_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = DEGRADATIONS  # distinguishable without red-green vision
COLUMN, PAGE = 3.3, 6.9  # inches: width of a column and of a page
NO_MATPLOTLIB = "figures need matplotlib: pip install 'faigfast[report]'"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def new_figure(rows: int, columns: int, width: float, height: float) -> tuple["Figure", Any]:
    """Make a matplotlib figure without a window; sizes in inches.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(NO_MATPLOTLIB) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def panels(
    count: int, width: float, height: float, least: float = 2.1
) -> tuple["Figure", list[Any]]:
    """Make a figure of panels with letters, as many in a row as the width holds.

    Parameters
    ----------
    count : int
        Number of panels.
    width : float
        Width of the figure in inches.
    height : float
        Height of one panel in inches.
    least : float
        Smallest width of a panel in inches, where the figure is not narrower.
    """
    columns = max(1, min(count, int(width / least)))
    rows = -(-count // columns)
    columns = -(-count // rows)
    figure, axes = new_figure(rows, columns, width, height * rows)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    shown_axes = list(axes.flat[:count])
    add_letters(shown_axes)
    return figure, shown_axes


def add_letters(axes: Sequence[Any]) -> None:
    """Put bold letters beside the titles of several panels."""
    if len(axes) < 2:
        return
    for n, axis in enumerate(axes):
        letter = LETTERS[n] if n < len(LETTERS) else str(n + 1)
        axis.annotate(
            letter, (0, 1), xytext=(-4, 4), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="baseline", fontweight="bold", gid="letter",
        )  # fmt: skip


def set_title(axis: Any, text: str) -> None:
    """Set the title of a panel, on as many lines as the panel's width needs."""
    columns = axis.get_gridspec().ncols
    axis.set_title(wrapped(text, axis.figure.get_figwidth() / columns - 0.5))


def wrapped(text: str, inches: float) -> str:
    """Break a text at spaces into lines of a width."""
    return "\n".join(textwrap.wrap(text, max(6, int(inches * characters_per_inch())))) or text


def characters_per_inch() -> float:
    """Give about how many characters of the figure's text are as wide as an inch."""
    from matplotlib import rcParams

    return 72 / (0.58 * float(rcParams["font.size"]))


def small() -> Any:
    """Give the size of small text, that of tick labels."""
    from matplotlib import rcParams

    return rcParams["xtick.labelsize"]


def shortened(name: str, most: int = 24) -> str:
    """Keep the end of a long name, which tells layers apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def shown(name: str) -> str:
    """Write a name of the user's so that SVG and legends show it.

    XML has no control characters, and matplotlib hides labels that begin with "_".
    """
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return f"\N{ZERO WIDTH SPACE}{printable}" if printable.startswith("_") else printable


def middle(image: Tensor, side: int) -> Tensor:
    """Cut [..., H, W] to at most `side` pixels each way, around its middle."""
    top, left = (max(0, size - side) // 2 for size in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def data_uri(image: Tensor) -> str:
    """Encode an image [3, H, W] in [0, 1] as the address of a PNG inside the page."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image)).decode()


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each name a colour, in turn from the first if there are many; "random" is gray.

    The colours are Okabe and Ito's, or those of `axes.prop_cycle` where a style sets it.
    """
    from matplotlib import rcParams, rcParamsDefault

    cycle = rcParams["axes.prop_cycle"]
    own = cycle != rcParamsDefault["axes.prop_cycle"] and cycle.by_key().get("color")
    known = [name for name in names if name != "random"]
    return {**dict(zip(known, itertools.cycle(own or COLOURS), strict=False)), "random": GRAY}


def line_looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each name a marker and a style of line of its own, for readers without colours."""
    return {
        name: {"marker": MARKERS[n % len(MARKERS)], "linestyle": DASHES[n % len(DASHES)]}
        for n, name in enumerate(names)
    }
