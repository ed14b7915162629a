"""Training restricted to some filters, which may change while it runs."""

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.training.frozen_entries import FrozenEntries

Trained = Literal["discovered", "others"]
Optimizers = torch.optim.Optimizer | Iterable[torch.optim.Optimizer]


class Restriction:
    """Keeps the frozen entries of parameters as they are, to the bit, until it is removed.

    Gradients of frozen entries are zeroed as they are accumulated, so that no momentum includes
    them; after each step of an optimiser the entries are restored, since momentum of earlier steps
    and weight decay move them without a gradient. A `with` block removes the restriction at its
    end.

    Parameters
    ----------
    network : nn.Module
        Unwrapped; nothing is frozen yet.
    optimizers : torch.optim.Optimizer or iterable of them
        All that step parameters of the network.

    Raises
    ------
    TypeError, ValueError
        If `optimizers` holds anything else, or nothing of the network is in them.
    """

    def __init__(self, network: nn.Module, optimizers: Optimizers) -> None:
        given = [optimizers] if isinstance(optimizers, torch.optim.Optimizer) else optimizers
        listed: list[Any] = list(given) if isinstance(given, Iterable) else [given]
        for optimizer in listed:
            if not isinstance(optimizer, torch.optim.Optimizer):
                kind = type(optimizer).__name__
                raise TypeError(f"optimizer is a {kind}; expected a torch.optim.Optimizer")
        stepped = {id(p) for o in listed for group in o.param_groups for p in group["params"]}
        parameters = list(network.parameters())
        if not any(id(parameter) in stepped for parameter in parameters):
            raise ValueError(
                "optimizer steps no parameter of model; expected the optimiser of its training"
            )
        self.network = network
        self._frozen = FrozenEntries(network, None)
        self._hooks: list[Any] = [
            parameter.register_post_accumulate_grad_hook(self._mask_gradient)
            for parameter in parameters
            if parameter.requires_grad
        ]
        self._hooks += [optimizer.register_step_post_hook(self._restore) for optimizer in listed]

    def __enter__(self) -> "Restriction":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @property
    def active(self) -> bool:
        """Whether the restriction was not removed."""
        return bool(self._hooks)

    def train_only(self, masks: Mapping[str, Tensor]) -> None:
        """Freeze all entries at their values of now but those in bool masks by parameter."""
        self._frozen = FrozenEntries(self.network, masks)
        self._frozen.mask_gradients()

    def remove(self) -> None:
        """Let every entry learn again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._frozen = FrozenEntries(self.network, None)

    def _mask_gradient(self, parameter: Tensor) -> None:
        self._frozen.mask_gradient(parameter)

    def _restore(self, *step: object) -> None:
        self._frozen.restore()


def training_masks(network: nn.Module, chosen: FilterSet, train: Trained) -> dict[str, Tensor]:
    """Mark the entries of all parameters that learn.

    Parameters
    ----------
    network : nn.Module
        Unwrapped.
    chosen : FilterSet
        The discovered filters.
    train : {"discovered", "others"}
        "discovered": the filters alone. "others": everything else, biases and norms included.

    Returns
    -------
    dict of str to Tensor
        By parameter name: bool, of the parameter's shape and device.

    Raises
    ------
    ValueError
        If the filters are of another network, or a layer computes its weight from others, such as
        weight norm, so that one filter cannot be kept.
    """
    index = FilterIndex.of(network)
    discovered = chosen.masks(index)
    parameters = dict(network.named_parameters())
    for layer in index.layers:
        if layer not in parameters or layer.rpartition(".")[2] != "weight":
            raise ValueError(
                f"{layer!r} is not the weight of its layer itself; expected plain convolutions, "
                "without parametrizations such as weight norm"
            )
    masks = {}
    for name, value in parameters.items():
        mask = discovered.get(name, torch.zeros((), dtype=torch.bool))
        mask = mask if train == "discovered" else ~mask
        mask = mask.view(*mask.shape, *[1] * (value.ndim - mask.ndim))
        masks[name] = mask.to(value.device).expand(value.shape)
    return masks
