"""AttributionSettings: how an attribution was computed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints


@dataclass(frozen=True)
class AttributionSettings:
    """How an attribution was computed; results of equal settings can be merged.

    Parameters
    ----------
    rule : str
        Quadrature rule.
    steps : int, optional
        Its number of nodes as given, with `tol` the most; None: the default for the image's size.
    tol : float, optional
        Estimated error of the scores at which an image was done.
    emulate : bool
        Whether the rule's sum was predicted from fewer nodes.
    objective : str
        Name of the loss.
    backend, precision : str
        The backend and precision that computed the scores.
    per_image : bool
        Whether the scores of every image are kept, or only their mean.
    baseline, target : str
        Fingerprints of the two networks.
    method : str
        Name of the scores: "faig", or a rival of `faigfast.analysis.baselines`.
    contrasted : bool
        Whether `Attribution.contrast` subtracts the other degradations by default; False for
        rivals that are ranked by the score itself.
    seed : int, optional
        Of random scores; None for all others.
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


def checked_settings(content: Mapping[str, Any]) -> AttributionSettings:
    """Read settings from JSON; refuse fields of other names or types.

    Raises
    ------
    TypeError
        Naming the field.
    """
    kinds = get_type_hints(AttributionSettings)
    kinds["tol"] = int | float | None
    for name, value in dict(content).items():
        kind = kinds.get(name, object)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{name} is {value!r}")
    return AttributionSettings(**content)


def differences(one: Any, other: Any) -> str:
    """Name the fields that differ, with both values; of no dataclasses, the values themselves."""
    if not is_dataclass(one):
        return f"{one} and {other}"
    pairs = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return ", ".join(f"{name} is {a!r} and {b!r}" for name, (a, b) in pairs.items() if a != b)
