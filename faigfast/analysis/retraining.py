"""Retraining: only the discovered filters learn, starting from the baseline."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from faigfast.analysis.data_frames import CROPS, PHOTOGRAPHS, data_frame, measured
from faigfast.analysis.evaluation import (
    Crops,
    MetricValues,
    difference_text,
    mean_and_interval,
    measure,
    over_photographs,
    ratio_or_nan,
)
from faigfast.analysis.masking import SAME_LAYERS, random_sets
from faigfast.analysis.retraining_runs import (
    RETRAINED_NETWORKS,
    check_states,
    run_folder,
    training_patches,
)
from faigfast.analysis.study import Study
from faigfast.analysis.swap_units import random_filters_of_same_layers
from faigfast.data.degradations import Degradation
from faigfast.data.patches import Patches
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.models.fingerprint import digest_of, fingerprint
from faigfast.models.state import blaming, copy_of, unwrap
from faigfast.training.trainer import Optimize, Schedule, check_optimizer, train

if TYPE_CHECKING:
    import pandas


def retrain(
    baseline: nn.Module,
    filters: FilterSet | None,
    patches: Patches,
    schedule: Schedule,
    folder: str | os.PathLike[str],
    *,
    optimizer: Optimize | str = "Adam",
    recipe: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> nn.Module:
    """Train a copy of the baseline in some filters alone.

    Parameters
    ----------
    baseline : nn.Module
        Starting point of the training; unchanged.
    filters : FilterSet, optional
        The filters that learn; biases and everything else stay the same to the bit. None: every
        parameter learns.
    patches : Patches
        Source of the batches.
    schedule : Schedule
        Length and rate.
    folder : path-like
        Receives the training's state and log; the same call resumes a stopped training.
    optimizer : str or callable
        As in `faigfast.training.trainer.train`.
    recipe : mapping, optional
        Whatever else defines the run; the state of another run is refused.
    overwrite : bool
        Discard the state in `folder` and start again.
    progress : bool
        Show a progress bar.

    Returns
    -------
    nn.Module
        With averaged weights, in the baseline's modes.

    Raises
    ------
    ValueError
        If the filters are of another network, a filter's layer holds no parameter of its shape, or
        `folder` holds another run.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021. Their script drops filters whose index is below
    192, the first layer's.
    """
    network = copy_of(unwrap(baseline, "baseline")).requires_grad_(True)  # a frozen one too
    vars(network).pop("faigfast_source", None)
    masks = None if filters is None else filters.masks(FilterIndex.of(network))
    modes = [module.training for module in network.modules()]
    identity = {
        "baseline": fingerprint(network),
        "filters": "all" if filters is None else filters.digest,
        **(recipe or {}),
    }
    averaged_state = train(
        network,
        patches,
        schedule,
        folder,
        recipe=identity,
        trainable=masks,
        optimizer=optimizer,
        overwrite=overwrite,
        progress=progress,
    )
    network.load_state_dict(averaged_state)
    for module, mode in zip(network.modules(), modes, strict=True):
        module.training = mode
    return network


@dataclass(frozen=True)
class Retraining:
    """Networks retrained for one degradation, on the same crops.

    Parameters
    ----------
    degradation : str
        Degradation of the training patches and of the input.
    count : int
        Number of discovered, and of random filters.
    values : dict
        Network ("baseline", "target", "discovered", "random", "random of the same layers", "all")
        to metric to degradation to [N].
    photographs : tuple of str
        The photograph of each crop.
    networks : dict of str to nn.Module
        The retrained networks.
    """

    degradation: str
    count: int
    values: dict[str, MetricValues]
    photographs: tuple[str, ...]
    networks: dict[str, nn.Module]

    def psnr(self, network: str) -> Tensor:
        """PSNR [N] on the degradation."""
        return self.values[network]["psnr"][self.degradation]

    def recovered(self, network: str) -> float:
        """Share of the target's gain over the baseline."""
        base, full, now = (float(self.psnr(n).mean()) for n in ("baseline", "target", network))
        return ratio_or_nan(now - base, full - base)

    def rows(self) -> list[dict[str, Any]]:
        """One row a network and metric; leads have an interval over photographs too."""
        rows: list[dict[str, Any]] = []
        for network in self.values:
            counted = ("discovered", "random", SAME_LAYERS)
            row = {
                "degradation": self.degradation,
                "network": network,
                "filter_count": self.count if network in counted else None,
            }
            over_crops = row | {"interval": CROPS}
            rows.append(over_crops | measured("psnr", *mean_and_interval(self.psnr(network))))
            rows.append(over_crops | measured("recovered", self.recovered(network)))
            for control, suffix in (("random", ""), (SAME_LAYERS, "_same_layers")):
                if network == control:
                    continue
                metric, ahead = f"above_random{suffix}", self.psnr(network) - self.psnr(control)
                over_them = over_photographs(ahead, self.photographs)[:2]
                rows.append(over_crops | measured(metric, *mean_and_interval(ahead)))
                rows.append(row | {"interval": PHOTOGRAPHS} | measured(metric, *over_them))
        return rows


def compare_retraining(
    baseline: nn.Module,
    target: nn.Module,
    filters: FilterSet,
    degradation: str,
    patches: Patches,
    data: Crops,
    schedule: Schedule,
    folder: str | os.PathLike[str],
    *,
    border: int,
    optimizer: Optimize | str = "Adam",
    recipe: Mapping[str, Any] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = False,
) -> Retraining:
    """Retrain discovered filters, two random controls, and all parameters, for one degradation.

    The controls are as many random filters, and random filters of the same layers, as many in each
    layer as were discovered there.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair; retrained networks are compared with the target.
    filters : FilterSet
        Discovered for the degradation.
    degradation : str
        Its name in `data`.
    patches : Patches
        Patches under the degradation.
    data : Crops
        Crops that the networks are measured on.
    schedule, folder, optimizer, recipe, overwrite, progress
        As in `retrain`; each network has a folder of its own.
    border : int
        Pixels left out of the PSNR.
    seed : int
        Seed of the random filters.

    Returns
    -------
    Retraining

    Raises
    ------
    ValueError
        As `retrain`.
    """
    if degradation not in data.lq:
        raise ValueError(
            f"degradation is {degradation!r}; expected one of the crops', {', '.join(data.lq)}"
        )
    total = len(FilterIndex.of(baseline))  # missing in the authors' files of indices
    filters = replace(filters, total=total)
    (random_set,) = random_sets(filters, 1, seed)
    (same_layers,) = random_filters_of_same_layers(baseline, filters, 1, seed)
    crops_of_degradation = Crops({degradation: data.lq[degradation]}, data.gt, data.names, data.pad)
    values = {
        "baseline": measure(baseline, crops_of_degradation, border=border),
        "target": measure(target, crops_of_degradation, border=border),
    }
    networks = {}
    chosen_sets = (filters, random_set, same_layers, None)
    for name, chosen in zip(RETRAINED_NETWORKS, chosen_sets, strict=True):
        networks[name] = retrain(
            baseline,
            chosen,
            patches,
            schedule,
            run_folder(folder, degradation, name),
            optimizer=optimizer,
            recipe=recipe,
            overwrite=overwrite,
            progress=progress,
        )
        values[name] = measure(networks[name], crops_of_degradation, border=border)
    return Retraining(degradation, len(filters), values, data.photographs, networks)


def retrain_all(
    study: Study,
    images: dict[str, Tensor],
    recipes: dict[str, Degradation],
    schedule: Schedule,
    folder: str | os.PathLike[str],
    *,
    fraction: float,
    sets: Mapping[str, FilterSet] | None = None,
    patch: int,
    optimizer: str = "Adam",
    overwrite: bool = False,
) -> list[Retraining]:
    """Retrain for the degradation of every contrast, or of every set.

    Parameters
    ----------
    study : Study
        Pair, attribution and crops.
    images : dict of str to Tensor
        Photographs [3, H, W] to train on, not the study's.
    recipes : dict of str to Degradation
        By name; clean recipes are skipped.
    schedule : Schedule
        Length and rate.
    folder : path-like
        Receives states and logs.
    fraction : float
        Share of the filters that learn.
    sets : mapping of str to FilterSet, optional
        Filters by degradation, instead of the study's.
    patch : int
        Side of a low-resolution patch.
    optimizer : str
        As in `retrain`.
    overwrite : bool
        Discard earlier states in `folder`, each when its training begins.

    Returns
    -------
    list of Retraining

    Raises
    ------
    ValueError
        If a set belongs to another network or to no degradation that can be learnt, two contrasts
        serve one degradation, or no degradation can be learnt.
    """
    sets = sets or {}
    patches_by_degradation = training_patches(study, images, recipes, list(sets), patch)
    for name, filters in sets.items():
        with blaming(f"set {name!r}", ValueError):
            filters.check_pair(study.baseline, study.target)
    if not patches_by_degradation:
        raise ValueError("no degradation blurs or adds noise; expected one to be learnt")
    check_optimizer(optimizer)
    if not overwrite:
        check_states(patches_by_degradation, schedule, folder)
    if not sets:
        tops = study.tops(fraction)
        sets = {c.degradation: tops[c.name] for c in study.contrasts}
    parts = []
    for name, patches in patches_by_degradation.items():
        recipe = recipes[name]
        training_recipe = {
            "degradation": recipe.text if recipe.steps else [recipe.blur, recipe.noise],
            "patch": patch,
            "photographs": digest_of(images),
        }
        parts.append(
            compare_retraining(
                study.baseline, study.target, sets[name], name, patches, study.measured, schedule,
                folder, border=study.border, optimizer=optimizer, recipe=training_recipe,
                overwrite=overwrite, progress=study.progress,
            )
        )  # fmt: skip
    return parts


def retraining_data_frame(parts: Sequence[Retraining]) -> "pandas.DataFrame":
    """One row a degradation, network and metric."""
    return data_frame([row for part in parts for row in part.rows()], across=["interval"])


def retraining_sentences(parts: Sequence[Retraining]) -> list[str]:
    """Say for each degradation whether discovered filters recover more than the controls."""
    sentences = []
    for part in parts:
        shares = {name: f", {100 * part.recovered(name):.0f} %" for name in RETRAINED_NETWORKS}
        gains = not math.isnan(part.recovered("all"))
        compared = " and ".join(
            f"{_compared(part, control)} than {words}{shares[control] if gains else ''} "
            f"({difference_text(part.psnr('discovered') - part.psnr(control))})"
            for control, words in (
                ("random", "as many random ones"),
                (SAME_LAYERS, "random ones of the same layers"),
            )
        )
        if gains:
            sentences.append(
                f"{part.degradation}: retraining the {part.count} discovered filters recovers "
                f"{shares['discovered'][2:]} of the target's gain, {compared}; all parameters"
                f"{shares['all'][1:]}."
            )
        else:
            sentences.append(
                f"{part.degradation}: the target gains nothing over the baseline; the "
                f"{part.count} discovered filters reach {compared}."
            )
    return sentences


def _compared(part: Retraining, control: str) -> str:
    """Compare the PSNR of discovered filters with a control's, by the interval over crops."""
    ahead, half = mean_and_interval(part.psnr("discovered") - part.psnr(control))
    if math.isnan(half):  # one crop
        return "more or less"
    return "more" if ahead > half else "less" if ahead < -half else "neither more nor less"
