"""Kernels of filters as matrices, in both networks of a pair."""

from torch import Tensor, cat, nn

from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.models.state import tensors, unwrap


def top_kernels(
    baseline: nn.Module, target: nn.Module, filters: FilterSet, count: int = 12
) -> list[tuple[str, Tensor, Tensor]]:
    """Take the best kernels of a ranking, before and after.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    filters : FilterSet
        Best first.
    count : int
        How many; fewer where the set has fewer.

    Returns
    -------
    list of (str, Tensor, Tensor)
        "layer out,in" and the kernel in baseline and target, each in two dimensions: a kernel of
        one dimension as a row, the slices of a kernel of three side by side.
    """
    index = FilterIndex.of(target)
    filters.masks(index)
    baseline_state = tensors(unwrap(baseline, "baseline"))
    target_state = tensors(unwrap(target, "target"))
    kernels = []
    for flat in filters.indices[:count].tolist():
        layer, row, column = index.locate(flat)
        before, after = (
            _matrix(state[layer][row, column].detach().cpu().float())
            for state in (baseline_state, target_state)
        )
        kernels.append((f"{layer.removesuffix('.weight')} {row},{column}", before, after))
    return kernels


def _matrix(kernel: Tensor) -> Tensor:
    if kernel.ndim == 1:
        return kernel[None]
    return kernel if kernel.ndim == 2 else cat(list(kernel), dim=1)
