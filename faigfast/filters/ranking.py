"""Order of filters by their contrast, and the number that a share takes."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from numbers import Integral, Real

import torch
from torch import Tensor


def best_first(
    candidates: Tensor, scores: Tensor, contrast: Tensor, name: str, others: Sequence[str]
) -> Tensor:
    """Order filters by their contrast, best first, ties as they come.

    Parameters
    ----------
    candidates : Tensor
        [K], flat indices of the scored filters.
    scores, contrast : Tensor
        [F], mean scores and contrast of one degradation.
    name : str
        The degradation.
    others : sequence of str
        Degradations whose scores the contrast subtracts.

    Returns
    -------
    Tensor
        [K], flat indices.

    Raises
    ------
    ValueError
        If the scores of all candidates, or their contrasts, are exactly 0.
    """
    count = len(candidates)
    if not scores[candidates].any():
        raise ValueError(
            f"the scores of {name!r} are exactly 0 for all {count} scored filters, which ranks "
            "none above another; expected layers that differ between the networks and whose "
            "gradient reaches the loss: merge branches first by fuse=, or choose other layers by "
            "parameters="
        )
    values = contrast[candidates]
    if not values.any():
        raise ValueError(
            f"the contrast of {name!r} against {', '.join(map(repr, others))} is exactly 0 for all "
            f"{count} scored filters, which ranks none above another; expected images that differ"
        )
    return candidates[torch.argsort(values, descending=True, stable=True)]


def subtracted(
    a: str | None, against: str | Sequence[str] | None, names: Sequence[str], contrasted: bool
) -> list[str]:
    """List the degradations that a contrast subtracts.

    Parameters
    ----------
    a, against
        As in `Attribution.contrast`.
    names : sequence of str
        All degradations.
    contrasted : bool
        Whether all others are subtracted if `against` is None.

    Raises
    ------
    TypeError
        If `against` is no text and not iterable.
    """
    if against is None:
        a = a if a is not None else names[0]
        return [name for name in names if name != a and contrasted]
    if not isinstance(against, Iterable):
        raise TypeError(f"against is {against!r}; expected names of {tuple(names)}")
    return [against] if isinstance(against, str) else list(against)


def number_of_filters(fraction: float, filters: int, scored: int) -> int:
    """Give the number of filters in a share of all, rounded down, at least one.

    Parameters
    ----------
    fraction : float
        In (0, 1].
    filters : int
        Number of all filters, F.
    scored : int
        Number of filters that can be ranked.

    Raises
    ------
    TypeError, ValueError
        If the fraction is no number in (0, 1], or takes more than `scored` filters.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, Real):
        raise TypeError(f"fraction is {fraction!r}; expected a number in (0, 1]")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is {fraction!r}; expected a number in (0, 1]")
    # The decimal as written, so that 0.29 of 100 is 29.
    count = max(1, int(Fraction(str(fraction)) * filters))
    if count > scored:
        raise ValueError(f"fraction {fraction} asks for {count} filters; {scored} were scored")
    return count


def number_to_take(fraction: float | None, n: int | None, filters: int, scored: int) -> int:
    """Give the number of filters that a share or a number asks for.

    Parameters
    ----------
    fraction : float, optional
        As in `number_of_filters`.
    n : int, optional
        From 1 to `scored`; in place of the fraction.
    filters, scored : int
        As in `number_of_filters`.

    Raises
    ------
    TypeError, ValueError
        If neither or both are given, or one is out of range.
    """
    if (fraction is None) == (n is None):
        raise TypeError(
            f"fraction is {fraction!r} and n is {n!r}; expected a number in (0, 1] or n, not both"
        )
    if fraction is not None:
        return number_of_filters(fraction, filters, scored)
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise TypeError(f"n is {n!r}; expected a number of filters")
    if not 1 <= n <= scored:
        raise ValueError(f"n is {n}; expected 1 to {scored}, the number of scored filters")
    return int(n)
