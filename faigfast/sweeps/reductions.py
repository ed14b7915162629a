"""Means, contrasts and quantiles over the files of a sweep, without all scores in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from faigfast.sweeps.units import Unit

if TYPE_CHECKING:
    from faigfast.sweeps.opened import Sweep

MEMORY = 2**28  # bytes

Parts = Sequence[tuple[float, Sequence[Unit]]]  # factors, and units of one degradation each


def mean(sweep: "Sweep", units: Sequence[Unit]) -> Tensor:
    """Mean over images, [F] in float64.

    Raises
    ------
    ValueError
        If there is no unit.
    """
    _refuse_none(units)
    total: Tensor | None = None
    images = 0
    for unit in units:
        scores = sweep.read(unit).scores.double()  # [n, F]
        part = scores.sum(0)
        total = part if total is None else total + part
        images += len(scores)
    assert total is not None
    return total / images


def common_images(sweep: "Sweep", parts: Parts) -> list[str]:
    """Identities of the images that all parts have, sorted.

    Raises
    ------
    ValueError
        If there is none.
    """
    sets = [{image for unit in units for image in sweep.images_of(unit)} for _, units in parts]
    images = sorted(set.intersection(*sets))
    if not images:
        raise ValueError("no image is finished in all of the degradations; run the sweep first")
    return images


def weighted(sweep: "Sweep", parts: Parts, weights: Tensor | None) -> Tensor:
    """Weighted sums of contrasts over images, in one pass over the files.

    Parameters
    ----------
    sweep : Sweep
        The files.
    parts : sequence
        Units of each degradation, and the factor of their scores.
    weights : Tensor, optional
        [R, N] for the images of `common_images`; None: one row of 1/N.

    Returns
    -------
    Tensor
        [R, F], float64.

    Raises
    ------
    ValueError
        If the degradations have no image in common.
    """
    images = common_images(sweep, parts)
    if weights is None:
        weights = torch.full((1, len(images)), 1 / len(images), dtype=torch.float64)
    columns = {image: n for n, image in enumerate(images)}
    total: Tensor | None = None
    for factor, units in parts:
        for unit in units:
            read = sweep.read(unit)
            rows = [n for n, image in enumerate(read.images) if image in columns]
            own = weights[:, [columns[read.images[n]] for n in rows]] * factor  # [R, n]
            part = own @ read.scores[rows].double()
            total = part if total is None else total + part
    assert total is not None
    return total


def quantiles(
    sweep: "Sweep", units: Sequence[Unit], q: Sequence[float], memory: int = MEMORY
) -> Tensor:
    """Exact quantiles over images, some filters at a time.

    Parameters
    ----------
    sweep : Sweep
        The files.
    units : sequence of Unit
        Of one pair, degradation and setting.
    q : sequence of float
        In [0, 1].
    memory : int
        Bytes for the scores of some filters of all images.

    Returns
    -------
    Tensor
        [len(q), F], float64.

    Raises
    ------
    ValueError
        If there is no unit, or q is out of range.
    """
    _refuse_none(units)
    if not all(0 <= share <= 1 for share in q):
        raise ValueError(f"q is {list(q)}; expected numbers in [0, 1]")
    first = sweep.read(units[0]).scores
    images = sum(len(sweep.images_of(unit)) for unit in units)
    filters = first.shape[1]
    step = max(1, memory // (images * first.element_size()))
    blocks = []
    for start in range(0, filters, step):
        end = min(filters, start + step)
        values = np.concatenate([sweep.columns(unit, start, end) for unit in units])
        blocks.append(torch.from_numpy(np.quantile(values.astype(np.float64), list(q), axis=0)))
    return torch.cat(blocks, 1)


def _refuse_none(units: Sequence[Unit]) -> None:
    if not units:
        raise ValueError("no unit is finished for this pair, degradation and setting")
