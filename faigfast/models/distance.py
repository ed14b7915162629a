"""Distance: how far apart two networks' weights are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from faigfast.models.state import identity, tensors


@dataclass(frozen=True)
class Distance:
    """‖θ − θ̄‖ / ‖θ̄‖ in the Euclidean norm.

    Parameters
    ----------
    network : float
        Over all parameters, without buffers, which may be constants of any size; NaN if unknown.
        `float()` gives it.
    layers : dict of str to float
        By layer, of its weight alone; infinity where θ̄ is 0 and θ is not.
    """

    network: float = math.nan
    layers: dict[str, float] = field(default_factory=dict)

    def __float__(self) -> float:
        """Give the distance of the networks."""
        return self.network

    @classmethod
    def of(
        cls,
        start: Mapping[str, Tensor],
        delta: Mapping[str, Tensor],
        layers: Sequence[str],
        model: nn.Module,
    ) -> "Distance":
        """Compute the distances of a line.

        Parameters
        ----------
        start : mapping of str to Tensor
            θ̄.
        delta : mapping of str to Tensor
            θ − θ̄ of the tensors that differ.
        layers : sequence of str
            Layers to list.
        model : nn.Module
            Either network, for the names of its parameters.
        """
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        counted = parameters | set(layers)
        sizes = _norms({key: value for key, value in start.items() if key in counted})
        changes = _norms({key: value for key, value in delta.items() if key in counted})
        changes = dict.fromkeys(sizes, 0.0) | changes
        network = _ratio(*(math.hypot(*norms.values()) for norms in (changes, sizes)))
        return cls(network, {key: _ratio(changes[key], sizes[key]) for key in layers})

    @classmethod
    def between(cls, baseline: nn.Module, target: nn.Module, layers: Sequence[str]) -> "Distance":
        """Compute the distances of two networks of one architecture."""
        first, last = tensors(baseline), tensors(target)
        floats = {key: value for key, value in last.items() if value.is_floating_point()}
        owners = {identity(value): key for key, value in list(floats.items())[::-1]}
        start = {key: first[key].detach() for key in owners.values()}
        delta = {key: last[key].detach() - value for key, value in start.items()}
        return cls.of(start, delta, layers, target)

    def to_tensor(self) -> Tensor:
        """Give [1 + L], float64: the network's distance, then each layer's."""
        return torch.tensor([self.network, *self.layers.values()], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, values: Tensor, layers: Sequence[str]) -> "Distance":
        """Read what `to_tensor` gave."""
        network, *others = values.tolist()
        return cls(network, dict(zip(layers, others, strict=True)))


def _ratio(change: float, size: float) -> float:
    if not size:
        return math.inf if change else 0.0
    return change / size


def _norms(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Euclidean norms by name, with one wait for the device."""
    if not values:
        return {}
    norms = [
        torch.linalg.vector_norm(v, dtype=torch.promote_types(v.dtype, torch.float32))
        for v in values.values()
    ]
    return dict(zip(values, torch.stack(norms).tolist(), strict=True))
