"""The table of architectures, from their measured rows."""

from collections.abc import Iterable
from typing import Any

from networks import EXTRA, INSTANCES

RIGHT = 1e-4  # relative error of scores
ROUNDING = 3.0  # factor between the error and a plain float32 loop's own
SLOW = 1.5  # times the plain loop, warm


def is_right(row: dict[str, Any]) -> bool:
    """Whether scores equal those of the float64 loop up to rounding.

    Some networks round a choice, such as the nearest code of a codebook, so that a plain loop in
    float32 differs from one in float64 too.
    """
    return bool(row["error"] <= max(RIGHT, ROUNDING * row["loop_error"]))


def verdict(row: dict[str, Any]) -> str:
    """Say in a few words what came of a network."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    if "refused" in row:
        return f"refused: {row['refused']}"
    words = ["right" if is_right(row) else "wrong", f"error {row['error']:.1e}"]
    words.append("folded" if row["folded"] else "point by point")
    if "warm" in row:
        words.append(f"warm {row['warm'] / row['loop']:.2f} × loop")
        words.append(f"first {row['first'] / row['loop']:.1f} × loop")
    return ", ".join([*words, *_notes(row)])


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Give rows as a Markdown table, with a count of verdicts above it."""
    rows = list(rows)
    lines = [_counts(rows), ""]
    lines += ["| network | backend | folded | error | loop | first | warm | notes |"]
    lines += ["|---|---|---|--:|--:|--:|--:|---|"]
    return "\n".join(lines + [_line(row) for row in rows])


def _counts(rows: list[dict[str, Any]]) -> str:
    measured = [row for row in rows if "error" in row]
    right = sum(map(is_right, measured))
    slow = sum(row["warm"] > SLOW * row["loop"] for row in measured if "warm" in row)
    return (
        f"{len(rows)} networks: {right} right, {len(measured) - right} wrong, "
        f"{sum('refused' in row for row in rows)} refused with a reason, "
        f"{sum('failed' in row for row in rows)} failed; "
        f"{sum(row['folded'] for row in measured)} folded; {slow} slower when warm than "
        f"{SLOW} times the plain loop."
    )


def _line(row: dict[str, Any]) -> str:
    name = row["name"] + (" (extra)" if INSTANCES[row["name"]].package == EXTRA else "")
    if "error" not in row:
        return f"| {name} | | | | | | | {_cell(verdict(row))} |"
    cells = [name, row["backend"], "yes" if row["folded"] else "no", f"{row['error']:.1e}"]
    if "warm" in row:
        loop = row["loop"]
        cells += [f"{loop:.2f} s", f"{row['first'] / loop:.1f}", f"{row['warm'] / loop:.2f}"]
    else:
        cells += ["", "", ""]
    return f"| {' | '.join([*cells, _cell('; '.join(_notes(row)))])} |"


def _notes(row: dict[str, Any]) -> list[str]:
    """Give the notes without those on backends and untrained pairs, or that repeat a reason."""
    notes: dict[str, str] = {}
    for note in row["notes"]:
        subject, _, reason = note.partition(": ")
        if subject not in ("backend", "barrier", "gain", "completeness", "contrast"):
            notes.setdefault(reason, note)
    return list(notes.values())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
