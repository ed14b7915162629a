"""One self-contained HTML page: text, tables and figures, readable in light and dark."""

import html
import os
from collections.abc import Sequence

from faigfast.files import write_text

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
tbody tr:hover { background: var(--soft); }
.figure { background: white; border-radius: 6px; padding: .5rem; overflow-x: auto; }
.figure svg { width: 100%; height: auto; min-width: 30rem; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; }
.strip figure { margin: 0; }
.strip img { width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }
figcaption, .note { font-size: .85rem; opacity: .8; }
code { background: var(--soft); padding: .1rem .3rem; border-radius: 4px; }
"""


class Page:
    """A page that grows section by section; all text is escaped.

    Parameters
    ----------
    title : str
        Of the page.
    """

    def __init__(self, title: str) -> None:
        self.title = html.escape(title)
        self.parts = [f"<h1>{self.title}</h1>"]

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def text(self, text: str, note: bool = False) -> None:
        """Add a paragraph; a note is set smaller."""
        kind = ' class="note"' if note else ""
        self.parts.append(f"<p{kind}>{html.escape(text)}</p>")

    def code(self, text: str) -> None:
        """Add a line of code."""
        self.parts.append(f"<p><code>{html.escape(text)}</code></p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column is text, the others are figures."""
        top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        self.parts.append(
            f'<div class="scroll"><table><thead><tr>{top}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def figure(self, svg: str) -> None:
        """Add a drawing, on white in both modes."""
        self.parts.append(f'<div class="figure">{svg}</div>')

    def strip(self, images: Sequence[tuple[str, str]]) -> None:
        """Add images as (data URI, caption) side by side, wrapping on narrow screens."""
        cells = "".join(
            f'<figure><img src="{uri}" alt="{html.escape(caption)}" loading="lazy">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
            for uri, caption in images
        )
        self.parts.append(f'<div class="strip">{cells}</div>')

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        body = "\n".join(self.parts)
        write_text(
            path,
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{self.title}</title><style>{STYLE}</style></head>\n"
            f"<body>\n{body}\n</body></html>\n",
        )
