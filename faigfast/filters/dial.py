"""Dial: the filters of one ability with the values of both networks, in one small file."""

import math
import os
import re
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import complete_biases
from faigfast.io.tensor_file import load_tensors, save_tensors
from faigfast.models.state import all_finite, copy_of, tensors, unwrap

FORMAT = "faigfast dial 1"
ROLES = ("positions", "baseline", "target")  # first part of the tensors' names in a file
FLOATING = {str(t)[6:]: t for t in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
NAME = r"[^/\x00-\x1f]*"


@dataclass(frozen=True, eq=False)
class Dial:
    """Filters of one ability, with the values of baseline and target.

    Parameters
    ----------
    name : str
        Name of the ability, such as the degradation that the filters remove; may be empty.
    positions : dict of str to Tensor
        By state-dict key, int64 [K]: ascending row-major positions in the first two dimensions
        of a convolution's weight, in the one dimension of a bias.
    baseline, target : dict of str to Tensor
        By the same keys, [K, *k] of a weight and [K] of a bias.
    shapes : dict of str to tuple of int
        Shapes of these tensors in the network.
    index : str
        Fingerprint of the network's `FilterIndex`: names and shapes of its convolutions.
    total : int
        Number F of filters of the network.

    Raises
    ------
    ValueError
        If positions, values and shapes do not fit each other, or values are not finite.

    Examples
    --------
    >>> a, b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    >>> dial = Dial.from_filters(FilterSet(torch.tensor([4])), a, b)
    >>> torch.equal(dial.apply(b, 0).weight[1, 1], a.weight[1, 1])
    True
    """

    name: str
    positions: dict[str, Tensor]
    baseline: dict[str, Tensor]
    target: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    index: str
    total: int

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if not isinstance(self.name, str) or not re.fullmatch(NAME, self.name):
            raise ValueError(
                f"name is {self.name!r}; expected text without / and control characters"
            )
        if not self.positions:
            raise ValueError("positions are empty; expected at least one filter")
        for role in ("baseline", "target", "shapes"):
            if getattr(self, role).keys() != self.positions.keys():
                raise ValueError(
                    f"{role} has the keys {', '.join(getattr(self, role))}; expected those of "
                    f"positions, {', '.join(self.positions)}"
                )
        for key, places in self.positions.items():
            shape = self.shapes[key]
            count = math.prod(shape[:2])
            inside = places.ndim == 1 and places.numel() and places.dtype == torch.int64
            inside = inside and int(places[0]) >= 0 and int(places[-1]) < count
            if not inside or not bool((places.diff() > 0).all()):
                raise ValueError(
                    f"positions of {key!r} are no ascending places of {list(shape)}; expected "
                    f"int64 from 0 to {count} - 1, each once"
                )
            for role, values in (("baseline", self.baseline[key]), ("target", self.target[key])):
                if tuple(values.shape) != (len(places), *shape[2:]):
                    raise ValueError(
                        f"{role} of {key!r} is {list(values.shape)}; expected "
                        f"{[len(places), *shape[2:]]}"
                    )
                if not values.is_floating_point() or not all_finite(values):
                    raise ValueError(f"{role} of {key!r} holds values that are not finite numbers")

    def __repr__(self) -> str:
        return f"Dial({self.name!r}: {len(self)} of {self.total} filters)"

    def __len__(self) -> int:
        """Count the filters."""
        return sum(len(self.positions[key]) for key, shape in self.shapes.items() if len(shape) > 1)

    @property
    def share(self) -> float:
        """Share of all filters of the network."""
        return len(self) / self.total

    @classmethod
    def from_filters(
        cls,
        filters: FilterSet,
        baseline: nn.Module,
        target: nn.Module,
        biases: bool = True,
        *,
        name: str = "",
    ) -> "Dial":
        """Take the values of a set of filters from both networks.

        Parameters
        ----------
        filters : FilterSet
            The filters.
        baseline, target : nn.Module
            The pair of the set, unchanged.
        biases : bool
            Take the bias of an output channel too if all filters of the channel are in the set,
            as `FilterSet.swap` does.
        name : str
            Name of the ability.

        Raises
        ------
        TypeError
            If `filters` is no `FilterSet`.
        ValueError
            If the networks are not the pair of the set.
        """
        if not isinstance(filters, FilterSet):
            raise TypeError(f"filters is a {type(filters).__name__}; expected a FilterSet")
        if not isinstance(biases, bool):
            raise TypeError(f"biases is {biases!r}; expected True or False")
        filters.check_pair(baseline, target)
        baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
        index = FilterIndex.of(target)
        masks = filters.masks(index)
        if biases:
            masks |= complete_biases(target, index, masks)
        start, end = tensors(baseline), tensors(target)
        positions = {key: mask.flatten().nonzero().flatten() for key, mask in masks.items()}
        shapes = {key: tuple(end[key].shape) for key in positions}

        def values_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
            """Take the values of the filters, in the target's types."""
            return {
                key: _rows(state[key])[places.to(state[key].device)].to("cpu", end[key].dtype)
                for key, places in positions.items()
            }

        return cls(
            name, positions, values_of(start), values_of(end), shapes, index.fingerprint, len(index)
        )

    def apply(self, model: nn.Module, strength: float) -> nn.Module:
        """Copy the target with the ability at a strength.

        Parameters
        ----------
        model : nn.Module
            The target, unchanged afterwards; or the target with other filters changed, such as by
            another dial.
        strength : float
            0: the ability is off, with the baseline's values in these filters; 1: the target;
            values between and beyond are on the line through both.

        Returns
        -------
        nn.Module
            A copy, in the model's modes and types.

        Raises
        ------
        TypeError
            If the model is no module, or the strength no number.
        ValueError
            If the model is another network, has other values in these filters, or the strength or
            a weight at it is not finite.
        """
        strength = _finite_number(strength)
        model = unwrap(model, "model")
        index = FilterIndex.of(model)
        state = tensors(model)
        if index.fingerprint != self.index or any(
            key not in state or tuple(state[key].shape) != shape
            for key, shape in self.shapes.items()
        ):
            raise ValueError(
                f"model has {len(index)} filters and the fingerprint {index.fingerprint}; expected "
                f"the dial's target of {self.total} filters and the fingerprint {self.index}, with "
                "the same names and shapes of layers"
            )
        for key, places in self.positions.items():
            own = _rows(state[key])[places.to(state[key].device)]
            if not torch.equal(own.detach(), self.target[key].to(own)):
                raise ValueError(
                    f"model has other values than the dial's target in {key!r}; expected the "
                    "target itself, or one whose other filters were changed: a dial that was "
                    "applied before must not hold filters of this one"
                )
        edited = copy_of(model)
        vars(edited).pop("faigfast_source", None)  # the copy differs from the checkpoint
        changed = tensors(edited)
        with torch.inference_mode(False), torch.no_grad():
            for key, places in self.positions.items():
                values = self._at(key, strength).to(changed[key])
                if not all_finite(values):
                    raise ValueError(
                        f"weights of {key!r} at the strength {strength:g} are not finite; expected "
                        "a smaller strength"
                    )
                shape = self.shapes[key][:2]
                mask = torch.zeros(math.prod(shape), dtype=torch.bool)
                mask[places] = True  # positions ascend, as what a mask selects does
                changed[key][mask.view(shape).to(values.device)] = values
        return edited

    def _at(self, key: str, strength: float) -> Tensor:
        """Values of a tensor's filters at a strength."""
        if strength == 0:  # lerp makes 0 of -0
            return self.baseline[key]
        if abs(strength) > torch.finfo(self.target[key].dtype).max:  # lerp refuses it
            return torch.full_like(self.target[key], math.inf)
        return torch.lerp(self.baseline[key], self.target[key], strength)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the dial as one safetensors file with a digest of its content.

        Values are written in 16 bits where these hold them exactly, as those of half-precision
        checkpoints.

        Raises
        ------
        ValueError
            If the file cannot be written.
        """
        content = {
            f"{role}/{key}": value.to(torch.int32) if role == "positions" else _narrowest(value)
            for role in ROLES
            for key, value in getattr(self, role).items()
        }
        metadata = {
            "format": FORMAT,
            "name": self.name,
            "shapes": {key: list(shape) for key, shape in self.shapes.items()},
            "types": {key: str(value.dtype)[6:] for key, value in self.target.items()},
            "index": self.index,
            "total": self.total,
        }
        save_tensors(path, content, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Dial":
        """Read a file of `save`.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged, or of another kind.
        """
        content, metadata = load_tensors(path)
        if metadata.get("format") != FORMAT:
            raise ValueError(f"{path} is no dial; expected a file of Dial.save")
        parts: dict[str, dict[str, Any]] = {role: {} for role in ROLES}
        for entry, value in content.items():
            role, _, key = entry.partition("/")
            if role not in parts:
                raise ValueError(f"{path} holds {entry!r}; expected a file of Dial.save")
            parts[role][key] = value.long() if role == "positions" else value
        try:
            shapes = {key: tuple(map(int, s)) for key, s in metadata["shapes"].items()}
            types = {key: FLOATING[kind] for key, kind in metadata["types"].items()}
            for values in (parts["baseline"], parts["target"]):
                for key, value in values.items():
                    values[key] = value.to(types[key]) if value.dtype == torch.half else value
            rest = str(metadata["name"]), str(metadata["index"]), int(metadata["total"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{path} lacks entries of a dial; expected a file of Dial.save"
            ) from None
        try:
            return cls(rest[0], **parts, shapes=shapes, index=rest[1], total=rest[2])
        except ValueError as problem:
            raise ValueError(f"{path}: {problem}") from None


def _narrowest(value: Tensor) -> Tensor:
    """Give float32 values in 16 bits if these hold them exactly."""
    half = value.half() if value.dtype == torch.float32 else value
    return half if torch.equal(half.to(value.dtype), value) else value


def _rows(value: Tensor) -> Tensor:
    """View a weight [O, I, *k] as [O·I, *k]; leave a bias [O] as it is."""
    return value.flatten(0, 1) if value.ndim > 1 else value


def _finite_number(strength: Any) -> float:
    if isinstance(strength, bool) or not isinstance(strength, Real):
        raise TypeError(f"strength is {strength!r}; expected a finite number")
    try:
        number = float(strength)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"strength is {strength!r}; expected a finite number")
    return number
