"""Lessons: what networks are retrained on, and where their trainings stand on disk."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

from torch import Tensor

from faigfast.analysis.study import Study
from faigfast.data.degradations import Degradation
from faigfast.data.patches import Patches
from faigfast.training.train import STATE, Schedule, check_state

WHO = ("discovered", "random", "all")


def lessons(
    study: Study,
    images: Mapping[str, Tensor],
    recipes: Mapping[str, Degradation],
    names: Sequence[str],
    patch: int,
) -> dict[str, Patches]:
    """Make the patches of every degradation that is learnt.

    Parameters
    ----------
    study, images, recipes, patch
        As in `faigfast.analysis.retraining.retrain_all`.
    names : sequence of str
        Degradations whose filters are given; none: those that the contrasts serve.

    Raises
    ------
    ValueError
        If one is unknown or served twice, or no photograph holds a patch.
    """
    worth = [name for name, recipe in recipes.items() if recipe.blur or recipe.noise]
    served = list(names) or [c.degradation for c in study.contrasts]
    if unknown := [name for name in names if name not in worth]:
        raise ValueError(f"sets name {unknown[0]!r}; expected some of {', '.join(worth) or 'none'}")
    if len(set(served)) < len(served):
        raise ValueError(
            f"contrasts serve {', '.join(served)}; expected each degradation once, since one "
            "network is retrained for each"
        )
    return {
        name: Patches(
            images.values(),
            scale=recipe.scale,
            patch=patch,
            blur=(recipe.blur,) if recipe.blur else (),
            noise=(recipe.noise,) if recipe.noise else (),
            probability=1.0,
        )
        for name, recipe in recipes.items()
        if name in served and name in worth
    }


def states(names: Iterable[str], folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Where the trainings for some degradations keep their states."""
    for name, who in product(names, WHO):
        yield Path(folder) / f"{name}-{who}" / STATE


def check_states(names: Iterable[str], schedule: Schedule, folder: str | os.PathLike[str]) -> None:
    """Refuse a folder in which trainings of another schedule are.

    Raises
    ------
    ValueError
        Naming the file and what differs.
    """
    for state in states(names, folder):
        check_state(state, asdict(schedule))
