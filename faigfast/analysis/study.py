"""A study: a pair, crops to attribute, others to measure networks on, and what is kept."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn
from tqdm import tqdm

from faigfast.analysis.baselines import OF_WEIGHTS, rank_by
from faigfast.analysis.contrasts import Contrast, one_against_rest
from faigfast.analysis.evaluation import Crops
from faigfast.analysis.swap_units import check_pair
from faigfast.filters.filter_set import FilterSet
from faigfast.io.finished_parts import Store
from faigfast.models.fingerprint import digest_of, fingerprint
from faigfast.result import Attribution
from faigfast.version import __version__

TOGETHER = 8  # crops of one attribution: the most that a kill costs


@dataclass(frozen=True)
class Study:
    """What every finding begins with.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    found : Crops
        Crops that are attributed.
    kept : Crops
        Others, on which networks are measured.
    border : int
        Pixels left out of measurements on every side.
    contrasts : tuple of Contrast
        Rankings; by default each degradation against all others.
    store : Store
        Keeps finished parts.
    steps : int
        Points of the line.
    given : Attribution, optional
        FAIG's result, where it is known already.
    progress : bool
        Show progress bars.
    options : mapping
        Others of `faigfast.attribute`.
    """

    baseline: nn.Module
    target: nn.Module
    found: Crops
    kept: Crops
    border: int
    contrasts: tuple[Contrast, ...] = ()
    store: Store = field(default_factory=Store)
    steps: int = 20
    given: Attribution | None = None
    progress: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Fill the contrasts in, and check what is given."""
        if not self.contrasts:
            object.__setattr__(self, "contrasts", one_against_rest(tuple(self.kept.lq)))
        if self.given is not None:
            check_pair(self.given, self.baseline, self.target)
            if self.given.setting.method != "faig":
                raise ValueError(
                    f"the attribution's scores are {self.given.setting.method!r}; expected 'faig'"
                )
            if set(self.given.degradations) != set(self.kept.lq):
                raise ValueError(
                    f"the attribution is of {', '.join(self.given.degradations)}; expected the "
                    f"degradations of the photographs, {', '.join(self.kept.lq)}"
                )

    def attribution(self, method: str = "faig") -> Attribution:
        """Attribute the crops by FAIG or a rival, some at a time; finished ones are kept."""
        if method == "faig" and self.given is not None:
            return self.given
        size = len(self.found.names) if method in OF_WEIGHTS else TOGETHER
        starts = range(0, len(self.found.names), size)
        parts = []
        for start in tqdm(starts, f"ranking by {method}", unit="part", disable=not self.progress):
            part = self.found.part(slice(start, start + size))
            of = digest_of({"gt": part.gt, **part.lq})[:16]
            name = f"{method} {self.steps} {sorted(self.options.items())} {list(part.lq)} {of}"
            parts.append(self.store.attribution(name, partial(self._rank, method, part)))
        return parts[0].merge(parts[1:])

    def _rank(self, method: str, part: Crops) -> Attribution:
        return rank_by(
            method, self.baseline, self.target, {"lq": part.lq, "gt": part.gt},
            steps=self.steps, **self.options,
        )  # fmt: skip

    def tops(self, fraction: float) -> dict[str, FilterSet]:
        """FAIG's best filters of each contrast."""
        result = self.attribution()
        return {contrast.name: contrast.top(result, fraction) for contrast in self.contrasts}


def made_from(baseline: nn.Module, target: nn.Module, found: Crops, kept: Crops) -> dict[str, Any]:
    """Tell what the parts of a study follow from, for its `Store`."""
    return {
        "baseline": fingerprint(baseline),
        "target": fingerprint(target),
        "degradations": list(kept.lq),
        "attributed": digest_of({"gt": found.gt, **found.lq}),
        "measured": digest_of({"gt": kept.gt, **kept.lq}),
        "faigfast": __version__,
    }
