"""The full report: every analysis of a pair on one page."""

from collections.abc import Callable, Sequence

from faigfast.analysis.data_frames import without_parquet
from faigfast.analysis.report.builder import write_report
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections import SECTIONS, Material

PAGE = "report.html"


def write_full_report(
    material: Material, title: str, command: str, remarks: Sequence[str] = ()
) -> tuple[float, list[str]]:
    """Run all analyses and write `report.html`, and each table as CSV and Parquet.

    Parameters
    ----------
    material : Material
        Study, crops and options; finished parts of the study are not computed again.
    title, command, remarks
        As in `faigfast.analysis.report.builder.write_report`.

    Returns
    -------
    seconds, notes
        As `write_report`.

    Raises
    ------
    ImportError
        If an extra is missing, by name.
    """
    apart = ", measured on crops that were not attributed" if material.study.given is None else ""
    introduction = (
        "Which filters of a restoration network remove which degradation? Filter attribution with "
        f"integrated gradients (FAIG) ranks them; here is what follows from the ranking{apart}."
    )
    reading = (
        "± is half of a 95 % confidence interval, over crops where nothing else is said. Heads "
        "of tables sort them. Below each part is the command that gives its numbers."
    )
    return write_report(
        material.folder / PAGE,
        title,
        [introduction],
        {name: _with(material, section) for name, section in SECTIONS.items()},
        command,
        remarks=[*remarks, reading],
        notes=lambda: without_parquet(material.files),
        progress=material.study.progress,
    )


def _with(material: Material, section: Callable[[Page, Material], None]) -> Callable[[Page], None]:
    return lambda page: section(page, material)
