"""Dials: the filters of each ability by measured effect, and their curve beside two rivals."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import Contrast, check_contrasts
from faigfast.analysis.dial_result import (
    DIAL,
    INTERPOLATION,
    OWN_KNOB,
    Candidate,
    DialResult,
    compare_on_photographs,
)
from faigfast.analysis.evaluation import Crops, check_metrics, mean_values
from faigfast.analysis.finished_parts import FinishedParts
from faigfast.analysis.masking import DRAWS, SAME_LAYERS
from faigfast.analysis.measure import measure_all
from faigfast.analysis.modulation import check_strength
from faigfast.analysis.swap_units import check_pair, random_of_same_layers
from faigfast.analysis.undone import BROKEN, NEGLIGIBLE, NO_GAIN
from faigfast.filters.dial import Dial
from faigfast.filters.filter_set import FilterSet
from faigfast.models.state import check_same_layout, copy_of, tensors, unwrap
from faigfast.result import Attribution

CLEAN = "clean"
FRACTIONS = (0.01, 0.02, 0.03, 0.05, 0.1)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
UNDO = 0.6  # share of the gain that strength 0 is to undo
METRICS = ("psnr", "ssim")

# Way of turning an ability down → strength → networks, whose mean is taken.
Ways = dict[str, dict[float, list[Callable[[], nn.Module]]]]


def make_dials(
    baseline: nn.Module,
    target: nn.Module,
    result: Attribution,
    selection: Crops,
    measured: Crops,
    *,
    contrasts: Sequence[Contrast] | None = None,
    clean: str = CLEAN,
    fractions: Sequence[float] = FRACTIONS,
    strengths: Sequence[float] = STRENGTHS,
    undo: float = UNDO,
    border: int,
    metrics: Sequence[str] = METRICS,
    own_knob: Callable[[float], nn.Module] | None = None,
    finished_parts: FinishedParts | None = None,
    progress: bool = False,
) -> tuple[DialResult, ...]:
    """Make a dial for each degradation, and measure it.

    Sets of several sizes are masked on the selection crops. The smallest set that undoes enough
    of the target's gain becomes the dial. Its curve is measured on other crops, beside network
    interpolation of all weights. Dials of several degradations share no filter: a filter belongs to
    the contrast where its part of all scores is largest.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair of the result.
    result : Attribution
        Result for the degradations and for clean images.
    selection, measured : Crops
        Crops to choose the sets on, and crops to measure them on; better not the attributed ones.
    contrasts : sequence of Contrast, optional
        One a dial. None: each degradation but `clean` against the mean of all others.
    clean : str
        Name of the inputs without degradation.
    fractions : sequence of float
        Shares of all filters in (0, 1] that are tried.
    strengths : sequence of float
        Of the curve; 0 and 1 are always measured.
    undo : float
        Share in (0, 1] of the target's gain over the baseline that strength 0 is to undo.
    border : int
        Pixels left out of PSNR and SSIM on every side.
    metrics : sequence of str
        Of `faigfast.analysis.evaluation.METRICS`; PSNR is always measured.
    own_knob : callable, optional
        Gives the target at a strength by its own means, such as a noise level that it takes.
    finished_parts : FinishedParts, optional
        Keeps every measured network.
    progress : bool
        Show progress bars.

    Returns
    -------
    tuple of DialResult
        In the order of the contrasts.

    Raises
    ------
    ValueError
        If an argument is out of range, the target gains nothing by a degradation, or every set
        breaks the network.

    Notes
    -----
    Source of the interpolation of all weights: Wang, Yu, Dong, Tang and Loy, CVPR 2019 (DNI).
    """
    check_pair(result, baseline, target)
    for name, data in (("selection", selection), ("measured", measured)):
        if clean not in data.lq:
            raise ValueError(
                f"{name} crops have the degradations {', '.join(data.lq)}; expected {clean!r} too"
            )
    if contrasts is None:
        contrasts = [Contrast(name, name) for name in result.degradations if name != clean]
    check_contrasts(contrasts, tuple(n for n in result.degradations if n in measured.lq))
    if clean in [contrast.degradation for contrast in contrasts]:
        raise ValueError(f"a contrast is of {clean!r}, which nothing is removed from")
    fractions = sorted(set(fractions))
    if not fractions or not all(0 < fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions are {list(fractions)}; expected shares in (0, 1]")
    if not 0 < undo <= 1:
        raise ValueError(f"undo is {undo}; expected a share in (0, 1]")
    levels = sorted({0.0, 1.0, *(check_strength(s, "strengths") for s in strengths)})
    metrics = tuple(dict.fromkeys(("psnr", *metrics)))
    check_metrics(metrics)
    common: dict[str, Any] = {
        "border": border,
        "finished_parts": finished_parts,
        "progress": progress,
    }

    candidates = _candidates(
        baseline, target, _sets_by_fraction(result, contrasts, fractions), contrasts, clean,
        selection, common,
    )  # fmt: skip
    chosen = {c.name: choose(candidates[c.name], undo, c.degradation) for c in contrasts}
    dials = {
        name: Dial.from_filters(one.filters, baseline, target, name=name)
        for name, one in chosen.items()
    }
    ways = {}
    for name, dial in dials.items():
        draws = random_of_same_layers(target, result, chosen[name].filters, "kernel", DRAWS)
        random: list[Callable[[], nn.Module]] = [
            partial(one.swap, baseline, target, 0.0, biases=True) for one in draws
        ]
        own: Ways = {DIAL: {s: [partial(dial.apply, target, s)] for s in levels}}
        own[INTERPOLATION] = {s: [partial(interpolated, baseline, target, s)] for s in levels}
        if own_knob is not None:
            own[OWN_KNOB] = {s: [partial(own_knob, s)] for s in levels}
        own[SAME_LAYERS] = {0.0: random, 1.0: [lambda: target]}
        ways[name] = own

    def key(name: str, way: str, strength: float, number: int) -> str:
        """Name a network; ways meet at strength 1, and all dials have the same rivals."""
        whose = f" {chosen[name].filters.digest}" if way in (DIAL, SAME_LAYERS) else ""
        return "target" if strength == 1 else f"{way}{whose} {strength!r} {number}"

    networks = {
        key(name, way, s, n): build
        for name, own in ways.items()
        for way, by_strength in own.items()
        for s, builds in by_strength.items()
        for n, build in enumerate(builds)
    }
    values = measure_all(
        networks, measured, metrics=metrics, target=target, title="dials", **common
    )  # fmt: skip
    results = []
    for contrast in contrasts:
        name = contrast.name
        curves = {
            way: {
                s: mean_values([values[key(name, way, s, n)] for n in range(len(builds))])
                for s, builds in by_strength.items()
            }
            for way, by_strength in ways[name].items()
        }
        results.append(
            DialResult(
                dial=dials[name],
                contrast=contrast,
                clean=clean,
                candidates=candidates[name],
                chosen=chosen[name],
                undo=undo,
                curves=curves,
                photographs=measured.photographs,
            )
        )
    return tuple(results)


def choose(candidates: Sequence[Candidate], undo: float, degradation: str) -> Candidate:
    """Take the smallest set that undoes enough, or else the set that undoes most.

    Parameters
    ----------
    candidates : sequence of Candidate
        By size. Sets that break the network, or cost clean input more than `NEGLIGIBLE` dB, are
        taken only where there is no other.
    undo : float
        Share of the gain that is enough.
    degradation : str
        For messages.

    Raises
    ------
    ValueError
        If the target gains nothing over the baseline, or every set breaks the network.
    """
    if any(candidate.undone.outcome == NO_GAIN for candidate in candidates):
        raise ValueError(
            f"the target gains less than {NEGLIGIBLE:g} dB over the baseline on {degradation!r}; "
            "expected a degradation that it removes, and a baseline that does not (a derived one "
            "loses it with more iterations)"
        )
    working = [c for c in candidates if c.undone.outcome != BROKEN]
    if not working:
        raise ValueError(
            f"every set of filters of {degradation!r} breaks the network, which has no dial "
            "between these two; expected a baseline that the target was trained from, or one that "
            "was derived from it"
        )
    working = [c for c in working if c.clean_change >= -NEGLIGIBLE] or working
    enough = [c for c in working if c.undone.share >= undo]
    return enough[0] if enough else max(working, key=lambda c: c.undone.share)


def separate_rankings(result: Attribution, contrasts: Sequence[Contrast]) -> dict[str, FilterSet]:
    """Rank filters by each contrast; a filter of several rankings stays in one.

    Parameters
    ----------
    result : Attribution
        The scores.
    contrasts : sequence of Contrast
        With different names.

    Returns
    -------
    dict of str to FilterSet
        By the names of the contrasts, best first. A filter stays where its score, over the sum of
        the contrast's positive scores, is largest.

    Raises
    ------
    ValueError
        If a contrast has no filter with a positive score of its own.
    """
    shares = []
    for contrast in contrasts:
        scores = contrast.scores(result).double()
        shares.append(scores / scores.clamp(min=0).sum().clamp(min=torch.finfo().tiny))
    every = torch.stack(shares)  # [K, F]
    owner = every.argmax(0)
    rankings = {}
    for number, contrast in enumerate(contrasts):
        ranking = contrast.ranking(result)
        own = (owner == number) & (every[number] > 0)
        kept = own[ranking.indices]
        if not kept.any():
            raise ValueError(
                f"contrast {contrast.name!r} has no filter with a positive score of its own; "
                "expected another degradation"
            )
        rankings[contrast.name] = replace(ranking, indices=ranking.indices[kept])
    return rankings


def interpolated(baseline: nn.Module, target: nn.Module, strength: float) -> nn.Module:
    """Copy the target with all weights at baseline + strength·(target − baseline).

    Parameters
    ----------
    baseline, target : nn.Module
        Of one architecture, unchanged.
    strength : float
        0: the baseline; 1: the target.

    Raises
    ------
    ValueError
        If the networks differ in their tensors, or the strength is not finite.
    """
    strength = check_strength(strength, "interpolation")
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    check_same_layout(tensors(baseline), tensors(target))
    edited = copy_of(target)
    start = tensors(baseline)
    with torch.inference_mode(False), torch.no_grad():
        for key, value in tensors(edited).items():
            if value.is_floating_point():
                low: Tensor = start[key].to(value)
                value.copy_(low if strength == 0 else torch.lerp(low, value, strength))
    return edited


def _sets_by_fraction(
    result: Attribution, contrasts: Sequence[Contrast], fractions: Sequence[float]
) -> dict[str, dict[float, FilterSet]]:
    """Cut each contrast's ranking at every fraction; a short ranking gives fewer sets."""
    cut: dict[str, dict[float, FilterSet]] = {}
    for name, ranking in separate_rankings(result, contrasts).items():
        by_size: dict[int, float] = {}
        for fraction in fractions:
            size = min(max(1, int(fraction * len(result.index))), len(ranking))
            by_size.setdefault(size, fraction)
        cut[name] = {fraction: ranking[:size] for size, fraction in by_size.items()}
    return cut


def _candidates(
    baseline: nn.Module,
    target: nn.Module,
    tried: dict[str, dict[float, FilterSet]],
    contrasts: Sequence[Contrast],
    clean: str,
    selection: Crops,
    common: dict[str, Any],
) -> dict[str, tuple[Candidate, ...]]:
    """Mask every set, and compare the networks with the pair on the selection crops."""
    networks: dict[str, Callable[[], nn.Module]] = {
        "selection baseline": lambda: baseline,
        "selection target": lambda: target,
    }
    for sets in tried.values():
        for one in sets.values():
            masked = partial(one.swap, baseline, target, 0.0, biases=True)
            networks[f"selection {one.digest}"] = masked
    values = measure_all(
        networks, selection, metrics=("psnr",), target=target, title="choosing filters", **common
    )  # fmt: skip
    candidates: dict[str, tuple[Candidate, ...]] = {}
    for contrast in contrasts:
        of_contrast = []
        for fraction, one in tried[contrast.name].items():
            base, full, now = (
                values[f"selection {name}"]["psnr"] for name in ("baseline", "target", one.digest)
            )
            own = contrast.degradation
            outcome = compare_on_photographs(now[own], base[own], full[own], selection.photographs)
            change = float((now[clean] - full[clean]).mean())
            of_contrast.append(Candidate(fraction, one, outcome, change))
        candidates[contrast.name] = tuple(of_contrast)
    return candidates


def noise_level_knob(target: nn.Module) -> Callable[[float], nn.Module] | None:
    """Give the own knob of networks with an attribute `noise_level`; None for others.

    At strength s, the network is given s times its noise level.
    """
    level = getattr(unwrap(target, "target"), "noise_level", None)
    if not isinstance(level, float):
        return None

    def at(strength: float) -> nn.Module:
        network: Any = copy_of(unwrap(target, "target"))
        network.noise_level = max(0.0, strength) * level
        return network

    return at
