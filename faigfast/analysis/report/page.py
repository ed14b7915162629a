"""One self-contained HTML page: text, tables and figures, readable in light and dark."""

import os
import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader

from faigfast.io.atomic import write_text

TEMPLATE = "page.html.jinja"


class Page:
    """A page that grows section by section; all text is escaped.

    Parameters
    ----------
    title : str
        Title of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[dict[str, Any]] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._add("heading", text=text, number=self._count("heading") + 1)

    def list_contents(self) -> None:
        """Put the list of all sections here."""
        self._add("contents")

    def text(self, text: str, note: bool = False) -> None:
        """Add a paragraph; a note is set smaller."""
        self._add("text", text=text, note=note)

    def badge(self, text: str, reason: str) -> None:
        """Add a few words on a warning colour, and the reason beside them."""
        self._add("badge", text=text, reason=reason)

    def code(self, text: str) -> None:
        """Add a line of code."""
        self._add("code", text=text)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], summary: str = "") -> None:
        """Add a table that can be sorted; columns without digits are set as words.

        With a `summary` the table is folded away behind it.
        """
        columns = ["".join(row[n] for row in rows) for n in range(len(head))]
        words = [not any(map(str.isdigit, column)) for column in columns]
        marked = [list(zip(words, cells, strict=True)) for cells in (head, *rows)]
        self._add("table", head=marked[0], rows=marked[1:], summary=summary)

    def figure(self, svg: str) -> None:
        """Add a drawing, on white in light and dark; it scales with the page, up to 1.5 times."""
        # Ids repeat between drawings, and a page may hold an id once.
        id_or_reference = re.compile(r'(\bid="|href="#|url\(#)')
        svg = id_or_reference.sub(rf"\g<1>figure-{self._count('figure') + 1}-", svg)
        width = re.search(r'<svg [^>]*?width="([\d.]+)pt"', svg)
        if width:
            limited = f'<svg style="max-width: {1.5 * float(width[1]):.0f}pt" '
            svg = svg.replace("<svg ", limited, 1)
        self._add("figure", svg=svg)

    def strip(self, images: Sequence[tuple[str, str]], columns: int | None = None) -> None:
        """Add images as (data URI, caption) side by side.

        They wrap on narrow screens; with `columns` they form a grid.
        """
        self._add("strip", images=images, columns=columns)

    def html(self) -> str:
        """Give the page as HTML text."""
        templates = Environment(
            loader=PackageLoader("faigfast.analysis.report", ""),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        return templates.get_template(TEMPLATE).render(title=self.title, parts=self.parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.html())

    def _add(self, kind: str, **content: Any) -> None:
        self.parts.append({"kind": kind, **content})

    def _count(self, kind: str) -> int:
        return sum(part["kind"] == kind for part in self.parts)
