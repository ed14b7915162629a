"""Data of the filter browser: kernels before and after, scores and ranks of every filter."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.distribution import layer_numbers
from faigfast.analysis.report.drawing import shown
from faigfast.filters.index import FilterIndex
from faigfast.models.state import tensors, unwrap
from faigfast.result import Attribution

MOST_BYTES = 1_800_000  # of text in the page
LISTED = 12  # best filters of a contrast, to jump to
LEVELS = 32767  # of a 16-bit weight


@dataclass(frozen=True)
class FilterBrowser:
    """Layers, their scores and kernels.

    Parameters
    ----------
    layers : list of dict
        Name, depth, out and in channels, kernel height and width, and base64 arrays.
    degradations, contrasts : list of str
        Names of the scores and of the rankings.
    top : dict of str to list
        Contrast to its best filters, as (place in `layers`, out, in).
    total : int
        Number of all filters of the network.
    note : str
        How many layers are left out to keep the page small; empty if none.
    """

    layers: list[dict[str, Any]]
    degradations: list[str]
    contrasts: list[str]
    top: dict[str, list[tuple[int, int, int]]]
    total: int
    note: str

    def content(self) -> dict[str, Any]:
        """Give everything that the script needs, as JSON."""
        return {key: value for key, value in vars(self).items() if key != "note"}


def browse_filters(
    baseline: nn.Module,
    target: nn.Module,
    result: Attribution,
    contrasts: Sequence[Contrast],
    most_bytes: int = MOST_BYTES,
) -> FilterBrowser:
    """Collect scores, ranks and kernels, layers with the best filters first, within a size.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair of the result.
    result : Attribution
        Its scores.
    contrasts : sequence of Contrast
        Rankings.
    most_bytes : int
        Limit of the text in the page.

    Returns
    -------
    FilterBrowser
        Weights are rounded to 1/32767 of the largest in their layer.
    """
    index = FilterIndex.of(unwrap(target, "target"))
    states = [tensors(unwrap(net, "model")) for net in (baseline, target)]
    means = {name: result.mean(name).float() for name in result.degradations}
    ranks = {c.name: _ranks(c, result) for c in contrasts}
    chosen = _layers_within(index, states[1], ranks, len(means), most_bytes)
    layers = []
    for n in chosen:
        part = slice(index.offsets[n], index.offsets[n + 1])
        kernels = [_kernels(state[index.layers[n]]) for state in states]
        scale = float(torch.stack(kernels).abs().max()) or 1.0
        layers.append(
            {
                "name": shown(index.layers[n].removesuffix(".weight")),
                "depth": n,
                "out": kernels[0].shape[0],
                "in": kernels[0].shape[1],
                "height": kernels[0].shape[2],
                "width": kernels[0].shape[3],
                "scale": scale,
                "before": _text((kernels[0] * (LEVELS / scale)).round().to(torch.int16)),
                "after": _text((kernels[1] * (LEVELS / scale)).round().to(torch.int16)),
                "scores": {name: _text(mean[part]) for name, mean in means.items()},
                "ranks": {name: _text(rank[part]) for name, rank in ranks.items()},
            }
        )
    top: dict[str, list[tuple[int, int, int]]] = {}
    for contrast in contrasts:
        best = contrast.ranking(result).indices[:LISTED].tolist()
        located = [index.locate(flat) for flat in best]
        places = {index.layers[n]: place for place, n in enumerate(chosen)}
        top[contrast.name] = [
            (places[layer], row, column) for layer, row, column in located if layer in places
        ]
    left_out = len(index.layers) - len(chosen)
    note = (
        f"{left_out} of {len(index.layers)} layers are left out to keep the page small: those "
        "whose best filter ranks lowest."
        if left_out
        else ""
    )
    names = [c.name for c in contrasts]
    return FilterBrowser(layers, list(means), names, top, len(index), note)


def _ranks(contrast: Contrast, result: Attribution) -> Tensor:
    """Rank of every filter [F] from 1, int32; 0: not scored."""
    ranking = contrast.ranking(result).indices
    ranks = torch.zeros(len(result.index), dtype=torch.int32)
    ranks[ranking] = torch.arange(1, len(ranking) + 1, dtype=torch.int32)
    return ranks


def _layers_within(
    index: FilterIndex,
    state: dict[str, Tensor],
    ranks: dict[str, Tensor],
    scores: int,
    most_bytes: int,
) -> list[int]:
    """Choose layers by their best rank under any contrast as the size allows; by depth."""
    numbers = layer_numbers(index)
    best = torch.full((len(index.layers),), len(index) + 1, dtype=torch.int64)
    for rank in ranks.values():
        placed = torch.where(rank > 0, rank, len(index) + 1).long()
        best = best.scatter_reduce(0, numbers, placed, "amin")
    chosen, size = [], 0.0
    for n in best.argsort(stable=True).tolist():
        filters = index.offsets[n + 1] - index.offsets[n]
        weights = state[index.layers[n]].numel()
        # Base64 writes three bytes as four letters.
        needed = 4 / 3 * (2 * 2 * weights + 4 * filters * (scores + len(ranks)))
        if size + needed <= most_bytes:
            size += needed
            chosen.append(n)
    return sorted(chosen)


def _kernels(weight: Tensor) -> Tensor:
    """Weights [O, I, h, w]; a kernel of one dimension is a row, slices stand side by side."""
    weight = weight.detach().cpu().float()
    if weight.ndim == 3:
        return weight[:, :, None]
    return weight if weight.ndim == 4 else torch.cat(list(weight.unbind(2)), dim=3)


def _text(values: Tensor) -> str:
    """Write little-endian numbers as base64."""
    array = values.contiguous().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
