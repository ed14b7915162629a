"""Entries of parameters that a training leaves as they are."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class FrozenEntries:
    """Entries of parameters that a training must not change.

    Parameters
    ----------
    network : nn.Module
        The network before the first step, with the frozen values.
    trainable : mapping of str to Tensor, optional
        As in `train`.
    """

    def __init__(self, network: nn.Module, trainable: Mapping[str, Tensor] | None) -> None:
        parameters = dict(network.named_parameters())
        self.parameters = list(parameters.values())
        self.masks: list[tuple[nn.Parameter, Tensor, Tensor]] = []
        if trainable is None:
            return
        for key, mask in trainable.items():
            if key not in parameters:
                raise ValueError(f"trainable holds {key!r}, which is no parameter of the network")
            value = parameters[key]
            if mask.dtype != torch.bool or mask.shape != value.shape[: mask.ndim]:
                raise ValueError(
                    f"trainable holds {list(mask.shape)} of {mask.dtype} for {key!r}; expected a "
                    f"bool mask that fits {list(value.shape)}"
                )
            mask = mask.view(*mask.shape, *[1] * (value.ndim - mask.ndim)).to(value.device)
            self.masks.append((value, mask, value.detach().clone()))
        self.parameters = [value for value, *_ in self.masks]

    def mask_gradients(self) -> None:
        """Zero the gradients of frozen entries, so that no optimiser state includes them."""
        for value, mask, _ in self.masks:
            if value.grad is not None:
                value.grad.mul_(mask)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore frozen entries that the optimiser moved without a gradient."""
        for value, mask, frozen_value in self.masks:
            value.copy_(torch.where(mask, value, frozen_value))
