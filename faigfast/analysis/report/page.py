"""One self-contained HTML page: conclusion, charts, images, tables; light, dark and printed."""

import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from faigfast.analysis.report.charts import Chart
from faigfast.analysis.report.conclusion import Conclusion
from faigfast.analysis.report.filter_browser import FilterBrowser
from faigfast.analysis.report.scenes import Dial, Scene
from faigfast.io.atomic import write_text

TEMPLATE = "page.html.jinja"
STYLES = ("page.css",)
# Order matters: Plot needs d3, the last one starts everything.
LIBRARIES = ("d3.min.js", "plot.umd.min.js")
SCRIPTS = ("page.js", "charts.js", "images.js", "filters.js", "start.js")


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
        self.conclusion: Conclusion | None = None

    def conclude(self, conclusion: Conclusion) -> None:
        """Set the box on top of the page; sections may do so at any time."""
        self.conclusion = conclusion

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._add("heading", text=text, number=self._count("heading") + 1)

    def text(self, text: str, note: bool = False) -> None:
        """Add a paragraph; a note is set smaller."""
        self._add("text", text=text, note=note)

    def badge(self, text: str, reason: str) -> None:
        """Add a few words on a warning colour, and the reason beside them."""
        self._add("badge", text=text, reason=reason)

    def code(self, text: str) -> None:
        """Add a line of code."""
        self._add("code", text=text)

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        summary: str = "",
        name: str = "",
        csv: str = "",
    ) -> None:
        """Add a table that can be sorted and downloaded; columns without digits are set as words.

        With a `summary` the table is folded away behind it. `name` is the stem of its CSV, and
        `csv` the content; without it the CSV has the shown cells.
        """
        columns = ["".join(row[n] for row in rows) for n in range(len(head))]
        words = [not any(map(str.isdigit, column)) for column in columns]
        marked = [list(zip(words, cells, strict=True)) for cells in (head, *rows)]
        number = self._count("table") + 1
        name = name or f"table-{number}"
        self._add(
            "table", head=marked[0], rows=marked[1:], summary=summary, name=name, number=number,
            csv=csv,
        )  # fmt: skip

    def chart(self, chart: Chart) -> None:
        """Add a chart with its legend, values and downloads."""
        self._add("chart", chart=chart, content=chart.content(), number=self._count("chart") + 1)

    def scene(self, scene: Scene) -> None:
        """Add images of one crop to compare: zoom, A/B slider, differences."""
        self._add("scene", scene=scene, number=self._count("scene") + 1)

    def dial(self, dial: Dial) -> None:
        """Add images that one or two sliders choose from."""
        content = {"axes": dial.axes, "captions": [caption for _, caption in dial.images]}
        self._add("dial", dial=dial, content=content, number=self._count("dial") + 1)

    def browser(self, browser: FilterBrowser) -> None:
        """Add the browser of filters; a page holds one."""
        self._add("browser", content=browser.content(), note=browser.note)

    def html(self) -> str:
        """Give the page as HTML text."""
        templates = Environment(
            loader=PackageLoader("faigfast.analysis.report", ""),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        kinds = {part["kind"] for part in self.parts}
        drawn = LIBRARIES if "chart" in kinds else ()
        return templates.get_template(TEMPLATE).render(
            title=self.title,
            parts=self.parts,
            conclusion=self.conclusion,
            styles=[asset(name) for name in STYLES],
            scripts=[asset(name) for name in (*drawn, *SCRIPTS)],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""
        write_text(path, self.html())

    def _add(self, kind: str, **content: Any) -> None:
        self.parts.append({"kind": kind, **content})

    def _count(self, kind: str) -> int:
        return sum(part["kind"] == kind for part in self.parts)


@cache
def asset(name: str) -> Markup:
    """Read a script or style of this package, to be put into a page as it is."""
    file = files("faigfast.analysis.report") / "assets" / name
    return Markup(file.read_text(encoding="utf-8"))
