"""DialResult: a dial with its curve on degraded and clean input, beside its rivals'."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import data_frame, measured
from faigfast.analysis.evaluation import (
    MetricValues,
    over_photographs,
    photograph_means,
)
from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.undone import Undone, undone
from faigfast.filters.dial import Dial
from faigfast.filters.filter_set import FilterSet

if TYPE_CHECKING:
    import pandas

DIAL = "dial"
INTERPOLATION = "interpolation of all weights"
OWN_KNOB = "own knob"


@dataclass(frozen=True)
class Candidate:
    """A set of filters that was tried for a dial.

    Parameters
    ----------
    fraction : float
        Requested share of all filters.
    filters : FilterSet
        The set.
    undone : Undone
        Share of the target's gain that masking undoes, on the selection crops.
    clean_change : float
        Change of PSNR on clean input, in dB.
    """

    fraction: float
    filters: FilterSet
    undone: Undone
    clean_change: float


@dataclass(frozen=True)
class DialResult:
    """A dial, the sets that were tried for it, and its curve.

    Parameters
    ----------
    dial : Dial
        The dial.
    contrast : Contrast
        The contrast that ranked them.
    clean : str
        Name of the inputs without degradation.
    candidates : tuple of Candidate
        Every set that was tried, by size.
    chosen : Candidate
        The set of the dial.
    undo : float
        Share of the gain that strength 0 was to undo.
    curves : dict of str to dict
        Way of turning the ability down, "dial" and its rivals, to strength to metric values.
        "interpolation of all weights" has the baseline at 0.
    photographs : tuple of str
        The photograph of each measured crop.
    """

    dial: Dial
    contrast: Contrast
    clean: str
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    undo: float
    curves: dict[str, dict[float, MetricValues]]
    photographs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the dial."""
        return self.dial.name

    @property
    def strengths(self) -> list[float]:
        """Measured strengths, ascending."""
        return list(self.curves[DIAL])

    def psnr(self, way: str, strength: float, degradation: str) -> Tensor:
        """PSNR [N] of every crop in dB."""
        return self.curves[way][strength]["psnr"][degradation]

    def undone(self, way: str = DIAL, strength: float = 0.0) -> Undone:
        """Share of the target's gain over the baseline that a way undoes at a strength.

        The interval is over photographs.
        """
        own = self.contrast.degradation
        return compare_on_photographs(
            self.psnr(way, strength, own),
            self.psnr(INTERPOLATION, 0.0, own),
            self.psnr(INTERPOLATION, 1.0, own),
            self.photographs,
        )

    def clean_change(self, way: str = DIAL, strength: float = 0.0) -> tuple[float, float]:
        """Change of PSNR on clean input against the target, and half of its interval, in dB."""
        change = self.psnr(way, strength, self.clean) - self.psnr(way, 1.0, self.clean)
        return over_photographs(change, self.photographs)[:2]

    def between(
        self, strength: float, degradation: str | None = None, way: str = DIAL
    ) -> tuple[int, int]:
        """Count photographs whose PSNR at a strength lies between strengths 0 and 1, and all."""
        low, now, high = (
            photograph_means(
                self.psnr(way, s, degradation or self.contrast.degradation), self.photographs
            )
            for s in (0.0, strength, 1.0)
        )
        inside = (now >= low.minimum(high)) & (now <= low.maximum(high))
        return int(inside.sum()), len(inside)

    def to_frame(self) -> "pandas.DataFrame":
        """One row a way, strength, degradation of the input and metric.

        Each metric comes with its change from the target; intervals are over photographs.
        """
        rows = []
        for way, by_strength in self.curves.items():
            for strength, values in by_strength.items():
                for degradation in next(iter(values.values())):
                    row: dict[str, Any] = {
                        "degradation": degradation,
                        "dial": self.name,
                        "method": way,
                        "strength": float(strength),
                    }
                    for metric, by_degradation in values.items():
                        now = by_degradation[degradation]
                        full = by_strength[1.0][metric][degradation]
                        for name, one in ((metric, now), (f"{metric}_change", now - full)):
                            mean, half = over_photographs(one, self.photographs)[:2]
                            rows.append(row | measured(name, mean, half))
        return data_frame(rows)

    def sets_frame(self) -> "pandas.DataFrame":
        """One row a set that was tried and metric, as measured on the selection crops."""
        rows: list[dict[str, Any]] = []
        for one in self.candidates:
            row = {
                "degradation": self.contrast.degradation,
                "dial": self.name,
                "fraction": one.fraction,
                "masked_fraction": len(one.filters) / self.dial.total,
                "filter_count": len(one.filters),
                "chosen": one is self.chosen,
            }
            share = measured("undone", one.undone.share, one.undone.half)
            rows.append(row | share | {"outcome": one.undone.outcome})
            rows.append(row | measured("clean_psnr_change", one.clean_change))
        return data_frame(rows)

    def sentences(self) -> list[str]:
        """Say what the dial is and does, and what its rivals do."""
        own = self.contrast.degradation
        text = [
            f"{self.name}: {len(self.chosen.filters)} of {self.dial.total} filters "
            f"({100 * self.dial.share:.2g} %). {self._at_zero(DIAL, 'Strength 0')}"
        ]
        if not self.chosen.undone.share >= self.undo:
            text.append(
                f"{self.name}: no share of the filters undoes {100 * self.undo:.0f} % of the gain "
                "on the selection crops; the set that undoes most was taken."
            )
        for strength in self.strengths:
            if strength == 0.5:
                text.append(f"{self.name}: {self._halfway(DIAL, own)}")
        for way in self.curves:
            if way == SAME_LAYERS:
                random = self._at_zero(
                    way, "Strength 0 of as many random filters of the same layers"
                )
                text.append(f"{self.name}: {random}")
            elif way != DIAL:
                sentence = self._at_zero(way, f"{way[0].upper()}{way[1:]} at strength 0")
                halfway = f" {self._halfway(way, own)}" if 0.5 in self.strengths else ""
                text.append(f"{self.name}: {sentence}{halfway}")
        return text

    def _at_zero(self, way: str, subject: str) -> str:
        lost = self.undone(way)
        if lost.outcome:
            effect = f"has no share of the gain on {self.contrast.degradation} ({lost.outcome})"
        else:
            half = "" if math.isnan(lost.half) else f" ± {100 * lost.half:.0f}"
            effect = (
                f"undoes {100 * lost.share:.0f}{half} % of the target's gain over the baseline on "
                f"{self.contrast.degradation}"
            )
        change, half_width = self.clean_change(way)
        interval = "" if math.isnan(half_width) else f" ± {half_width:.2f}"
        return f"{subject} {effect}, and changes clean input by {change:+.2f}{interval} dB."

    def _halfway(self, way: str, degradation: str) -> str:
        inside, count = self.between(0.5, degradation, way)
        inside_clean, _ = self.between(0.5, self.clean, way)
        return (
            f"At strength 0.5, PSNR lies between strengths 0 and 1 on {inside} of {count} "
            f"photographs with {degradation}, and on {inside_clean} of {count} clean ones."
        )


def compare_on_photographs(
    psnr: Tensor, baseline: Tensor, target: Tensor, photographs: Sequence[str]
) -> Undone:
    """Give the undone share of photographs' means, with its interval over photographs.

    Parameters
    ----------
    psnr, baseline, target : Tensor
        [N] in dB, of crops.
    photographs : sequence of str
        The photograph of each crop.
    """
    means = [photograph_means(values, photographs) for values in (psnr, baseline, target)]
    outcome = undone(*means)
    if outcome.outcome:
        return outcome
    gain = means[2] - means[1]
    rest = (means[2] - means[0]) - outcome.share * gain
    names = [str(n) for n in range(len(rest))]
    return Undone(outcome.share, over_photographs(rest, names)[1] / float(gain.mean()))
