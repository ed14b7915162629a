"""Resampled images: how much of the best filters other samples of images would keep."""

import torch
from torch import Tensor


def resampled(images: int, count: int, draws: int, generator: torch.Generator) -> Tensor:
    """Draw images with replacement.

    Parameters
    ----------
    images : int
        Their number N.
    count : int
        Images of a sample.
    draws : int
        Number R of samples.
    generator : torch.Generator
        Of the CPU.

    Returns
    -------
    Tensor
        [R, N] in float64, share of each image in each sample; rows sum to 1.
    """
    rows = []
    for _ in range(draws):
        drawn = torch.randint(images, (count,), generator=generator)
        rows.append(torch.bincount(drawn, minlength=images).double() / count)
    return torch.stack(rows)


def is_best(values: Tensor, take: int) -> Tensor:
    """Mark the `take` largest values, [K] bool; of equal ones the first.

    Examples
    --------
    >>> is_best(torch.tensor([1.0, 3.0, 1.0, 0.0]), 2)
    tensor([ True,  True, False, False])
    """
    least = values.topk(take).values[-1]
    best = values > least
    equal = (values == least).nonzero().flatten()
    best[equal[: take - int(best.sum())]] = True
    return best


def kept_shares(best: Tensor, rows: Tensor, take: int) -> list[float]:
    """Give the share of the best filters that each row keeps among its best.

    Parameters
    ----------
    best : Tensor
        [K] bool, `take` of them True.
    rows : Tensor
        [R, K], contrasts of the same filters.
    take : int
        Number of best filters.
    """
    return [int((best & is_best(row, take)).sum()) / take for row in rows]
