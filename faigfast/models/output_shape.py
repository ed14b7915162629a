"""Shapes of a network's outputs, found without values where the network allows it."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.models.state import call_as_is, own_type, undisturbed

SIDE = 64  # pixels of the image that shows how many channels a network takes
# Estimated operations with values, in all, that take less time than torch's first operation
# without them, which imports for a second.
OPERATIONS = 3e10


class OutputShapes:
    """Finds the shape of a network's output from the shape of an image.

    The network runs on zeros as long as that takes little time. After that, a copy of it runs on
    tensors without values (torch's device "meta"), unless control flow on values or the like keeps
    it from that.

    Parameters
    ----------
    network : nn.Module
        Unchanged.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._weights = sum(parameter.numel() for parameter in network.parameters())
        self._operations = 0.0
        self._copy: nn.Module | None = None
        self._needs_values = False

    def cheap(self) -> bool:
        """Whether the network runs on tensors without values."""
        if self._copy is None and not self._needs_values:
            self._copy = _copy_without_values(self.network)
            self._needs_values = self._copy is None
        return not self._needs_values

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
        self._operations += 2.0 * self._weights * math.prod(shape[1:])
        without_values = self._operations > OPERATIONS and self.cheap()
        if without_values and self._copy is not None:
            kind = own_type(self.network)
            try:
                with torch.no_grad():
                    x = torch.empty(1, *shape, dtype=kind, device="meta")
                    return _shape(self._copy(x))
            except Exception:  # of any network; below it runs with values
                pass
        place = next(self.network.parameters())
        with undisturbed(self.network), torch.no_grad():
            x = torch.zeros(1, *shape, dtype=own_type(self.network), device=place.device)
            made = _shape(call_as_is(self.network, x))
        self._needs_values = self._needs_values or without_values
        return made

    def enlargement(self, channels: int, side: int, pad: int = 0) -> int:
        """Give the least integer enlargement that explains the output of a large image.

        Parameters
        ----------
        channels : int
            Of the image.
        side : int
            Side of a square image that is tried where the network does not take a large one.
        pad : int
            Pixels of reflection around the image.

        Raises
        ------
        ValueError
            If the network takes neither image.
        """
        try:  # of a large image, in which lost pixels count little
            padded = SIDE + 2 * pad
            output = self.of(channels, padded, padded)
        except ValueError:
            padded = side + 2 * pad
            output = self.of(channels, padded, padded)
        return -(-output[-1] // padded)


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

    The count is the network's attribute `channels` if this is 1 or 3, or else 3 if its first
    convolution takes 3 channels. For any other network it is the one of 1 and 3 that runs.
    """
    given = getattr(network, "channels", None)
    if given in (1, 3) and not isinstance(given, bool):
        return int(given)
    convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((m.in_channels for m in network.modules() if isinstance(m, convolutions)), 3)
    if first == 3:
        return 3
    candidates = [number for number in dict.fromkeys((first, 3, 1)) if number in (1, 3)]
    shapes = OutputShapes(network)
    for number in candidates:
        try:
            shapes.of(number, SIDE, SIDE)
        except ValueError:
            continue
        return number
    return candidates[0]
