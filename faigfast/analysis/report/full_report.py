"""The full report: every analysis of a pair on one page."""

import time
from collections.abc import Sequence

from tqdm import tqdm

from faigfast.analysis.data_frames import without_parquet
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections import SECTIONS, Material

MOST_BYTES = 10_000_000  # of a page that still fits into an e-mail


def write_report(
    material: Material, title: str, command: str, remarks: Sequence[str] = ()
) -> tuple[str, float, list[str]]:
    """Run all analyses and write `report.html`, and each table as CSV and Parquet.

    Parameters
    ----------
    material : Material
        Study, crops and options; finished parts of the study are not computed again.
    title : str
        Title of the page.
    command : str
        The command that makes the report.
    remarks : sequence of str
        Data and machine that the numbers come from.

    Returns
    -------
    page : str
        Name of the file in the material's folder.
    seconds : float
        Run time.
    notes : list of str
        Missing or too large parts; the page shows these notes too.

    Raises
    ------
    ImportError
        If an extra is missing, by name.
    """
    start = time.perf_counter()
    page = Page(title)
    apart = ", measured on crops that were not attributed" if material.study.given is None else ""
    page.text(
        "Which filters of a restoration network remove which degradation? Filter attribution with "
        f"integrated gradients (FAIG) ranks them; here is what follows from the ranking{apart}."
    )
    for remark in remarks:
        page.text(remark, note=True)
    page.text(
        "± is half of a 95 % confidence interval, over crops where nothing else is said. Tables "
        "sort by a click on a head. Below each part stands the command that gives its numbers.",
        note=True,
    )
    page.list_contents()
    bar = tqdm(SECTIONS.items(), "report", unit="part", disable=not material.study.progress)
    for name, section in bar:
        bar.set_postfix_str(name)
        section(page, material)
    seconds = time.perf_counter() - start
    page.heading("Command")
    page.code(command)
    page.text(f"Computed in {seconds:.0f} s, without what an earlier run had finished.", note=True)
    notes = without_parquet(material.files)
    size = len(page.html().encode())
    if size > MOST_BYTES:
        notes.append(
            f"the page has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:g}; fewer degradations "
            "or contrasts make it smaller"
        )
    for text in notes:
        page.text(f"{text[0].upper()}{text[1:]}.", note=True)
    page.save(material.folder / "report.html")
    return "report.html", seconds, notes
