"""The finished records that belong to a sweep's last plan."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faigfast.io.regular_file import shown
from faigfast.sweeps.catalogue import KINDS, Catalogue
from faigfast.sweeps.ledger import DONE, newest, read_records

PLAN = "plan.json"


@dataclass(frozen=True)
class Selection:
    """Finished units of the last plan, each image once.

    Parameters
    ----------
    plan : dict
        Of `Grid.description`.
    catalogue : Catalogue
        What the numbers in the records stand for.
    records : ndarray
        Of `ledger.RECORD`.
    total : int
        Number of units that the plan has, with the halves of the ones that were split.
    """

    plan: dict[str, Any]
    catalogue: Catalogue
    records: np.ndarray
    total: int


def select_records(folder: Path) -> Selection:
    """Read the records of a sweep, also while a driver adds to them.

    Raises
    ------
    FileNotFoundError
        If there is no sweep in the folder.
    ValueError
        If its plan is damaged.
    """
    plan = _plan_of(folder)
    records = newest(read_records(folder))
    catalogue = Catalogue(folder)  # after the records, so that it has all that they refer to
    kept = np.ones(len(records), bool)
    for kind in KINDS[:3]:
        kept &= _among(plan[f"{kind}s"], catalogue.count(kind))[records[kind]]
    records = records if kept.all() else records[kept]
    top = _among(plan["shards"], catalogue.count("shard"))
    split = {_place(record) for record in records[records["state"] != DONE]}
    parts: set[tuple[int, ...]] = set()
    waiting = [place for place in split if top[place[3]]]
    total = plan["units"]
    while waiting:
        *place, shard = waiting.pop()
        total += 1
        for identity, _ in catalogue.halves(shard):
            half = (*place, catalogue.number("shard", identity))
            parts.add(half)  # type: ignore[arg-type]
            if half in split:
                waiting.append(half)  # type: ignore[arg-type]
    own = top[records["shard"]] & (records["state"] == DONE)
    for n in np.flatnonzero(~own):
        own[n] = records["state"][n] == DONE and _place(records[n]) in parts
    return Selection(plan, catalogue, records if own.all() else records[own], total)


def _among(numbers: list[int], count: int) -> np.ndarray:
    """Say which numbers are listed, [count] bool."""
    listed = np.zeros(max(count, 1), bool)
    listed[numbers] = True
    return listed


def _place(record: Any) -> tuple[int, ...]:
    return tuple(int(record[kind]) for kind in KINDS)


def _plan_of(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no sweep in {shown(folder)}; expected the output of `faigfast sweep`"
        ) from None
    except ValueError:
        raise ValueError(f"{folder / PLAN} is damaged; run the sweep again") from None
