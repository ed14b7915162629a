"""Drawing: figures without a window, panels, colours, and pictures inside a page."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.analysis.report.palette import DEGRADATIONS, GRAY
from faigfast.data.images import encode_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = DEGRADATIONS  # distinguishable without red-green vision
MOST_COLUMNS = 3


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
        raise ImportError("figures need matplotlib: pip install 'faigfast[report]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def panels(count: int, width: float, height: float) -> tuple["Figure", list[Any]]:
    """Make a figure of panels, at most three in a row; size of a panel in inches."""
    columns = min(count, MOST_COLUMNS)
    rows = -(-count // columns)
    figure, axes = new_figure(rows, columns, width * columns, height * rows)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    return figure, list(axes.flat[:count])


def svg(figure: "Figure") -> str:
    """Draw a figure as one <svg> element; dollar signs in names are no mathematics."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    for part in figure.findobj(Text):
        part.set_parse_math(False)
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "faigfast"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]


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
    """Give each name a colour of its own; "random" is gray."""
    known = [name for name in names if name != "random"]
    chosen = dict(zip(known, COLOURS, strict=False))
    if len(known) > len(COLOURS):
        from matplotlib import colormaps
        from matplotlib.colors import to_hex

        positions = (n / (len(known) - 1) for n in range(len(known)))
        chosen = {n: to_hex(colormaps["turbo"](p)) for n, p in zip(known, positions, strict=True)}
    return {**chosen, "random": GRAY}
