"""Tables as aligned text and in Markdown, and counts with their nouns."""

from collections.abc import Sequence


def counted(number: int, noun: str) -> str:
    """Write "1 image" and "3 images"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align cells in columns: the first column left, the others right, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def aligned_row(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(c.rjust(w) for c, w in others)]).rstrip()

    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    return "\n".join([aligned_row(head), rule, *map(aligned_row, rows)])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table: the first column aligned left, the others right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
