"""Undone: the share of the target's gain that an edited network loses, where there is one."""

import math
from dataclasses import dataclass

from torch import Tensor

from faigfast.analysis.evaluation import mean_and_interval, ratio_or_nan

NEGLIGIBLE = 0.1  # dB: a smaller difference counts as none
BROKEN, NO_GAIN = "broken", "no gain"
MEANING = (  # of the outcomes, on pages and in terminals
    f"Broken: the network is worse than both baseline and target, by more than {NEGLIGIBLE:g} dB. "
    f"No gain: the target gains less than {NEGLIGIBLE:g} dB over the baseline. Both leave the "
    "share of the gain open."
)


@dataclass(frozen=True)
class Undone:
    """Share of the target's gain over the baseline that an edited network loses.

    Parameters
    ----------
    share : float
        0 at the target, 1 at the baseline; NaN where it is left open.
    half : float
        Half width of its 95 % confidence interval over crops; NaN for one crop.
    outcome : str
        Why the share is left open: "broken" or "no gain"; else empty.
    """

    share: float
    half: float
    outcome: str = ""

    @property
    def kept(self) -> float:
        """Share of the gain that is left."""
        return 1 - self.share

    def text(self, format_spec: str = ".0f", unit: str = "") -> str:
        """Write the share in %, or the outcome."""
        return self.outcome or f"{100 * self.share:{format_spec}}{unit}"


def undone(psnr: Tensor, baseline: Tensor, target: Tensor) -> Undone:
    """Compare a network with the two that it lies between.

    Parameters
    ----------
    psnr : Tensor
        [N], in dB, of the edited network on the same crops as the pair.
    baseline, target : Tensor
        [N], in dB.

    Returns
    -------
    Undone
        Of mean PSNR. The share is left open if the network is broken, worse than baseline and
        target by more than `NEGLIGIBLE`, or if the target gains less than `NEGLIGIBLE`.
    """
    if float(psnr.mean()) < min(float(baseline.mean()), float(target.mean())) - NEGLIGIBLE:
        return Undone(math.nan, math.nan, BROKEN)
    if not gains(baseline, target):
        return Undone(math.nan, math.nan, NO_GAIN)
    return Undone(*undone_share(target - psnr, target - baseline))


def gains(baseline: Tensor, target: Tensor) -> bool:
    """Whether the target's mean PSNR exceeds the baseline's by at least `NEGLIGIBLE`; [N] in dB."""
    return float((target - baseline).mean()) >= NEGLIGIBLE


def undone_share(lost: Tensor, gain: Tensor) -> tuple[float, float]:
    """Lost share of the target's gain, both [N], and half of its 95 % interval over crops.

    The interval of a ratio of two means, by linear expansion. It is NaN for one crop; both are NaN
    where the target gains nothing.
    """
    mean_gain = float(gain.mean())
    share = ratio_or_nan(float(lost.mean()), mean_gain)
    if math.isnan(share):
        return share, math.nan
    return share, mean_and_interval(lost - share * gain)[1] / mean_gain
