"""The builder of reports: an introduction, sections and the command, on one page."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

from faigfast.analysis.report.page import Page
from faigfast.io.progress import progress_bar

MOST_BYTES = 10_000_000  # of a page that still fits into an e-mail


def write_report(
    path: str | os.PathLike[str],
    title: str,
    introduction: Sequence[str],
    sections: Mapping[str, Callable[[Page], None]],
    command: str,
    *,
    remarks: Sequence[str] = (),
    notes: Callable[[], list[str]] = list,
    progress: bool = False,
    seconds_before: float = 0.0,
) -> tuple[float, list[str]]:
    """Run the sections of a report, and write its page.

    Parameters
    ----------
    path : path-like
        The HTML file.
    title : str
        Title of the page.
    introduction : sequence of str
        First paragraphs.
    sections : mapping of str to callable
        Section by the name that the progress bar shows; each adds its part to the page.
    command : str
        The command that makes the report.
    remarks : sequence of str
        Data and machine that the numbers come from.
    notes : callable
        Gives further notes when all sections have run.
    progress : bool
        Show a progress bar.
    seconds_before : float
        Run time of computations before the sections.

    Returns
    -------
    seconds : float
        Run time.
    notes : list of str
        Missing or too large parts; the page shows these notes too.
    """
    start = time.perf_counter()
    page = Page(title)
    for text in introduction:
        page.text(text)
    for remark in remarks:
        page.text(remark, note=True)
    bar = progress_bar(sections.items(), "report", unit="part", disable=not progress)
    for name, section in bar:
        bar.set_postfix_str(name)
        section(page)
    seconds = seconds_before + time.perf_counter() - start
    page.heading("Command")
    page.code(command)
    page.text(f"Computed in {seconds:.0f} s, without what an earlier run had finished.", note=True)
    texts = notes()
    size = len(page.html().encode())
    if size > MOST_BYTES:
        texts.append(
            f"the page has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g}; fewer degradations "
            "or contrasts make it smaller"
        )
    for text in texts:
        page.text(f"{text[0].upper()}{text[1:]}.", note=True)
    page.save(path)
    return seconds, texts
