"""Figures of dials: PSNR over the strength, and one crop at all strengths."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.analysis.dial import interpolated
from faigfast.analysis.dial_result import DIAL, INTERPOLATION, OWN_KNOB, DialResult
from faigfast.analysis.evaluation import METRICS, over_photographs, restore
from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.report.drawing import PAGE, line_looks, panels, set_title, shown
from faigfast.analysis.report.figures import PANEL
from faigfast.analysis.report.marks import add_legend
from faigfast.analysis.report.palette import GRAY, RIVALS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLES = {DIAL: "black", INTERPOLATION: RIVALS[0], OWN_KNOB: RIVALS[1], SAME_LAYERS: GRAY}


def dial_curves(
    results: Sequence[DialResult], metric: str = "psnr", width: float = PAGE
) -> "Figure":
    """Draw a metric against the strength: degraded and clean input, one panel each a dial.

    Bars are 95 % intervals over photographs of the change against the target.
    """
    pairs = [(one, name) for one in results for name in (one.contrast.degradation, one.clean)]
    figure, axes = panels(len(pairs), width, PANEL)
    looks = line_looks(list(STYLES))
    for axis, (one, degradation) in zip(axes, pairs, strict=True):
        for way, by_strength in one.curves.items():
            full = by_strength[1.0][metric][degradation]
            values = [v[metric][degradation] for v in by_strength.values()]
            means = [over_photographs(v, one.photographs)[0] for v in values]
            halves = [over_photographs(v - full, one.photographs)[1] for v in values]
            axis.errorbar(
                list(by_strength), means, halves, color=STYLES[way], label=way, **looks[way]
            )
        set_title(axis, f"dial {shown(one.name)}, input: {shown(degradation)}")
        axis.set(xlabel="strength: 0 off, 1 target", ylabel=METRICS[metric])
        axis.grid(True)
    add_legend(figure, axes)
    return figure


def dial_images(
    one: DialResult, baseline: nn.Module, target: nn.Module, lq: Mapping[str, Tensor], pad: int = 0
) -> list[dict[str, Tensor]]:
    """Restore one crop at all strengths: degraded by dial and by interpolation, clean by dial.

    Parameters
    ----------
    one : DialResult
        The dial.
    baseline, target : nn.Module
        Its pair.
    lq : mapping of str to Tensor
        The crop [1, C, h, w] by degradation.
    pad : int
        Pixels of reflection around the crop for a network.

    Returns
    -------
    list of dict of str to Tensor
        Rows of images [C, H, W] by caption.
    """
    rows = []
    own = one.contrast.degradation
    for name, way in ((own, DIAL), (own, INTERPOLATION), (one.clean, DIAL)):
        images: dict[str, Tensor] = {}
        for strength in one.strengths:
            network = (
                one.dial.apply(target, strength)
                if way == DIAL
                else interpolated(baseline, target, strength)
            )
            caption = f"{'dial' if way == DIAL else 'interpolation'} {strength:g}"
            images[caption] = restore(network, lq[name], pad)[0]
        side = next(iter(images.values())).shape[1:]
        low = F.interpolate(lq[name], size=side)[0]
        rows.append({f"{shown(name)} input": low, **images})
    return rows
