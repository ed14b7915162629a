"""A study: a pair of networks, crops to attribute, and other crops to measure networks on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from faigfast.analysis.baselines import WEIGHT_METHODS, rank_by
from faigfast.analysis.contrasts import Contrast, one_against_rest
from faigfast.analysis.evaluation import Crops
from faigfast.analysis.finished_parts import FinishedParts, options_text
from faigfast.analysis.swap_units import check_pair
from faigfast.filters.filter_set import FilterSet
from faigfast.io.progress import progress_bar
from faigfast.models.fingerprint import digest_of, fingerprint
from faigfast.result import Attribution
from faigfast.version import __version__

PART_SIZE = 8  # crops attributed at once: the most work that a kill loses


@dataclass(frozen=True)
class Study:
    """Networks, crops and options that every analysis starts from.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    attributed : Crops
        Crops to attribute.
    measured : Crops
        Other crops, to measure networks on.
    border : int
        Pixels left out of measurements on every side.
    contrasts : tuple of Contrast
        Rankings; by default each degradation against all others.
    finished_parts : FinishedParts
        Keeps finished parts.
    steps : int
        Points of the line.
    given : Attribution, optional
        FAIG's result, if there is one already.
    progress : bool
        Show progress bars.
    options : mapping
        Other options of `faigfast.attribute`.
    """

    baseline: nn.Module
    target: nn.Module
    attributed: Crops
    measured: Crops
    border: int
    contrasts: tuple[Contrast, ...] = ()
    finished_parts: FinishedParts = field(default_factory=FinishedParts)
    steps: int = 20
    given: Attribution | None = None
    progress: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill in the contrasts, and check a given attribution."""
        if not self.contrasts:
            object.__setattr__(self, "contrasts", one_against_rest(tuple(self.measured.lq)))
        if self.given is not None:
            check_pair(self.given, self.baseline, self.target)
            if self.given.setting.method != "faig":
                raise ValueError(
                    f"the attribution's scores are {self.given.setting.method!r}; expected 'faig'"
                )
            if set(self.given.degradations) != set(self.measured.lq):
                raise ValueError(
                    f"the attribution is of {', '.join(self.given.degradations)}; expected the "
                    f"degradations of the photographs, {', '.join(self.measured.lq)}"
                )

    def attribution(self, method: str = "faig") -> Attribution:
        """Attribute the crops by FAIG or a rival method, part by part; finished parts are kept."""
        if method == "faig" and self.given is not None:
            return self.given
        size = len(self.attributed.names) if method in WEIGHT_METHODS else PART_SIZE
        starts = range(0, len(self.attributed.names), size)
        parts = []
        for start in progress_bar(
            starts, f"ranking by {method}", unit="part", disable=not self.progress
        ):
            part = self.attributed.part(slice(start, start + size))
            digest = digest_of({"gt": part.gt, **part.lq})[:16]
            name = f"{method} {self.steps} {options_text(self.options)} {list(part.lq)} {digest}"
            parts.append(self.finished_parts.attribution(name, partial(self._rank, method, part)))
        return parts[0].merge(parts[1:])

    def _rank(self, method: str, part: Crops) -> Attribution:
        return rank_by(
            method, self.baseline, self.target, {"lq": part.lq, "gt": part.gt},
            steps=self.steps, progress=self.progress, **self.options,
        )  # fmt: skip

    def tops(self, fraction: float) -> dict[str, FilterSet]:
        """FAIG's best filters of each contrast."""
        result = self.attribution()
        return {contrast.name: contrast.top(result, fraction) for contrast in self.contrasts}


def study_identity(
    baseline: nn.Module, target: nn.Module, attributed: Crops, measured: Crops
) -> dict[str, Any]:
    """Everything that the parts of a study depend on, for its `FinishedParts`."""
    return {
        **({"pad": measured.pad} if measured.pad else {}),
        "baseline": fingerprint(baseline),
        "target": fingerprint(target),
        "degradations": list(measured.lq),
        "attributed": digest_of({"gt": attributed.gt, **attributed.lq}),
        "measured": digest_of({"gt": measured.gt, **measured.lq}),
        "faigfast": __version__,
    }
