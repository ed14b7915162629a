"""Effects: what an operation does beside computing tensors, by its schema and tags."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

# These return values to Python that depend on shapes and types alone.
_OF_SHAPES = {
    f"aten::{name}"
    for name in (
        "dim", "is_complex", "is_floating_point", "is_same_size", "is_signed", "numel", "size",
        "storage_offset", "stride",
    )
}  # fmt: skip


class Effects(NamedTuple):
    """Effects of an operation beside computing tensors."""

    random: bool
    writes: bool
    by_values: bool  # a Python value, or the result's shape, may depend on values


@cache
def effects_of(func: Any) -> Effects:
    """Look up the effects of an operation."""
    numbers = any("Tensor" not in str(part.type) for part in func._schema.returns)
    return Effects(
        torch.Tag.nondeterministic_seeded in func.tags,
        func._schema.is_mutable,
        torch.Tag.dynamic_output_shape in func.tags
        or (numbers and func._schema.name not in _OF_SHAPES),
    )


def draws(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation that may draw random numbers does so with these arguments."""
    # Dropout and attention have this tag even where they drop nothing.
    given = {argument.name: argument.default_value for argument in func._schema.arguments}
    given |= dict(zip(given, args, strict=False)) | dict(kwargs)
    if "dropout_p" in given:
        return bool(given["dropout_p"])
    return given.get("train", given.get("training")) is not False
