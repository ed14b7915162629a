"""Attributions of given scores."""

import torch

from faigfast import Attribution, FilterIndex
from faigfast.integration.settings import AttributionSettings


def attribution_settings(**changes):
    values = {
        "rule": "midpoint", "steps": 10, "emulate": False, "objective": "squared_error",
        "backend": "reference", "precision": "fp32", "baseline": "b" * 64, "target": "c" * 64,
        "tol": None, "per_image": True,
    }  # fmt: skip
    return AttributionSettings(**{**values, **changes})


def made(scores, scored=None, notes=(), index=None, **changes):
    """An attribution with these scores, {name: [N][F]}."""
    scores = {name: torch.as_tensor(value) for name, value in scores.items()}
    first = next(iter(scores.values()))
    images, filters = first.shape
    index = index or FilterIndex(("a.weight", "b.weight"), ((1, 2, 3, 3), (filters - 2, 1, 1, 1)))
    shape = (len(scores), images)
    generator = torch.Generator().manual_seed(images)
    return Attribution(
        index,
        scores,
        torch.rand(shape, generator=generator, dtype=torch.float64),
        torch.rand(*shape, 2, generator=generator, dtype=torch.float64),
        torch.full(shape, float("nan"), dtype=torch.float64),
        torch.full(shape, 10),
        torch.ones(filters, dtype=torch.bool) if scored is None else torch.tensor(scored),
        attribution_settings(**changes),
        notes,
    )


def equal(a, b):
    return (
        a.index == b.index
        and a.degradations == b.degradations
        and all(torch.equal(a.scores(d), b.scores(d)) for d in a.degradations)
        and torch.equal(a.completeness, b.completeness)
        and torch.equal(a.losses, b.losses)
        and torch.equal(a.error.nan_to_num(-1), b.error.nan_to_num(-1))
        and torch.equal(a.scored, b.scored)
        and a.setting == b.setting
        and a.notes == b.notes
    )


TWO = {"blur": [[1.0, 2.0, 3.0, 0.0], [3.0, 2.0, 1.0, 0.0]], "noise": [[0.0, 2.0, 5.0, 1.0]] * 2}
