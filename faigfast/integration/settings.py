"""AttributionSettings: how an attribution was computed."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from faigfast.backend.precision import PRECISIONS
from faigfast.integration.quadrature import RULES

# The methods of `faigfast.analysis.baselines`, by what they evaluate: losses on the line, the
# output on a path of images, or the weights alone.
LINE_METHODS = ("faig", "signed", "gradient")
OUTPUT_METHODS = ("input",)
WEIGHT_METHODS = ("change", "relative", "random", "magnitude")
METHODS = (*LINE_METHODS, *OUTPUT_METHODS, *WEIGHT_METHODS)
TOLERANCES = ("tol", "tol_contrast", "overlap")
BACKENDS = ("reference", "torch", "cpu", "triton", "cuda")
TYPES = ("float64", "float32", "bfloat16", "float16")  # precisions of methods without losses


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
    pad : int
        Pixels of reflection around every image.
    tol_contrast, overlap : float, optional
        Error of the contrasts, and share of the best filters that stays, to which batches were
        refined.
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
    pad: int = 0
    tol_contrast: float | None = None
    overlap: float | None = None

    @property
    def signed(self) -> bool:
        """Whether scores may be negative."""
        return self.method == "signed"

    @property
    def has_losses(self) -> bool:
        """Whether the method evaluates losses."""
        return self.method in LINE_METHODS

    @property
    def has_points(self) -> bool:
        """Whether the method evaluates points of a path."""
        return self.method not in WEIGHT_METHODS


def checked_settings(content: Any) -> AttributionSettings:
    """Read settings from JSON; refuse fields of other names, types or ranges.

    Raises
    ------
    ValueError
        Naming the field.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"setting is {reprlib.repr(content)}; expected an object with its fields")
    kinds = get_type_hints(AttributionSettings)
    for name in TOLERANCES:
        kinds[name] = int | float | None
    for name, value in content.items():
        if name not in kinds:
            raise ValueError(f"setting holds {reprlib.repr(name)}; expected {', '.join(kinds)}")
        kind = kinds[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            expected = getattr(kind, "__name__", kind)
            raise ValueError(f"setting {name} is {reprlib.repr(value)}; expected {expected}")
    for entry in fields(AttributionSettings):
        if entry.name not in content and entry.default is MISSING:
            raise ValueError(f"setting has no {entry.name}; expected {', '.join(kinds)}")
    setting = AttributionSettings(**content)
    _check_values(setting)
    return setting


def _check_values(setting: AttributionSettings) -> None:
    """Refuse values that no attribution has."""
    precisions: tuple[str, ...] = tuple(PRECISIONS) if setting.has_losses else TYPES
    known = {
        "method": METHODS,
        "rule": RULES if setting.has_points else ("none",),
        "backend": BACKENDS,
        "precision": precisions,
    }
    for name, expected in known.items():
        value = getattr(setting, name)
        if value not in expected:
            raise ValueError(
                f"setting {name} is {reprlib.repr(value)}; expected one of {', '.join(expected)}"
            )
    least = 1 if setting.has_points else 0
    if setting.steps is not None and setting.steps < least:
        raise ValueError(f"setting steps is {setting.steps}; expected at least {least}")
    if setting.pad < 0:
        raise ValueError(f"setting pad is {setting.pad}; expected a number of pixels from 0 up")
    for name in TOLERANCES:
        value = getattr(setting, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"setting {name} is {value}; expected a positive number")
    if setting.overlap is not None and setting.overlap > 1:
        raise ValueError(f"setting overlap is {setting.overlap}; expected a share up to 1")


def differences(one: Any, other: Any) -> str:
    """Name the fields that differ, with both values; of no dataclasses, the values themselves."""
    if not is_dataclass(one):
        return f"{one} and {other}"
    pairs = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(one)}
    return ", ".join(f"{name} is {a!r} and {b!r}" for name, (a, b) in pairs.items() if a != b)
