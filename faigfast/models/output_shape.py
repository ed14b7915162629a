"""Shapes of a network's outputs, found without values where the network allows it."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.models.state import call_as_is, own_type, undisturbed

SIDE = 64  # pixels of the image that shows how many channels a network takes


class OutputShapes:
    """Finds the shape that a network makes of an image of a shape.

    A copy of the network runs on tensors without values (torch's device "meta"). Where it cannot,
    as with control flow on values, the network itself runs on zeros.

    Parameters
    ----------
    network : nn.Module
        Unchanged.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._without_values: nn.Module | None = _copy_without_values(network)

    @property
    def cheap(self) -> bool:
        """Whether no value is computed."""
        return self._without_values is not None

    def of(self, *shape: int) -> tuple[int, ...]:
        """Give the shape of the output for one image.

        Parameters
        ----------
        shape : int
            C and the sides.

        Raises
        ------
        ValueError
            If the network does not take the image, or gives no tensor.
        """
        if self._without_values is not None:
            kind = own_type(self.network)
            try:
                with torch.no_grad():
                    x = torch.empty(1, *shape, dtype=kind, device="meta")
                    return _shape(self._without_values(x))
            except Exception:  # of any network; below it runs with values
                pass
        place = next(self.network.parameters())
        with undisturbed(self.network), torch.no_grad():
            x = torch.zeros(1, *shape, dtype=own_type(self.network), device=place.device)
            made = _shape(call_as_is(self.network, x))
        self._without_values = None
        return made


def _shape(output: Any) -> tuple[int, ...]:
    if not isinstance(output, Tensor):
        raise ValueError(f"the network returns a {type(output).__name__}; expected a tensor")
    return tuple(output.shape)


def _copy_without_values(network: nn.Module) -> nn.Module | None:
    """Copy a network in eval mode without its values; None where it cannot be copied."""
    memo: dict[int, Tensor] = {}
    for module in network.modules():
        for value in (*module._parameters.values(), *vars(module).values()):
            if isinstance(value, Tensor):
                memo[id(value)] = torch.empty_like(value, device="meta", requires_grad=False)
            if isinstance(value, nn.Parameter):
                memo[id(value)] = nn.Parameter(memo[id(value)], requires_grad=False)
        for value in module._buffers.values():
            if isinstance(value, Tensor):
                memo[id(value)] = torch.empty_like(value, device="meta")
    try:
        return copy.deepcopy(network, memo).eval()
    except Exception:  # of any network
        return None


def image_channels(network: nn.Module) -> int:
    """Count the channels of the images that a network takes.

    That is its attribute `channels` if this is 1 or 3; else the channels of its first convolution;
    where the network does not take such an image, 3 or 1.
    """
    given = getattr(network, "channels", None)
    if given in (1, 3) and not isinstance(given, bool):
        return int(given)
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((m.in_channels for m in network.modules() if isinstance(m, convolutions)), 3)
    candidates = [number for number in dict.fromkeys((first, 3, 1)) if number in (1, 3)]
    shapes = OutputShapes(network)
    for number in candidates:
        try:
            shapes.of(number, SIDE, SIDE)
        except ValueError:
            continue
        return number
    return candidates[0]
