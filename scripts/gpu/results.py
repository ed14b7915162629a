"""The results file: JSON lines, each with what ran, how it ended, and where."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]

COMPLETE = "complete"  # state of a line without a step: every step of the item has a line
BEGUN = "begun"
PASSED = "passed"
FAILURES = ("failed", "crashed", "hung")
NOT_RUN, CUT = "not run", "cut"  # neither is a result: what is missing may be there next time


@dataclass(frozen=True)
class Results:
    """Lines of one file, appended whole; several processes may append in turn."""

    path: Path

    def append(self, **fields: Any) -> None:
        """Add a line; one that a killed process left torn stays a line of its own."""
        line = json.dumps(fields | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
        with self.path.open("ab") as file:
            torn = file.tell() and not self.path.read_bytes().endswith(b"\n")
            file.write(b"\n" * bool(torn) + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> list[Line]:
        """Read all whole lines, oldest first."""
        if not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and {"item", "step", "state"} <= line.keys():
                lines.append(line)
        return lines


def newest(lines: list[Line], item: str, stamp: Line) -> dict[str, Line]:
    """Map each step of an item to its newest line for the same sources on the same device."""
    wanted = item, stamp["sources"], stamp["device"]
    return {
        line["step"]: line
        for line in lines
        if (line["item"], line.get("sources"), line.get("device")) == wanted
    }


def recorded(lines: list[Line], item: str, stamp: Line, retry: bool = False) -> set[str] | None:
    """List the steps that need not run again; None where the whole item need not.

    Parameters
    ----------
    lines : list of dict
        Lines of the results file.
    item : str
        Name of the item.
    stamp : dict
        `sources` and `device` that a line must have.
    retry : bool
        Whether steps that failed, crashed or hung run again.
    """
    steps = newest(lines, item, stamp)
    done = (PASSED,) if retry else (PASSED, *FAILURES)
    whole = steps.pop("", {}).get("state") == COMPLETE
    ended = {name for name, line in steps.items() if line["state"] in done}
    return None if whole and len(ended) == len(steps) else ended


def has_failed(lines: list[Line], item: str) -> bool:
    """Whether the newest line of any step, of whatever sources, is a failure."""
    states = {line["step"]: line["state"] for line in lines if line["item"] == item}
    return any(state in FAILURES for state in states.values())
