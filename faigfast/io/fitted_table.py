"""Tables as text that fits a width: headings on several lines, then columns in blocks."""

from collections.abc import Sequence
from textwrap import wrap

from faigfast.io.text_table import aligned

WIDTH = 100
GAP = 2  # spaces between columns


def fitted(head: Sequence[str], rows: Sequence[Sequence[str]], width: int = WIDTH) -> str:
    """Align cells in columns that fit a width.

    Parameters
    ----------
    head : sequence of str
        Headings of the columns. They are wrapped at spaces where the table would be too wide.
    rows : sequence of sequence of str
        Cells. Where wrapped headings do not suffice, the columns stand in blocks below each other,
        each with leading columns that tell the rows apart.
    width : int
        Most characters of a line. A single cell may be longer.

    Returns
    -------
    str

    Examples
    --------
    >>> print(fitted(["name", "mean error"], [["a", "1.0"]], width=12))
           mean
    name  error
    -----------
    a       1.0
    """
    text = aligned(head, rows)
    if _width(text) <= width:
        return text
    cells = [max((len(row[n]) for row in rows), default=0) for n in range(len(head))]
    wrapped = [
        wrap(name, max(size, *map(len, name.split()), 1), break_long_words=False) or [""]
        for name, size in zip(head, cells, strict=True)
    ]
    widths = [max(size, *map(len, lines)) for lines, size in zip(wrapped, cells, strict=True)]
    names = _identifying(rows, len(head))
    fixed = sum(widths[n] + GAP for n in names)
    blocks: list[list[int]] = []
    used = 0
    for column in (n for n in range(len(head)) if n not in names):
        if not blocks or used + widths[column] > width:
            blocks.append(list(names))
            used = fixed
        blocks[-1].append(column)
        used += widths[column] + GAP
    return "\n\n".join(
        _block([wrapped[n] for n in block], [[row[n] for n in block] for row in rows])
        for block in blocks
    )


def _block(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> str:
    """Align one block, its headings at the bottom of their lines."""
    height = max(map(len, heads))
    lines = [[""] * (height - len(head)) + list(head) for head in heads]
    upper = [[head[n] for head in lines] for n in range(height - 1)]
    last = [head[-1] for head in lines]
    first, rule, *others = aligned(last, [*upper, *rows]).split("\n")
    return "\n".join([*others[: height - 1], first, rule, *others[height - 1 :]])


def _identifying(rows: Sequence[Sequence[str]], columns: int) -> list[int]:
    """Choose leading columns that tell the rows apart, at least 1; one column has none."""

    def distinct(some: Sequence[int]) -> bool:
        return len({tuple(row[n] for n in some) for row in rows}) == len(rows)

    prefixes = (list(range(count)) for count in range(1, columns))
    chosen = next(filter(distinct, prefixes), list(range(min(1, columns - 1))))
    for column in reversed(chosen[1:-1]):  # "masked, %" beside "asked for, %"
        rest = [n for n in chosen if n != column]
        if distinct(rest):
            chosen = rest
    return chosen


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))
