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
        self._frozen: dict[int, Tensor] = {}  # by id of the parameter
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
            self._frozen[id(value)] = ~mask
        self.parameters = [value for value, *_ in self.masks]

    def mask_gradients(self) -> None:
        """Zero the gradients of frozen entries, so that no optimiser state includes them."""
        for value, *_ in self.masks:
            self.mask_gradient(value)

    def mask_gradient(self, parameter: Tensor) -> None:
        """Zero the gradient of the frozen entries of one parameter."""
        frozen = self._frozen.get(id(parameter))
        if frozen is not None and parameter.grad is not None:
            parameter.grad.masked_fill_(frozen, 0)  # a product would keep inf as NaN

    @torch.no_grad()
    def restore(self) -> None:
        """Restore frozen entries that the optimiser moved without a gradient."""
        for value, mask, frozen_value in self.masks:
            value.copy_(torch.where(mask, value, frozen_value))
