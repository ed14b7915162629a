"""Checks of the content of a saved attribution."""

import reprlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from faigfast.filters.index import FilterIndex
from faigfast.models.distance import Distance

if TYPE_CHECKING:
    from faigfast.integration.settings import AttributionSettings

FORMAT = "faigfast attribution 2"
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_names(metadata: Mapping[str, Any], scores: int) -> None:
    """Refuse metadata whose format, degradations, layers, shapes or notes `save` cannot write.

    Parameters
    ----------
    metadata : mapping
        Of `Attribution.to_tensors`, or read from JSON.
    scores : int
        Number D of tensors of scores.

    Raises
    ------
    ValueError
        Naming the entry.
    """
    if metadata.get("format") != FORMAT:
        raise ValueError(f"format is {reprlib.repr(metadata.get('format'))}; expected {FORMAT!r}")
    for name in ("degradations", "layers", "shapes", "notes"):
        if name not in metadata:
            raise ValueError(f"{name} are missing; expected a list")
        if not isinstance(metadata[name], list | tuple):
            raise ValueError(f"{name} are {reprlib.repr(metadata[name])}; expected a list")
    names, layers, shapes = (metadata[key] for key in ("degradations", "layers", "shapes"))
    if len(names) != scores:
        raise ValueError(
            f"degradations are {len(names)}, expected {scores}, one a tensor of scores"
        )
    if len(layers) != len(shapes):
        raise ValueError(f"layers are {len(layers)}, expected {len(shapes)}, as there are shapes")
    for name in ("degradations", "layers", "notes"):
        for text in metadata[name]:
            if not isinstance(text, str):
                raise ValueError(f"{name} hold {reprlib.repr(text)}; expected texts")
    for name in ("degradations", "layers"):
        if len(set(metadata[name])) != len(metadata[name]) or not metadata[name]:
            raise ValueError(f"{name} are {reprlib.repr(metadata[name])}; expected each name once")
    zero_gradient = metadata.get("zero_gradient", ())
    if not isinstance(zero_gradient, list | tuple) or any(k not in layers for k in zero_gradient):
        raise ValueError(f"zero_gradient is {reprlib.repr(zero_gradient)}; expected some layers")
    for shape in shapes:
        sizes = isinstance(shape, list | tuple) and len(shape) > 2
        if not sizes or not all(type(size) is int and size > 0 for size in shape):
            raise ValueError(
                f"shapes hold {reprlib.repr(shape)}; expected positive integers [O, I, *k]"
            )


def check_arrays(
    arrays: Mapping[str, Tensor],
    index: FilterIndex,
    degradations: int,
    setting: "AttributionSettings",
) -> None:
    """Refuse arrays that an attribution of this setting cannot have.

    Parameters
    ----------
    arrays : mapping of str to Tensor
        Of `Attribution.to_tensors`.
    index : FilterIndex
        Of F filters.
    degradations : int
        Their number D.
    setting : AttributionSettings
        Its method and `per_image` decide which values may occur.

    Raises
    ------
    ValueError
        Naming the array.
    """
    scores = [f"scores.{i}" for i in range(degradations)]
    for name in (*scores, "completeness", "losses", "error", "points", "scored"):
        if name not in arrays:
            raise ValueError(f"{name} is missing")
    _check_shapes(arrays, index.offsets[-1], scores, setting.per_image)
    _check_types(arrays, scores)
    _check_values(arrays, scores, setting)
    _check_line(arrays)
    _check_distance(arrays, len(index.layers))
    _check_mean_error(arrays, (degradations, index.offsets[-1]))


def _check_shapes(
    arrays: Mapping[str, Tensor], filters: int, scores: list[str], per_image: bool
) -> None:
    losses = arrays["losses"]
    images = losses.shape[1] if losses.ndim == 3 else 0
    if images < 1:
        raise ValueError(f"losses is {list(losses.shape)}, expected [D, N, 2] of N images")
    rows = images if per_image else 1
    expected: dict[str, tuple[int, ...]] = {
        **{name: (rows, filters) for name in scores},
        "completeness": (len(scores), images),
        "losses": (len(scores), images, 2),
        "error": (len(scores), images),
        "points": (len(scores), images),
        "scored": (filters,),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{name} is {list(arrays[name].shape)}, expected {list(shape)} for "
                f"{filters} filters and losses of {images} images, per_image={per_image}"
            )


def _check_types(arrays: Mapping[str, Tensor], scores: list[str]) -> None:
    for name in (*scores, "completeness", "losses", "error"):
        if arrays[name].dtype not in FLOATS:
            raise ValueError(f"{name} is of {arrays[name].dtype}, expected floating point numbers")
    types = {str(arrays[name].dtype) for name in scores}
    if len(types) > 1:
        raise ValueError(f"scores are of {' and '.join(sorted(types))}, expected one type")
    for name, kind in (("points", torch.int64), ("scored", torch.bool)):
        if arrays[name].dtype != kind:
            raise ValueError(f"{name} is of {arrays[name].dtype}, expected {kind}")


def _check_values(
    arrays: Mapping[str, Tensor], scores: list[str], setting: "AttributionSettings"
) -> None:
    for name in scores:
        if not arrays[name].isfinite().all():
            raise ValueError(f"{name} holds values that are not finite")
    if setting.has_losses and not arrays["losses"].isfinite().all():
        raise ValueError("losses holds values that are not finite")
    nonnegative = ["completeness", "error"]
    if not setting.signed:
        nonnegative += scores
    for name in nonnegative:
        if (arrays[name] < 0).any():
            raise ValueError(
                f"{name} holds {float(arrays[name].nan_to_num().min()):g}; expected no negative "
                f"number with the method {setting.method!r}"
            )
    least = 1 if setting.has_points else 0
    if (arrays["points"] < least).any():
        raise ValueError(
            f"points holds {int(arrays['points'].min())}; expected at least {least} with the "
            f"method {setting.method!r}"
        )
    if not arrays["scored"].any():
        raise ValueError("scored selects no filter; expected at least one")


def _check_line(arrays: Mapping[str, Tensor]) -> None:
    """Refuse a table of losses that no line has; files of older versions have none."""
    if "line" not in arrays:
        return
    line, points = arrays["line"], arrays["points"]
    if line.ndim != 4 or line.shape[:2] != points.shape or line.shape[3] != 2:
        raise ValueError(f"line is {list(line.shape)}, expected {[*points.shape, 'P', 2]}")
    if line.dtype not in FLOATS:
        raise ValueError(f"line is of {line.dtype}, expected floating point numbers")
    known = line.isfinite()
    if (known[..., 0] != known[..., 1]).any() or line.isinf().any():
        raise ValueError("line holds values that are not finite beside others that are")
    alpha = line[..., 0]
    if ((alpha < 0) | (alpha > 1)).any() or (alpha.diff(dim=-1) < 0).any():
        raise ValueError("line holds α that do not ascend in [0, 1]")
    counts = known[..., 0].sum(-1)
    if ((counts != points) & (counts > 0)).any():
        raise ValueError("line and points hold different numbers of points of an image")


def _check_distance(arrays: Mapping[str, Tensor], layers: int) -> None:
    """Refuse distances that no networks have; files of older versions have none."""
    if "distance" not in arrays:
        return
    distance = arrays["distance"]
    if distance.shape != (1 + layers,) or distance.dtype != torch.float64:
        raise ValueError(
            f"distance is {list(distance.shape)} of {distance.dtype}, expected {[1 + layers]} of "
            "torch.float64"
        )
    if not (distance >= 0).all():
        raise ValueError("distance holds values that are negative or no numbers")


def _check_mean_error(arrays: Mapping[str, Tensor], shape: tuple[int, int]) -> None:
    """Refuse estimated errors of other filters; rules without an estimate have none."""
    if "mean_error" not in arrays:
        return
    error = arrays["mean_error"]
    if error.shape != shape or error.dtype != torch.float32:
        raise ValueError(
            f"mean_error is {list(error.shape)} of {error.dtype}, expected {list(shape)} of "
            "torch.float32"
        )
    if not error.isfinite().all():
        raise ValueError("mean_error holds values that are not finite")


def distance_of(arrays: Mapping[str, Tensor], layers: Sequence[str]) -> Distance:
    """Give the distances of a file; unknown ones of a file of older versions."""
    values = arrays.get("distance")
    return Distance() if values is None else Distance.from_tensor(values, layers)
