"""How an attribution was computed."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """How an attribution was computed; results of one setting can be merged.

    Parameters
    ----------
    rule : str
        Quadrature rule.
    steps : int, optional
        Its nodes as asked for, with `tol` the most of them; None: what is usual for images of a
        size.
    tol : float, optional
        Estimated error of the scores at which an image was done.
    emulate : bool
        Whether the rule's sum was predicted from fewer.
    objective : str
        Name of the loss.
    backend, precision : str
        What was used in the end.
    per_image : bool
        Whether the scores of every image are kept, or their mean alone.
    baseline, target : str
        Fingerprints of the two networks.
    method : str
        What the scores are: "faig", or a rival of `faigfast.analysis.baselines`.
    contrasted : bool
        Whether other degradations' scores are taken off where nothing is said; rivals that are
        ranked by the score itself say no.
    seed : int, optional
        Of scores that are drawn; None of all others.
    """

    rule: str
    steps: int | None
    tol: float | None
    emulate: bool
    objective: str
    backend: str
    precision: str
    per_image: bool
    baseline: str
    target: str
    method: str = "faig"
    contrasted: bool = True
    seed: int | None = None


def differences(one: Any, other: Any) -> str:
    """Name the fields that differ, with both values."""
    if not is_dataclass(one):
        return f"{one} and {other}"
    pairs = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return ", ".join(f"{name} is {a!r} and {b!r}" for name, (a, b) in pairs.items() if a != b)
