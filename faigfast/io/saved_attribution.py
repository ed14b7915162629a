"""Checks of the arrays in the file of a saved attribution."""

from collections.abc import Mapping

import torch
from torch import Tensor

from faigfast.filters.index import FilterIndex


def check_arrays(arrays: Mapping[str, Tensor], index: FilterIndex, degradations: int) -> None:
    """Refuse arrays of a file whose shapes do not fit together."""
    if len(index.layers) != len(index.shapes):
        raise ValueError(f"{len(index.layers)} layers and {len(index.shapes)} shapes")
    if not all(len(shape) > 2 and min(shape) > 0 for shape in index.shapes):
        raise ValueError(f"shapes {index.shapes}, expected positive sizes [O, I, *k]")
    if arrays["scored"].dtype != torch.bool:
        raise ValueError(f"scored is of {arrays['scored'].dtype}, expected bool")
    rows, images = len(arrays["scores.0"]), arrays["losses"].shape[1]
    if rows not in (1, images):
        raise ValueError(f"scores of {rows} images beside losses of {images}")
    expected: dict[str, tuple[int, ...]] = {
        "completeness": (degradations, images),
        "error": (degradations, images),
        "losses": (degradations, images, 2),
        "scored": (len(index),),
        "points": (degradations, images),
        **{f"scores.{i}": (rows, len(index)) for i in range(degradations)},
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is {list(arrays[name].shape)}, expected {list(shape)}")
