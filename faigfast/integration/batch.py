"""The forms of a batch that `attribute` takes, read and checked."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch
from torch import Tensor

from faigfast.integration.inputs import Inputs
from faigfast.models.state import unusual_kind

Images = Tensor | Mapping[str, Tensor]  # [N, ...], or one by degradation
OneBatch = Sequence[Images] | Mapping[str, Any]
Batches = OneBatch | Iterable[OneBatch]  # every form that `faigfast.attribute` takes
FORMS = (
    "(x, gt), {'lq': x, 'gt': gt}, {'lq': {'blur': x, ...}, 'gt': gt}, or an iterable of such "
    "batches"
)


@dataclass(frozen=True)
class Batch:
    """Degraded images and their ground truth, by degradation.

    Parameters
    ----------
    lq : dict of str to Tensor
        [N, C, *spatial].
    gt : dict of str to Tensor
        [N, ...], under the same names.
    names : tuple of str, optional
        Of the N images, for messages.
    inputs : dict of str to Inputs
        Further inputs of the networks, under the same names; empty where there are none.
    """

    lq: dict[str, Tensor]
    gt: dict[str, Tensor]
    names: tuple[str, ...] | None = None
    inputs: dict[str, Inputs] = field(default_factory=dict)

    def image_name(self, position: int, before: int) -> str:
        """Give an image's name, or its number after the images of the batches before."""
        return f"{before + position}" if self.names is None else f"{self.names[position]!r}"

    @property
    def given_inputs(self) -> dict[str, Any] | None:
        """Further inputs in the form that a batch takes; None where there are none."""
        return {name: value.given for name, value in self.inputs.items()} or None

    @property
    def images(self) -> int:
        """Number N of images."""
        return len(next(iter(self.lq.values())))


def is_one_batch(data: object) -> TypeGuard[OneBatch]:
    """Whether data has the form of one batch, not of several."""
    return isinstance(data, Mapping) or (
        isinstance(data, tuple | list)
        and len(data) == 2
        and any(isinstance(part, Tensor) for part in data)
    )


def batches(data: Batches, device: torch.device, dtype: torch.dtype) -> Iterator[Batch]:
    """Read every form of `batch` that `attribute` takes.

    Parameters
    ----------
    data : tuple, mapping or iterable
        One batch or an iterable of batches; see `faigfast.attribute`.
    device, dtype
        Of the networks.

    Yields
    ------
    Batch

    Raises
    ------
    TypeError
        If the form is unknown or a tensor is not of floating point.
    ValueError
        If a part is missing, empty, not finite, or does not fit the others.
    """
    if is_one_batch(data):
        yield _read(data, device, dtype)
        return
    if isinstance(data, Tensor | str | bytes) or not isinstance(data, Iterable):
        raise TypeError(f"batch is a {type(data).__name__}; expected {FORMS}")
    names: list[str] = []
    for part in data:
        if not isinstance(part, Mapping | tuple | list):
            raise TypeError(f"batch yields a {type(part).__name__}; expected {FORMS}")
        batch = _read(part, device, dtype)
        names = names or list(batch.lq)
        if set(batch.lq) != set(names):
            raise ValueError(
                f"a batch holds the degradations {list(batch.lq)} after one that holds {names}; "
                "expected the same in all"
            )
        yield replace(batch, lq={name: batch.lq[name] for name in names})
    if not names:
        raise ValueError(f"batch is empty; expected {FORMS}")


def _read(data: Any, device: torch.device, dtype: torch.dtype) -> Batch:
    is_mapping = isinstance(data, Mapping)
    if is_mapping:
        for name in ("lq", "gt"):
            if name not in data:
                raise ValueError(f"batch has the keys {list(data)}; {name!r} is missing")
        lq, gt = data["lq"], data["gt"]
    else:
        if len(data) != 2:
            raise TypeError(f"batch is a {type(data).__name__} of {len(data)}; expected {FORMS}")
        lq, gt = data
    if not isinstance(lq, Mapping):
        lq = {"lq": lq}
    if not lq:
        raise ValueError("batch['lq'] is empty; expected at least one degradation")
    if not all(isinstance(name, str) for name in lq):
        raise TypeError(f"the degradations {list(lq)} are not all named by strings")
    if isinstance(gt, Mapping):
        missing = [name for name in lq if name not in gt]
        if missing:
            raise ValueError(f"batch['gt'] has the keys {list(gt)}; {missing[0]!r} is missing")
        gt = {name: gt[name] for name in lq}
    else:
        gt = dict.fromkeys(lq, gt)
    for name in lq:
        plain = list(lq) == ["lq"]
        _check(lq[name], "x" if plain else f"x of {name!r}", device, dtype)
        _check(gt[name], "gt" if plain else f"gt of {name!r}", device, dtype)
    counts = {name: (len(lq[name]), len(gt[name])) for name in lq}
    if len({count for pair in counts.values() for count in pair}) != 1:
        raise ValueError(
            f"the numbers of images differ, as (x, gt): {counts}; expected one number, the N of "
            "[N, C, *spatial] (a single image is x[None], its ground truth gt[None])"
        )
    count = len(next(iter(lq.values())))
    if not is_mapping:
        return Batch(dict(lq), gt)
    inputs = _inputs(data.get("inputs"), list(lq), count, device)
    return Batch(dict(lq), gt, _names(data.get("name"), count), inputs)


def _inputs(given: Any, names: list[str], images: int, device: torch.device) -> dict[str, Inputs]:
    """Read further inputs: the same under all degradations, or a mapping by degradation."""
    by_name = dict.fromkeys(names, given)
    groups = isinstance(given, Mapping) and given.keys() == set(names)
    if groups and all(isinstance(value, tuple | list | Mapping) for value in given.values()):
        by_name = {name: given[name] for name in names}
    read = {name: Inputs.read(value, images, device) for name, value in by_name.items()}
    return {name: value for name, value in read.items() if value is not None}


def _names(value: Any, count: int) -> tuple[str, ...] | None:
    """Give the names of images where a batch holds them, as those of a data loader do."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    return tuple(value) if all(isinstance(name, str) for name in value) else None


def _check(value: Any, name: str, device: torch.device, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a tensor of images")
    if not value.is_floating_point():
        raise TypeError(
            f"{name} is of {value.dtype}; expected floating point of the networks' range "
            "(images in [0, 1]: x.float() / 255)"
        )
    if kind := unusual_kind(value):
        raise ValueError(f"{name} is {kind}; expected a dense tensor with values")
    if value.ndim < 2:
        raise ValueError(f"{name} is {list(value.shape)}; expected [N, C, *spatial]")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty: {list(value.shape)}; expected at least one image")
    if value.device != device:
        raise ValueError(f"{name} is on {value.device}; expected {device}, as the networks are")
    if value.dtype != dtype:
        raise ValueError(f"{name} is of {value.dtype}; expected {dtype}, as the networks are")
    if not value.isfinite().all():
        raise ValueError(f"{name} holds values that are not finite")
