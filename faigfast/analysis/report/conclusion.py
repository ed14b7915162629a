"""The box on top of the page: three sentences, badges, and the best strip of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.masking import SAME_LAYERS, Masking, Measurement
from faigfast.analysis.report.scenes import Scene
from faigfast.analysis.undone import BROKEN, NO_GAIN, Undone
from faigfast.integration.cautions import cautions, median_barriers, pooled_completeness
from faigfast.result import Attribution

SHOWN_CONTRASTS = 3  # in a sentence


@dataclass(frozen=True)
class Badge:
    """A few words on a colour.

    Parameters
    ----------
    text : str
        The words.
    sound : bool
        Whether they speak for the result; else they warn.
    reason : str
        Explanation of a warning.
    """

    text: str
    sound: bool
    reason: str = ""


@dataclass(frozen=True)
class Conclusion:
    """Content of the box.

    Parameters
    ----------
    sentences : sequence of str
        Share undone, controls beside it, effect on other inputs.
    badges : sequence of Badge
        Accuracy, barrier, and every caution.
    strip : Scene, optional
        Images of the crop with the largest gain.
    strip_note : str
        How the crop was chosen.
    """

    sentences: Sequence[str]
    badges: Sequence[Badge]
    strip: Scene | None = None
    strip_note: str = ""


def conclude(
    masking: Masking, result: Attribution, strip: Scene | None = None, strip_note: str = ""
) -> Conclusion:
    """Draw the conclusion of a masking at its smallest share."""
    return Conclusion(sentences(masking), badges(result), strip, strip_note)


def sentences(masking: Masking) -> list[str]:
    """Say the share undone, then what random controls undo, then the effect on other inputs."""
    fraction = min(m.fraction for m in masking.masked)
    shown = masking.contrasts[:SHOWN_CONTRASTS]
    tops = {c.name: masking.find(c.name, fraction, "faig") for c in shown}
    own = {_named(c): masking.outcome(tops[c.name], c.degradation) for c in shown}
    rest = len(masking.contrasts) - len(shown)
    more = f" ({rest} more contrasts are below)" if rest else ""
    texts = [
        f"Setting the top {100 * fraction:g}\N{NO-BREAK SPACE}% of filters, "
        f"{tops[shown[0].name].count} for each, back to the baseline's weights "
        f"{_effect(own)} of the target's gain over the baseline{more}."
    ]
    controls = []
    for words, method in (("anywhere", "random"), ("in the same layers", SAME_LAYERS)):
        outcomes = {
            _named(c): masking.outcome(m, c.degradation)
            for c in shown
            if (m := _control(masking, c.name, fraction, method))
        }
        if outcomes:
            controls.append(f"{words} {_effect(outcomes)}")
    texts.append(
        f"Masking as many random filters {'; '.join(controls)}."
        if controls
        else "No random control was measured."
    )
    others = {
        f"{other} input, {c.name} filters": outcome
        for c in shown
        for other in masking.target
        if other != c.degradation
        and (outcome := masking.outcome(tops[c.name], other)).outcome != NO_GAIN
    }
    if others:
        texts.append(f"On the other inputs masking {_effect(dict(list(others.items())[:4]))}.")
    else:
        texts.append("No other input gains from the target: how selective they are stays open.")
    return texts


def _control(masking: Masking, name: str, fraction: float, method: str) -> Measurement | None:
    """Find the random control of a contrast; one random set may serve all contrasts."""
    names = (name, method)
    same = (m for m in masking.masked if m.method == method and m.fraction == fraction)
    return next((m for m in same if m.filters in names), None)


def _named(contrast: Contrast) -> str:
    other_name = contrast.name != contrast.degradation
    return f"{contrast.degradation}, {contrast.name}" if other_name else contrast.degradation


def _effect(outcomes: Mapping[str, Undone]) -> str:
    """Write shares with their intervals, then where the network broke or had gained nothing."""
    space = "\N{NO-BREAK SPACE}"
    shares = []
    for name, one in outcomes.items():
        if not one.outcome:
            half = "" if math.isnan(one.half) else f"{space}±{space}{100 * one.half:.0f}"
            share = f"{100 * one.share:.0f}".replace("-", "−")
            shares.append(f"{share}{half}{space}% ({name})")
    parts = [f"undoes {_and(shares)}"] if shares else []
    for outcome, words in ((BROKEN, "breaks the network on"), (NO_GAIN, "finds no gain on")):
        names = [name for name, one in outcomes.items() if one.outcome == outcome]
        if names:
            parts.append(f"{words} {_and(names)}")
    return " and ".join(sorted(parts, key=lambda part: part.startswith("undoes")))


def _and(texts: Sequence[str]) -> str:
    return ", ".join(texts[:-1]) + (" and " if len(texts) > 1 else "") + texts[-1]


def badges(result: Attribution) -> list[Badge]:
    """Judge accuracy and barrier, then give every other caution."""
    warnings = {one.note.partition(":")[0]: one for one in cautions(result)}
    errors, barriers = pooled_completeness(result), median_barriers(result)
    given: list[Badge] = []
    for kind, values, text in (
        ("completeness", errors, lambda v: f"accuracy: sum misses {100 * v:.2g} % of the loss"),
        ("barrier", barriers, lambda v: f"barrier {v:.2g}"),
    ):
        known = [v for v in values.values() if v == v]
        if kind in warnings:
            given.append(Badge(warnings[kind].badge, False, warnings[kind].note))
        elif known:
            given.append(Badge(text(max(known)), True))
        else:
            given.append(Badge(f"{kind} unknown", False, f"{kind}: no losses were evaluated"))
    given += [
        Badge(one.badge, False, one.note)
        for kind, one in warnings.items()
        if kind not in ("completeness", "barrier")
    ]
    return given
