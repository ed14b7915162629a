"""Errors of the contrast and of its best filters: what points and images leave."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from faigfast.filters.ranking import number_of_filters, subtracted
from faigfast.filters.resampled_images import is_best, kept_shares, resampled

if TYPE_CHECKING:
    from faigfast.result import Attribution

RESAMPLES = 200
BLOCK = 8  # resamples that are summed at once


class ContrastError(NamedTuple):
    """Estimated relative L1 errors of a contrast.

    Parameters
    ----------
    points : float
        ‖e‖₁ / ‖contrast‖₁, where e is the contrast of the estimated signed errors that the points
        of the line leave, as mean over images; NaN if the rule has no estimate.
    images : float
        √(2/π) Σ_k s_k / ‖contrast‖₁, where s_k is the standard error over images of filter k's
        contrast: the expected error against infinitely many images of this kind. NaN for one image,
        or if the scores of single images were not kept.
    total : float
        √(points² + images²).

    Notes
    -----
    Images are paired: each gives one contrast, since all degradations are of the same images.
    """

    points: float
    images: float
    total: float


class Stability(NamedTuple):
    """Estimated share of the best filters that a ranking without an error has in common.

    Parameters
    ----------
    points : float
        Share of the best filters that stay best after the estimated errors of the points are
        subtracted from the contrast; NaN if the rule has no estimate. The estimates have the size
        of the errors, not filter by filter their sign: this is one draw of what they may change.
    images : float
        Mean share of the best filters that are best in 200 samples of N − 1 images, drawn with
        replacement from the N images: their means spread as those of N images do around the mean
        of infinitely many. Too high for few images whose scores differ much. NaN for one image,
        or if the scores of single images were not kept.
    """

    points: float
    images: float


def contrast_error(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None = None
) -> ContrastError:
    """Estimate the relative L1 error of the contrast.

    Parameters
    ----------
    result : Attribution
        Of N images.
    a, against
        As in `Attribution.contrast`.

    Returns
    -------
    ContrastError
        All NaN if the contrast is 0 for all filters.

    Raises
    ------
    TypeError, ValueError
        As `Attribution.contrast`.
    """
    contrast, size = _contrast_and_size(result, a, against)
    points, images = error_of_points(result, a, against), math.nan
    if _resamples(result):
        squares = torch.zeros_like(contrast)
        for one in _image_contrasts(result, a, against):
            squares += (one - contrast).square_()
        spread = (squares / (result.images - 1) / result.images).sqrt_()
        images = math.sqrt(2 / math.pi) * float(spread.sum()) / size
    return ContrastError(points, images, math.hypot(points, images))


def error_of_points(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None = None
) -> float:
    """Estimate the relative L1 error of the contrast that points leave: `ContrastError.points`."""
    error = _points_error(result, a, against)
    if error is None:
        return math.nan
    return float(error.abs().sum()) / _contrast_and_size(result, a, against)[1]


def stability(
    result: "Attribution",
    a: str | None,
    fraction: float = 0.01,
    against: str | Sequence[str] | None = None,
) -> Stability:
    """Estimate how much of the best filters stays best without the errors of points and images.

    Parameters
    ----------
    result : Attribution
        Of N images.
    a, against
        As in `Attribution.contrast`.
    fraction : float
        Share of all filters, as in `Attribution.top`.

    Returns
    -------
    Stability

    Raises
    ------
    TypeError, ValueError
        As `Attribution.top`.
    """
    points, images = stability_of_points(result, a, fraction, against), math.nan
    take = number_of_filters(fraction, len(result.index), int(result.scored.sum()))
    best = is_best(result.contrast(a, against)[result.scored], take)
    if _resamples(result):
        shares = [
            share
            for rows in _resampled_contrasts(result, a, against)
            for share in kept_shares(best, rows[:, result.scored], take)
        ]
        images = sum(shares) / len(shares)
    return Stability(points, images)


def stability_of_points(
    result: "Attribution",
    a: str | None,
    fraction: float,
    against: str | Sequence[str] | None = None,
) -> float:
    """Estimate the share of the best filters that stays without the errors of points.

    It is `Stability.points`, without what other images would change.

    Raises
    ------
    TypeError, ValueError
        As `Attribution.top`.
    """
    take = number_of_filters(fraction, len(result.index), int(result.scored.sum()))
    result.ranking(a, against)  # refuses scores and contrasts of 0
    contrast, error = result.contrast(a, against), _points_error(result, a, against)
    if error is None:
        return math.nan
    best = is_best(contrast[result.scored], take)
    (points,) = kept_shares(best, (contrast - error)[result.scored][None], take)
    return points


def errors_in_words(result: "Attribution") -> str:
    """Write the errors of all contrasts in one line; "" where none is known."""
    parts = []
    for name in result.degradations:
        error = contrast_error(result, name)
        known = [
            f"{source} {_percent(value)} %"
            for source, value in (("points", error.points), ("photographs", error.images))
            if math.isfinite(value)
        ]
        if known:
            parts.append(f"{name} {', '.join(known)}")
    return f"error of the contrast: {'; '.join(parts)}" if parts else ""


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.995 else f"{100 * share:.0f}"


def _names(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None
) -> tuple[str, list[str]]:
    """Give the degradation of a contrast, and those that it subtracts."""
    names = result.degradations
    name = names[0] if a is None else a
    return name, subtracted(a, against, names, result.setting.contrasted)


def _contrast_and_size(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None
) -> tuple[Tensor, float]:
    """Give the contrast [F] and its L1 norm, NaN in place of 0."""
    contrast = result.contrast(a, against)
    return contrast, float(contrast.abs().sum()) or math.nan


def _points_error(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None
) -> Tensor | None:
    """Contrast [F] of the estimated signed errors of the points; None without an estimate."""
    if not result.mean_error.numel():
        return None
    by_name = dict(zip(result.degradations, result.mean_error.double(), strict=True))
    plus, minus = _names(result, a, against)
    error = by_name[plus]
    return error - torch.stack([by_name[name] for name in minus]).mean(0) if minus else error


def _resamples(result: "Attribution") -> bool:
    """Whether images can be told apart and resampled."""
    return result.setting.per_image and result.images > 1


def _image_contrasts(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None
) -> Iterator[Tensor]:
    """Contrast [F] of every image, in float64."""
    plus, minus = _names(result, a, against)
    scores = result.by_degradation
    for n in range(result.images):
        one = scores[plus][n].double()
        yield one - sum(scores[name][n].double() for name in minus) / len(minus) if minus else one


def _resampled_contrasts(
    result: "Attribution", a: str | None, against: str | Sequence[str] | None
) -> Iterator[Tensor]:
    """Contrasts [R, F] of resampled images, block by block, in the precision of the scores."""
    plus, minus = _names(result, a, against)
    scores = result.by_degradation
    generator = torch.Generator().manual_seed(0)
    # N draws from N images would spread by (N − 1) / N of the variance.
    weights = resampled(result.images, result.images - 1, RESAMPLES, generator)
    for block in weights.to(scores[plus].dtype).split(BLOCK):
        rows = block @ scores[plus]
        for name in minus:
            rows -= block @ scores[name] / len(minus)
        yield rows
