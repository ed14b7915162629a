"""Cautions: measured reasons why the scores of a pair may mean little, each with its remedy."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch

from faigfast.io.text_table import counted

if TYPE_CHECKING:
    from faigfast.result import Attribution

# Bounds from docs/lab/barrier.md.
MOST_BARRIER = 0.3
MOST_COMPLETENESS = 0.1
MOST_COSINE = 0.99
NAMES_SHOWN = 3
CAUTIONS = ("barrier: ", "gain: ", "completeness: ", "contrast: ")  # how notes begin


# Two sets of 8 crops of 96×96 shared 62 % (blur) and 82 % (noise) of their top 1 % on the shipped
# pair, sets of 4 48 and 75 %, sets of 2 31 and 65 %, single crops 20 and 51 %.
FEW_IMAGES = 8


def few_images_sentence(images: int) -> str:
    """Say that rankings by few images change with others; "" for `FEW_IMAGES` or more."""
    if images >= FEW_IMAGES:
        return ""
    return (
        f"Scores of {counted(images, 'image')}: rankings change with other images, so expect at "
        f"least {FEW_IMAGES} before conclusions."
    )


class Caution(NamedTuple):
    """Words for a badge, and the complete note."""

    badge: str
    note: str


def cautions(result: "Attribution") -> list[Caution]:
    """List the cautions about a result, those about the pair first."""
    if not result.setting.has_losses:
        return []
    checks = (_barrier, _gain, _completeness, _contrast)
    return [caution for check in checks for caution in check(result)]


def without_cautions(notes: Iterable[str]) -> list[str]:
    """Leave out the cautions: the other notes are about the computation."""
    return [note for note in notes if not note.startswith(CAUTIONS)]


def median_barriers(result: "Attribution") -> dict[str, float]:
    """Median over images of the barrier, by degradation; NaN where there is none."""
    return dict(zip(result.degradations, result.barrier.nanmedian(1).values.tolist(), strict=True))


def pooled_completeness(result: "Attribution") -> dict[str, float]:
    """Give Σ_n |Σ I − (L(θ) − L(θ̄))| / Σ_n |L(θ) − L(θ̄)| by degradation.

    Images whose two losses nearly agree count little in it.
    """
    change = (result.losses[..., 1] - result.losses[..., 0]).abs()  # [D, N]
    missing = torch.where(change > 0, result.completeness * change, 0)
    return dict(zip(result.degradations, (missing.sum(1) / change.sum(1)).tolist(), strict=True))


def cosines(result: "Attribution") -> dict[tuple[str, str], float]:
    """Cosine of the mean scores of every two degradations; NaN where one of the means is 0."""
    scores = result.by_degradation.values()
    means = torch.stack([x.to(torch.promote_types(x.dtype, torch.float32)).mean(0) for x in scores])
    means /= means.norm(dim=1, keepdim=True)
    products, names = (means @ means.T).tolist(), result.degradations
    return {(names[a], names[b]): products[a][b] for b in range(len(names)) for a in range(b)}


def _barrier(result: "Attribution") -> Iterator[Caution]:
    high = {name: b for name, b in median_barriers(result).items() if b > MOST_BARRIER}
    if high:
        yield Caution(
            f"barrier {max(high.values()):.3g}",
            f"barrier: the loss on the line rises far above its ends under {_worst(high)}, as "
            f"median over images (expected at most {MOST_BARRIER:g}): the target was probably not "
            "trained on from this baseline, or at too high a learning rate, and networks with "
            "filters of both may break; expected a target trained on from the baseline, or a "
            "baseline trained on from the target without the degradation",
        )


def _gain(result: "Attribution") -> Iterator[Caution]:
    start, end = result.losses.mean(1).unbind(1)  # [D]
    changes = zip(result.degradations, start.tolist(), end.tolist(), strict=True)
    lost = {name: (a, b) for name, a, b in changes if b >= a}
    if lost:
        shown = [f"{n!r} ({b:.4g} ≥ {a:.4g})" for n, (a, b) in list(lost.items())[:NAMES_SHOWN]]
        yield Caution(
            f"no gain under {next(iter(lost))}",
            "gain: the target's mean loss is not below the baseline's under "
            f"{_and_more(shown, lost)}: its filters remove nothing there; expected a degradation "
            "that the target was trained on",
        )


def _completeness(result: "Attribution") -> Iterator[Caution]:
    errors = pooled_completeness(result)
    high = {name: e for name, e in errors.items() if e > MOST_COMPLETENESS}
    if high and result.setting.method != "gradient":  # one point is no integral
        percent = {name: 100 * error for name, error in high.items()}
        remedy = "tol such as 0.01" if result.setting.tol is None else "a smaller tol"
        yield Caution(
            f"completeness error {100 * max(high.values()):.3g} %",
            "completeness: the attributions miss the difference of the losses by more than "
            f"{100 * MOST_COMPLETENESS:g} % under {_worst(percent, ' %')}; expected more steps, or "
            f"{remedy}",
        )


def _contrast(result: "Attribution") -> Iterator[Caution]:
    if len(result.degradations) < 2 or not result.setting.contrasted:
        return
    high = {pair: c for pair, c in cosines(result).items() if c > MOST_COSINE}
    if high:
        a, b = max(high, key=lambda pair: high[pair])
        others = f" and {len(high) - 1} more pairs" if len(high) > 1 else ""
        yield Caution(
            f"{a} and {b} have one ranking",
            f"contrast: the mean scores of {a!r} and {b!r}{others} are nearly equal (cosine "
            f"{high[a, b]:.4f}, expected at most {MOST_COSINE:g}): there is little to contrast; "
            "expected degradations that different filters remove",
        )


def _worst(values: Mapping[str, float], unit: str = "") -> str:
    """Quote the names and the values of the highest, and count the others."""
    names = sorted(values, key=lambda name: -values[name])[:NAMES_SHOWN]
    return _and_more([f"{name!r} ({values[name]:.3g}{unit})" for name in names], values)


def _and_more(shown: list[str], everything: Mapping[str, object]) -> str:
    more = len(everything) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
