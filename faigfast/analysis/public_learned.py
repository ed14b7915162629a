"""Findings that learn, from the batch that `faigfast.attribute` takes or from patches."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from faigfast.analysis import prediction, retraining
from faigfast.analysis.batch_crops import BatchCrops, joined_by_name, repeatable
from faigfast.analysis.public_arguments import FRACTION, filter_sets
from faigfast.filters.filter_set import FilterSet
from faigfast.integration.batch import Batches
from faigfast.result import Attribution

if TYPE_CHECKING:
    from faigfast.data.patches import Patches
    from faigfast.training.trainer import Optimize, Schedule


def retrain(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    degradation: str,
    *,
    patches: "Patches",
    schedule: "Schedule",
    folder: str | os.PathLike[str],
    result: Attribution | None = None,
    filters: FilterSet | None = None,
    fraction: float = FRACTION,
    optimizer: "Optimize | str" = "Adam",
    seed: int = 0,
    overwrite: bool = False,
    border: int | None = None,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> retraining.Retraining:
    """Retrain the discovered filters alone, and controls; measure all on a batch.

    Parameters
    ----------
    baseline, target, batch, border, pad, progress, **options
        As in `mask`.
    degradation : str
        Degradation of the batch that the filters serve.
    patches : faigfast.data.patches.Patches
        Training patches under the degradation.
    schedule : faigfast.training.trainer.Schedule
        Length and rate.
    folder : path-like
        Receives the trainings' states and logs; the same call resumes a stopped training.
    result, fraction
        As in `modulate`; not with `filters`.
    filters : FilterSet, optional
        None: the best of the degradation.
    optimizer, seed, overwrite
        As in `faigfast.analysis.retraining.compare_retraining`.

    Returns
    -------
    Retraining

    Raises
    ------
    TypeError, ValueError
        As `mask` and `faigfast.analysis.retraining.compare_retraining`.
    """
    given = None if filters is None else {degradation: filters}
    batch, sets = filter_sets(
        baseline, target, batch, result, given, fraction, None, pad, progress, options
    )
    data = BatchCrops(batch, target, pad, border)
    if degradation not in data.degradations:
        raise ValueError(
            f"degradation is {degradation!r}; expected one of {', '.join(data.degradations)}"
        )
    parts: list[retraining.Retraining] = []
    for same_images in data.parts:
        (crops,) = (part for part in same_images if degradation in part.lq)
        parts.append(
            retraining.compare_retraining(
                baseline, target, sets[degradation], degradation, patches, crops, schedule, folder,
                border=data.border, optimizer=optimizer, seed=seed, progress=progress,
                overwrite=overwrite and not parts,  # later parts measure the trained networks
            )
        )  # fmt: skip
    return replace(
        parts[0],
        values=joined_by_name([[part.values] for part in parts]),
        photographs=tuple(name for part in parts for name in part.photographs),
    )


def predict(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    x: Tensor,
    *,
    match: Literal["overlap", "correlation", "neighbour"] = "correlation",
    fraction: float = 0.05,
    steps: int = prediction.STEPS,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> list[prediction.Prediction]:
    """Predict the degradation of images without ground truth, from labelled images.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    batch : tuple, mapping or iterable
        Labelled images, as in `faigfast.attribute`: the names of two or more degradations are the
        labels. Their ground truth is not used.
    x : Tensor
        [N, C, h, w], images of unknown degradation.
    match : {"overlap", "correlation", "neighbour"}
        As in `faigfast.analysis.prediction.Signatures.matches`.
    fraction : float
        Share of the filters in a label's set, for "overlap".
    steps : int
        Points of the line.
    pad, progress, **options
        As in `faigfast.attribute`.

    Returns
    -------
    list of Prediction
        One an image: label, degradation, level and margin.

    Raises
    ------
    TypeError, ValueError
        As `faigfast.attribute` and `faigfast.analysis.prediction.predict_degradation`.
    """
    data = BatchCrops(repeatable(batch), target, pad)
    if len(data.degradations) < 2:
        raise ValueError(
            f"batch holds the degradations {', '.join(data.degradations)}; expected two or more"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"x is a {type(x).__name__}; expected a tensor of images [N, C, h, w]")
    options |= {"steps": steps, "pad": pad, "progress": progress}
    shares: dict[str, list[Tensor]] = {name: [] for name in data.degradations}
    for same_images in data.parts:
        for part in same_images:
            for name, lq in part.lq.items():
                own = prediction.own_output_scores(
                    baseline, target, lq, title=f"learning {name}", **options
                )
                shares[name].append(own)
    examples = tuple(torch.cat(rows) for rows in shares.values())
    signatures = prediction.Signatures(tuple(shares), examples, fraction)
    return prediction.predict_degradation(
        baseline, target, signatures, x, match=match, title="predicting", **options
    )
