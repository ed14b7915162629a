"""Losses at the nodes of the line, and the barrier between its two ends."""

from collections.abc import Sequence

import torch
from torch import Tensor


def loss_table(nodes: Sequence[float], losses: Tensor) -> Tensor:
    """Pair nodes and losses, in ascending order of α.

    Parameters
    ----------
    nodes : sequence of float
        α_s, P of them, in any order.
    losses : Tensor
        [P, ...].

    Returns
    -------
    Tensor
        [..., P, 2] in float64 on the CPU: α_s, then L(γ(α_s)).
    """
    alpha = torch.tensor(nodes, dtype=torch.float64, device="cpu")
    values = losses.detach().to("cpu", torch.float64).movedim(0, -1)  # [..., P]
    table = torch.stack([alpha.expand_as(values), values], -1)
    return table[..., alpha.argsort(), :]


def joined_tables(tables: Sequence[Tensor], axis: int) -> Tensor:
    """Join tables [..., P, 2] along an axis of images; NaN fills up shorter tables."""
    most = max(table.shape[-2] for table in tables)
    rows = [most - table.shape[-2] for table in tables]
    pad = torch.nn.functional.pad
    filled = [pad(t, (0, 0, 0, n), value=torch.nan) for t, n in zip(tables, rows, strict=True)]
    return torch.cat(filled, axis)


def barrier(line: Tensor, losses: Tensor) -> Tensor:
    """Give the height of the worst node's loss above the chord, divided by the larger end loss.

    Parameters
    ----------
    line : Tensor
        [..., P, 2], α and loss; NaN where there is no node.
    losses : Tensor
        [..., 2], L at α = 0 and at α = 1.

    Returns
    -------
    Tensor
        [...], max_s [L(γ(α_s)) − (1 − α_s) L(θ̄) − α_s L(θ)] / max(|L(θ̄)|, |L(θ)|) over the nodes
        between the ends; 0 where no node lies above the chord, NaN where no node lies between.

    Notes
    -----
    Source: linear mode connectivity, Frankle et al., "Linear mode connectivity and the lottery
    ticket hypothesis", ICML 2020.

    Examples
    --------
    >>> barrier(torch.tensor([[0.5, 6.0]]), torch.tensor([4.0, 2.0]))
    tensor(0.7500)
    """
    if not line.shape[-2]:
        return torch.full_like(losses[..., 0], torch.nan)
    alpha, values = line.unbind(-1)  # [..., P]
    start, end = losses[..., :1], losses[..., 1:]
    between = (alpha > 0) & (alpha < 1)
    chord = start + alpha * (end - start)
    height = torch.where(between, values - chord, 0).amax(-1).clamp(min=0)
    relative = torch.where(height == 0, 0, height / losses.abs().amax(-1))
    return torch.where(between.any(-1), relative, torch.nan)
