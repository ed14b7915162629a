"""Checks and scores of results whose images are joined into one."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.integration.line_losses import joined_tables
from faigfast.integration.settings import differences

if TYPE_CHECKING:
    from faigfast.result import Attribution


def mergeable(first: "Attribution", others: object) -> list["Attribution"]:
    """List results that can be merged.

    Parameters
    ----------
    first : Attribution
        The first result.
    others : Attribution or iterable of Attribution
        The other results.

    Raises
    ------
    TypeError
        If `others` holds anything but results.
    ValueError
        If a result is of other networks, degradations or settings.
    """
    kind = type(first)
    others = [others] if isinstance(others, kind) else others
    if not isinstance(others, Iterable):
        raise TypeError(f"others is {others!r}; expected an Attribution or several")
    parts = [first, *others]
    for part in parts[1:]:
        if not isinstance(part, kind):
            raise TypeError(f"others holds a {type(part).__name__}; expected an Attribution")
        for name in ("index", "degradations", "setting"):
            own, other = getattr(first, name), getattr(part, name)
            if own != other:
                raise ValueError(
                    f"results of different {name} cannot be merged: {differences(own, other)}"
                )
        if not torch.equal(part.scored, first.scored):
            raise ValueError("results that score different filters cannot be merged")
    return parts


def merged_fields(parts: Sequence["Attribution"]) -> dict[str, Any]:
    """Join the fields that belong to images, and what only some parts know."""
    first = parts[0]
    return {
        "by_degradation": {name: joined_scores(parts, name) for name in first.degradations},
        **{
            name: torch.cat([getattr(part, name) for part in parts], dim=1)
            for name in ("completeness", "losses", "error", "points")
        },
        "notes": tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        "zero_gradient": common_layers(parts),
        "line": joined_tables([part.line for part in parts], 1),
        "distance": next((p.distance for p in parts if p.distance.layers), first.distance),
        "mean_error": joined_mean_errors(parts),
    }


def joined_scores(parts: Sequence["Attribution"], name: str) -> Tensor:
    """Give the scores of all parts of a degradation, or their mean over images."""
    scores = torch.cat([part.by_degradation[name] for part in parts])
    if len(parts) == 1 or parts[0].setting.per_image:
        return scores
    weights = torch.tensor([float(part.images) for part in parts], dtype=scores.dtype)
    return (weights @ scores / weights.sum())[None]


def joined_mean_errors(parts: Sequence["Attribution"]) -> Tensor:
    """Mean over images [D, F] of all parts' estimates; empty if a part has none."""
    if len(parts) == 1 or not all(part.mean_error.numel() for part in parts):
        return parts[0].mean_error if len(parts) == 1 else torch.empty(0)
    total = sum(part.images for part in parts)
    mean = torch.zeros_like(parts[0].mean_error)
    for part in parts:
        mean.add_(part.mean_error, alpha=part.images / total)
    return mean


def common_layers(parts: Sequence["Attribution"]) -> tuple[str, ...]:
    """Layers whose gradient is 0 in every image of all parts."""
    common = set.intersection(*(set(part.zero_gradient) for part in parts))
    return tuple(layer for layer in parts[0].zero_gradient if layer in common)
