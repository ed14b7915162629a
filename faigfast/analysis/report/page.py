"""One self-contained HTML page: text, tables and figures, readable in light and dark."""

import html
import os
import re
from collections.abc import Sequence

from faigfast.io.atomic import write_text

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child, .words { text-align: left; }
tbody tr:hover { background: var(--soft); }
thead th { cursor: pointer; white-space: nowrap; vertical-align: bottom; user-select: none; }
thead th[aria-sort=ascending]::after { content: " ▲"; font-size: .7em; }
thead th[aria-sort=descending]::after { content: " ▼"; font-size: .7em; }
td { white-space: nowrap; }
nav ul { columns: 16rem; column-gap: 2rem; padding-left: 1.2rem; }
a { color: inherit; }
details { margin: .8rem 0; } summary { cursor: pointer; }
.figure { background: white; border-radius: 6px; padding: .5rem; overflow-x: auto; }
.figure, .scroll, .strip { margin: .8rem 0; }
.figure svg { width: 100%; height: auto; min-width: 30rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.8rem, 1fr)); gap: .6rem; }
.strip figure { margin: 0; }
.strip img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption, .note { font-size: .85rem; opacity: .8; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: 4px; font-size: .85em; }
p.command { overflow-wrap: anywhere; }
"""

# Sorting: a click on a head sorts by its column, a second click reverses the order.
SCRIPT = """
"use strict";
window.addEventListener("error", () => { document.documentElement.dataset.error = "yes"; });
for (const head of document.querySelectorAll("thead th")) {
  head.tabIndex = 0;
  const sort = () => {
    const table = head.closest("table"), body = table.tBodies[0], n = head.cellIndex;
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => {
      const text = row.cells[n].textContent, value = parseFloat(text.replace("−", "-"));
      return Number.isNaN(value) ? [1, text] : [0, value];
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1);
    // Cells without a number stay below.
    rows.sort(([a], [b]) => a[0] - b[0] || compare(a[1], b[1]));
    body.append(...rows.map(([, row]) => row));
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
}
document.documentElement.dataset.ready = "yes";
"""


class Page:
    """A page that grows section by section; all text is escaped.

    Parameters
    ----------
    title : str
        Title of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = html.escape(title)
        self.parts = [f"<h1>{self.title}</h1>"]
        self.headings: list[str] = []
        self.contents: int | None = None
        self.figures = 0

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.headings.append(html.escape(text))
        self.parts.append(f'<h2 id="part-{len(self.headings)}">{html.escape(text)}</h2>')

    def list_contents(self) -> None:
        """Put the list of all sections here."""
        self.contents = len(self.parts)

    def text(self, text: str, note: bool = False) -> None:
        """Add a paragraph; a note is set smaller."""
        kind = ' class="note"' if note else ""
        self.parts.append(f"<p{kind}>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add a line of code."""
        self.parts.append(f'<p class="command"><code>{html.escape(text)}</code></p>')

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], summary: str = "") -> None:
        """Add a table that can be sorted; columns without digits are set as words.

        With a `summary` the table is folded away behind it.
        """
        columns = ["".join(row[n] for row in rows) for n in range(len(head))]
        kinds = ["" if any(map(str.isdigit, column)) else ' class="words"' for column in columns]

        def cells(tag: str, row: Sequence[str]) -> str:
            pairs = zip(kinds, row, strict=True)
            return "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in pairs)

        top = cells("th", head)
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
        table = (
            f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        if summary:
            table = f"<details><summary>{html.escape(summary)}</summary>{table}</details>"
        self.parts.append(table)

    def figure(self, svg: str) -> None:
        """Add a drawing, on white in light and dark; it scales with the page, up to 1.5 times."""
        self.figures += 1
        # Ids repeat between drawings, and a page may hold an id once.
        id_or_reference = re.compile(r'(\bid="|href="#|url\(#)')
        svg = id_or_reference.sub(rf"\g<1>figure-{self.figures}-", svg)
        width = re.search(r'<svg [^>]*?width="([\d.]+)pt"', svg)
        if width:
            limited = f'<svg style="max-width: {1.5 * float(width[1]):.0f}pt" '
            svg = svg.replace("<svg ", limited, 1)
        self.parts.append(f'<div class="figure">{svg}</div>')

    def strip(self, images: Sequence[tuple[str, str]], columns: int | None = None) -> None:
        """Add images as (data URI, caption) side by side.

        They wrap on narrow screens; with `columns` they form a grid.
        """
        cells = "".join(
            f'<figure><img src="{uri}" alt="{html.escape(caption)}" loading="lazy">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for uri, caption in images
        )
        grid = f' style="grid-template-columns: repeat({columns}, 1fr)"' if columns else ""
        self.parts.append(f'<div class="strip"{grid}>{cells}</div>')

    def html(self) -> str:
        """Give the page as HTML text."""
        parts = list(self.parts)
        if self.contents is not None:
            items = "".join(
                f'<li><a href="#part-{n}">{text}</a></li>'
                for n, text in enumerate(self.headings, 1)
            )
            parts.insert(self.contents, f"<nav><ul>{items}</ul></nav>")
        body = "\n".join(parts)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{self.title}</title><style>{STYLE}</style></head>\n"
            f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body></html>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.html())
