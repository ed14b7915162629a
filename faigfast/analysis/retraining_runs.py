"""Retraining runs: their patches, and the files of their states."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

from torch import Tensor

from faigfast.analysis.fitted_patches import FittedPatches
from faigfast.analysis.masking import SAME_LAYERS
from faigfast.analysis.study import Study
from faigfast.data.degradations import Degradation
from faigfast.data.patches import Patches
from faigfast.io.parts import refuse_other_run
from faigfast.training.trainer import Schedule

RETRAINED_NETWORKS = ("discovered", "random", SAME_LAYERS, "all")


def training_patches(
    study: Study,
    images: Mapping[str, Tensor],
    recipes: Mapping[str, Degradation],
    names: Sequence[str],
    patch: int,
) -> Mapping[str, Patches]:
    """Make the patches of every degradation that can be learnt.

    For networks that padded images are given to, the ground truth is cut to what the network makes
    of a patch.

    Parameters
    ----------
    study, images, recipes, patch
        As in `faigfast.analysis.retraining.retrain_all`.
    names : sequence of str
        Degradations with given filters; empty: the degradations of the contrasts.

    Raises
    ------
    ValueError
        If one is unknown or served twice, or no photograph holds a patch.
    """
    learnable = [name for name, recipe in recipes.items() if not recipe.clean]
    served = list(names) or [c.degradation for c in study.contrasts]
    if unknown := [name for name in names if name not in learnable]:
        raise ValueError(
            f"sets name {unknown[0]!r}; expected some of {', '.join(learnable) or 'none'}"
        )
    if len(set(served)) < len(served):
        raise ValueError(
            f"contrasts serve {', '.join(served)}; expected each degradation once, since one "
            "network is retrained for each"
        )
    patches = {
        name: Patches(
            images.values(),
            scale=recipe.scale,
            patch=patch,
            blur=(recipe.blur,) if recipe.blur else (),
            noise=(recipe.noise,) if recipe.noise else (),
            recipes=(recipe,) if recipe.steps else (),
            probability=1.0,
        )
        for name, recipe in recipes.items()
        if name in served and name in learnable
    }
    if not study.measured.pad:
        return patches
    return {name: FittedPatches(own, study.target) for name, own in patches.items()}


def run_folder(folder: str | os.PathLike[str], degradation: str, network: str) -> Path:
    """Give the folder of one training."""
    return Path(folder) / f"{degradation}-{network.replace(' ', '-')}"


def check_states(names: Iterable[str], schedule: Schedule, folder: str | os.PathLike[str]) -> None:
    """Refuse a folder with trainings of another schedule.

    Raises
    ------
    ValueError
        Naming the folder and the difference.
    """
    for name, network in product(names, RETRAINED_NETWORKS):
        refuse_other_run(run_folder(folder, name, network), asdict(schedule), partly=True)
