"""An attribution as named tensors and metadata, and back."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.filters.index import FilterIndex
from faigfast.integration.settings import checked_settings
from faigfast.io.saved_attribution import FORMAT, check_arrays, check_names, distance_of
from faigfast.io.tensor_file import load_tensors

if TYPE_CHECKING:
    from faigfast.result import Attribution

ARRAYS = ("completeness", "losses", "error", "points", "scored")  # fields that are one tensor each


def named_tensors(result: "Attribution") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Give everything as named tensors and metadata in JSON types."""
    named = {f"scores.{i}": v for i, v in enumerate(result.by_degradation.values())}
    named |= {name: getattr(result, name) for name in (*ARRAYS, "line")}
    named |= {"distance": result.distance.to_tensor()} if result.distance.layers else {}
    named |= {"mean_error": result.mean_error} if result.mean_error.numel() else {}
    return named, {
        "format": FORMAT,
        "degradations": list(result.degradations),
        "layers": result.index.layers,
        "shapes": result.index.shapes,
        "setting": asdict(result.setting),
        "notes": result.notes,
        "zero_gradient": result.zero_gradient,
    }


def fields_of(named: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Give the fields of the attribution that `named_tensors` took apart.

    Raises
    ------
    ValueError
        If the tensors and the metadata do not belong to an attribution.
    """
    try:
        check_names(metadata, sum(name.startswith("scores.") for name in named))
        names, setting = metadata["degradations"], checked_settings(metadata.get("setting"))
        shapes = tuple(tuple(shape) for shape in metadata["shapes"])
        index = FilterIndex(tuple(metadata["layers"]), shapes)
        check_arrays(named, index, len(names), setting)
        return {
            "index": index,
            "by_degradation": {name: named[f"scores.{i}"] for i, name in enumerate(names)},
            "setting": setting,
            "notes": tuple(metadata["notes"]),
            "zero_gradient": tuple(metadata.get("zero_gradient", ())),  # of newer files
            "line": named.get("line", torch.empty(0)),
            "distance": distance_of(named, index.layers),
            "mean_error": named.get("mean_error", torch.empty(0)),
            **{name: named[name] for name in ARRAYS},
        }
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError(f"{type(problem).__name__} {problem}") from None


def loaded(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of an attribution; errors as `Attribution.load`."""
    tensors, metadata = load_tensors(path)
    try:
        return fields_of(tensors, metadata)
    except ValueError as problem:
        raise ValueError(f"{path} is not a saved attribution: {problem}") from None
