"""How filters spread over the layers of their network, in numbers and in words."""

from collections import Counter

from torch import Tensor

from faigfast.filters.index import FilterIndex
from faigfast.io.text_table import counted

LAYERS_NAMED = 3


def layer_counts(indices: Tensor, index: FilterIndex) -> dict[str, int]:
    """Count filters [K] by layer, without ".weight": most first, ties in the order given."""
    layers, _, _ = index.locate_all(indices)
    return dict(Counter(name.removesuffix(".weight") for name in layers).most_common())


def layers_in_words(indices: Tensor, index: FilterIndex) -> str:
    """Name the layers that hold most of the filters, such as "body.3 (12), body.0 (8)"."""
    counts = layer_counts(indices, index)
    named = [f"{layer or 'weight'} ({n})" for layer, n in list(counts.items())[:LAYERS_NAMED]]
    others = list(counts.values())[LAYERS_NAMED:]
    if others:
        named.append(f"{counted(len(others), 'other layer')} ({sum(others)})")
    return ", ".join(named)
