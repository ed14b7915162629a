"""Output channels of filters, and the biases of channels whose filters are all in a set."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.filters.index import CONVOLUTIONS, WEIGHT_KEYS, FilterIndex
from faigfast.models.state import identity, tensors, unwrap

# Where the state dict keeps a bias: plain, parametrized, or by the older hooks.
BIAS_KEYS = ("bias", "parametrizations.bias.original", "bias_orig")
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def output_channels(network: nn.Module, index: FilterIndex) -> dict[str, Tensor]:
    """Output channel of every filter, by layer: [O·I] in the order of the index.

    A transposed convolution stores its input channels first. With groups, its output channel
    follows from the group and the column.
    """
    channels_by_layer = {}
    for key, shape in zip(index.layers, index.shapes, strict=True):
        _, layer = convolution_of(network, key)
        rows = torch.arange(shape[0]).repeat_interleave(shape[1])
        if isinstance(layer, _TRANSPOSED):
            columns = torch.arange(shape[1]).repeat(shape[0])
            group = rows // (shape[0] // layer.groups)
            channels_by_layer[key] = group * shape[1] + columns
        else:
            channels_by_layer[key] = rows
    return channels_by_layer


def convolution_of(network: nn.Module, key: str) -> tuple[str, Any]:
    """Find the convolution whose weight has a state-dict key; return its name and module."""
    # The key of a parametrized weight has more parts than its layer's name and "weight".
    convolutions = dict(_convolutions(network))
    name = max((n for n in convolutions if key.startswith(f"{n}." if n else n)), key=len)
    return name, convolutions[name]


def complete_biases(
    network: nn.Module, index: FilterIndex, masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Mark the biases of the output channels whose filters are all in a set.

    Parameters
    ----------
    network : nn.Module
        The network of the index.
    index : FilterIndex
        All filters.
    masks : mapping of str to Tensor
        The set, as `FilterSet.masks` gives it.

    Returns
    -------
    dict of str to Tensor
        By state-dict key, bool [O]; convolutions without bias are left out. Where several
        convolutions share a weight, each one's bias is marked.
    """
    state = tensors(unwrap(network, "network"))
    listed = {identity(state[key]): key for key in index.layers}
    channels_by_layer = output_channels(network, index)
    complete_by_bias: dict[Any, tuple[str, Tensor]] = {}
    for name, layer in _convolutions(network):
        weights = (identity(state[key]) for key in _keys(name, WEIGHT_KEYS) if key in state)
        key = next((listed[weight] for weight in weights if weight in listed), "")
        bias = next((k for k in _keys(name, BIAS_KEYS) if k in state), None)
        if bias is None or not key:
            continue
        absent = ~masks[key].flatten() if key in masks else torch.ones_like(channels_by_layer[key])
        counts = torch.zeros(layer.out_channels, dtype=torch.int64)
        complete = counts.scatter_add(0, channels_by_layer[key], absent.long()) == 0
        # A bias of several layers moves with the filters of all of them.
        first, others = complete_by_bias.get(identity(state[bias]), (bias, complete))
        complete_by_bias[identity(state[bias])] = first, complete & others
    return {bias: complete for bias, complete in complete_by_bias.values() if complete.any()}


def _convolutions(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, layer in unwrap(network, "network").named_modules():
        if isinstance(layer, CONVOLUTIONS):
            yield name, layer


def _keys(name: str, tails: tuple[str, ...]) -> Iterator[str]:
    return (f"{name}.{tail}".lstrip(".") for tail in tails)
