"""Named contrasts: whose scores a ranking takes and subtracts; comparison of filter sets."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from faigfast.analysis.data_frames import data_frame
from faigfast.analysis.evaluation import ratio_or_nan
from faigfast.filters.filter_set import FilterSet
from faigfast.result import Attribution

if TYPE_CHECKING:
    import pandas


NAMES = r"[\w+-][\w.+-]*"  # of degradations and contrasts


@dataclass(frozen=True)
class Contrast:
    """A ranking of filters, by name.

    Parameters
    ----------
    name : str
        Name of the ranking.
    degradation : str
        The degradation its filters serve.
    against : tuple of str, optional
        Degradations whose mean score is subtracted; None: all others; (): nothing.

    Examples
    --------
    >>> Contrast.parse("denoise=noise:blur,clean")
    Contrast(name='denoise', degradation='noise', against=('blur', 'clean'))
    >>> Contrast.parse("blur")
    Contrast(name='blur', degradation='blur', against=None)
    """

    name: str
    degradation: str
    against: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> "Contrast":
        """Read "[NAME=]DEGRADATION[:OTHER,OTHER…]"; nothing after the colon subtracts nothing.

        Raises
        ------
        ValueError
            If the text is of another form.
        """
        match = re.fullmatch(r"(?:([^=:]+)=)?([^=:,]+)(?:(:)([^=:]*))?", text.strip())
        if not match:
            raise ValueError(f"contrast is {text!r}; expected [NAME=]DEGRADATION[:OTHER,OTHER…]")
        name, degradation, colon, others = match.groups()
        if name and not re.fullmatch(NAMES, name):
            raise ValueError(f"contrast has the name {name!r}; expected letters, digits, . + - _")
        listed = tuple(part.strip() for part in (others or "").split(",") if part.strip())
        default = degradation if not colon else f"{degradation}:{','.join(listed)}"
        return cls(name or default, degradation, listed if colon else None)

    def top(self, result: Attribution, fraction: float) -> FilterSet:
        """Take the best filters; arguments and errors as `Attribution.top`."""
        return result.top(self.degradation, fraction, self.against)

    def ranking(self, result: Attribution) -> FilterSet:
        """Rank all filters."""
        return result.ranking(self.degradation, self.against)

    def scores(self, result: Attribution) -> Tensor:
        """Scores [F] that the ranking follows."""
        return result.contrast(self.degradation, self.against)


def one_against_rest(degradations: Sequence[str]) -> tuple[Contrast, ...]:
    """Each degradation against the mean of all others."""
    return tuple(Contrast(name, name) for name in degradations)


def without_subtraction(degradations: Sequence[str]) -> tuple[Contrast, ...]:
    """Each degradation by its own scores, from which nothing is subtracted.

    Contrasts against all others are biased towards each other's negatives, and with two
    degradations they are exactly that: an overlap of 0 and a correlation of −1 by construction.
    """
    return tuple(Contrast(name, name, ()) for name in degradations)


def negatives(scores: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """List the pairs of contrasts that are each other's negatives by construction.

    Examples
    --------
    >>> negatives({"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([-1.0, 2.0])})
    [('a', 'b')]
    """
    return [
        (one, other)
        for one, other in itertools.combinations(scores, 2)
        if torch.allclose(scores[one], -scores[other], rtol=1e-9, atol=0)
    ]


def refuse_negatives_alone(contrasts: Sequence[Contrast], degradations: Sequence[str]) -> None:
    """Refuse contrasts to compare if every two are each other's negatives.

    Raises
    ------
    ValueError
        Saying why nothing is left to be compared, and which contrasts there are instead.
    """
    terms = []
    for one in contrasts:
        others = one.against
        if others is None:
            others = tuple(name for name in degradations if name != one.degradation)
        terms.append(({one.degradation}, set(others)))
    pairs = itertools.combinations(terms, 2)
    if all(a == (minus, plus) for a, (plus, minus) in pairs):
        one, other = contrasts[0], contrasts[1]
        raise ValueError(
            f"contrasts {one.name!r} and {other.name!r} are each other's negative, so that their "
            "filters have nothing in common by construction; expected the scores of each alone "
            f"({one.degradation}: and {other.degradation}:), or contrasts with a third degradation"
        )


def check_contrasts(contrasts: Sequence[Contrast], degradations: Sequence[str]) -> None:
    """Refuse an empty list, unknown degradations and repeated names.

    Raises
    ------
    ValueError
        Naming the contrast.
    """
    if not contrasts:
        raise ValueError("contrasts are empty; expected at least one")
    names = [contrast.name for contrast in contrasts]
    for contrast in contrasts:
        for name in (contrast.degradation, *(contrast.against or ())):
            if name not in degradations:
                raise ValueError(
                    f"contrast {contrast.name!r} names the degradation {name!r}; expected some of "
                    f"{', '.join(degradations)}"
                )
        if contrast.degradation in (contrast.against or ()):
            raise ValueError(f"contrast {contrast.name!r} is of a degradation against itself")
        if names.count(contrast.name) > 1:
            raise ValueError(f"contrast {contrast.name!r} is given twice; expected each name once")


def overlap(sets: Mapping[str, FilterSet]) -> Tensor:
    """Share of each set's filters that every other set holds too.

    Parameters
    ----------
    sets : mapping of str to FilterSet
        K sets of one network.

    Returns
    -------
    Tensor
        [K, K], float64, in row a and column b |A ∩ B| / |A|; 1 on the diagonal. For sets of equal
        size it is symmetric, and chance gives their share of all filters.

    Raises
    ------
    ValueError
        If the sets are of different networks.
    """
    known = {one.index for one in sets.values() if one.index}
    if len(known) > 1:
        raise ValueError(f"the sets belong to the networks {sorted(known)}; expected one")
    members = [one.indices for one in sets.values()]
    shares = [[float(torch.isin(a, b).double().mean()) for b in members] for a in members]
    return torch.tensor(shares, dtype=torch.float64)


def agreement(scores: Mapping[str, Tensor]) -> Tensor:
    """Pearson's correlation [K, K] between K vectors of scores [F]."""
    vectors = torch.stack(list(scores.values())).double()
    # corrcoef of one vector is a scalar.
    return torch.corrcoef(vectors).view(len(vectors), len(vectors))


def level_contrasts(degradations: Sequence[str]) -> tuple[Contrast, ...]:
    """Each level of a degradation against all other degradations, but not against other levels.

    Examples
    --------
    >>> level_contrasts(["blur-1", "blur-3", "noise-0.1"])[0].against
    ('noise-0.1',)
    """
    kinds = {name: split_label(name)[0] for name in degradations}
    return tuple(
        Contrast(name, name, tuple(n for n in degradations if kinds[n] != kinds[name]))
        for name in degradations
    )


def split_label(label: str) -> tuple[str, str]:
    """Take "blur-2" or "blur 2" apart into "blur" and "2"; "clean" has no level."""
    match = re.fullmatch(r"(.*[^\W\d_])[ _-]?(\d+(?:\.\d+)?)", label)
    return (match[1], match[2]) if match else (label, "")


def has_levels(degradations: Sequence[str]) -> bool:
    """Whether two names are levels of one degradation."""
    kinds = [kind for kind, level in map(split_label, degradations) if level]
    return len(kinds) > len(set(kinds))


def levels(result: Attribution, fraction: float) -> "pandas.DataFrame":
    """Compare the filters of a degradation's levels, in their order.

    Parameters
    ----------
    result : Attribution
        Result for degradations such as "blur-1", "blur-2", "blur-3".
    fraction : float
        Share of all filters in a set.

    Returns
    -------
    pandas.DataFrame
        One row a pair of levels: common share of their sets, correlation of their full contrasts
        (each against all other degradations), and a ratio of scores: mean scores of the union of
        both sets, summed, under the second level over the first.

    Raises
    ------
    ValueError
        If no degradation has two levels, or as `Attribution.top`.
    """
    contrasts = {c.name: c for c in level_contrasts(result.degradations)}
    groups: dict[str, list[tuple[float, str]]] = {}
    for name in result.degradations:
        kind, level = split_label(name)
        if level:
            groups.setdefault(kind, []).append((float(level), name))
    rows = []
    for kind, members in groups.items():
        names = [name for _, name in sorted(members)]
        for n, one in enumerate(names):
            for other in names[n + 1 :]:
                a, b = (contrasts[name].top(result, fraction) for name in (one, other))
                pair = {name: contrasts[name].scores(result) for name in (one, other)}
                union = torch.cat([a.indices, b.indices]).unique()
                sizes = [float(result.mean(name)[union].sum()) for name in (one, other)]
                rows.append(
                    {
                        "degradation": kind,
                        "level": float(split_label(one)[1]),
                        "other_level": float(split_label(other)[1]),
                        "common_fraction": float(overlap({one: a, other: b})[0, 1]),
                        "correlation": float(agreement(pair)[0, 1]),
                        "score_ratio": ratio_or_nan(sizes[1], sizes[0]),
                    }
                )
    if not rows:
        raise ValueError(
            f"the degradations are {', '.join(result.degradations)}; expected two levels of one, "
            "such as blur-1 and blur-3"
        )
    return data_frame(rows)


def overlap_data_frame(
    sets: Mapping[str, FilterSet], scores: Mapping[str, Tensor]
) -> "pandas.DataFrame":
    """One row a pair of contrasts: common share of their sets, correlation of their scores.

    Pairs of `negatives` are left out: their overlap and correlation say nothing.
    """
    head = ("contrast", "other_contrast", "common_fraction", "chance_fraction", "correlation")
    names, left_out = list(sets), negatives(scores)
    shares, correlations = overlap(sets), agreement(scores)
    rows = [
        {
            "contrast": one,
            "other_contrast": other,
            "common_fraction": float(shares[n, m]),
            "chance_fraction": len(sets[other]) / len(scores[other]),
            "correlation": float(correlations[n, m]),
        }
        for n, one in enumerate(names)
        for m, other in enumerate(names)
        if n < m and (one, other) not in left_out
    ]
    return data_frame(rows).reindex(columns=head)
