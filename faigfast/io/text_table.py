"""Tables as aligned text and in Markdown, and numbers of things."""

from collections.abc import Sequence


def counted(number: int, thing: str) -> str:
    """Write "1 image" and "3 images"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Set cells in columns: the first to the left, figures to the right, two spaces between."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]).rstrip()

    return "\n".join([line(head), "-" * (sum(widths) + 2 * len(widths) - 2), *map(line, rows)])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table of Markdown: the first column to the left, figures to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
