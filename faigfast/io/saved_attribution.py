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
    if not all(isinstance(size, int) for shape in index.shapes for size in shape):
        raise ValueError(f"shapes {index.shapes}, expected integers")
    for name, value in arrays.items():
        known = {"scored": value.dtype == torch.bool, "points": value.dtype == torch.int64}
        if not known.get(name, value.is_floating_point()):
            raise ValueError(f"{name} is of {value.dtype}")
        if name.startswith("scores.") and not value.isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")
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
