"""Networks of the packages spandrel and spandrel-extra-arches, where they are installed."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

INSTALL = "pip install 'faigfast[spandrel]'"
TENSORS = 50  # that a constructor may make for every tensor of the file
FREE_TENSORS = 1_000  # that a constructor may make besides
FREE_BYTES = 2**28  # beside four times the file: masks and tables that constructors compute
FACTORIES = frozenset(
    getattr(torch, name)
    for name in ("arange", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")
)


def spandrel_network(state: Mapping[str, Tensor], size: int) -> nn.Module:
    """Build the network of spandrel that a state dict belongs to.

    Parameters
    ----------
    state : mapping of str to Tensor
        A state dict, without prefixes of wrappers.
    size : int
        Bytes of its file; the network may take four times as many, and 256 MiB.

    Returns
    -------
    nn.Module
        The module itself, without spandrel's descriptor, with the weights of the state dict in
        their own type where they have one. It has attributes `scale` and `channels` (of the images
        that spandrel's descriptor takes), unless its class uses those names.

    Raises
    ------
    ValueError
        If spandrel is not installed or not usable, knows no such network, or fails to build it.

    Notes
    -----
    Source: https://github.com/chaiNNer-org/spandrel. The package spandrel-extra-arches, whose
    architectures have licences of their own, some non-commercial, is not in the extra `spandrel`;
    its architectures are tried where it is installed.
    """
    if find_spec("spandrel") is None:
        raise ValueError(
            f"the package spandrel knows more networks and is not installed: {INSTALL}"
        )
    try:
        registry = _registry()
    except Exception as error:  # a torchvision built for another torch raises RuntimeError
        raise ValueError(
            f"the package spandrel knows more networks and cannot be imported: {_line(error)}"
        ) from error
    known, name = dict(state), "none of its architectures"
    try:
        support = next((s for s in registry.architectures("detection") if s.detect(known)), None)
        if support is not None:
            name = support.architecture.name
            with torch.random.fork_rng(devices=[]), Limits(size, len(state)):
                descriptor = support.architecture.load(known)
    except Exception as error:  # spandrel's code meets files that it was not written for
        raise ValueError(f"spandrel takes it for {name} and fails: {_line(error)}") from error
    if support is None:
        raise ValueError(f"none of the {len(registry)} architectures of spandrel fits either")
    network: nn.Module = descriptor.model
    types = {value.dtype for value in state.values() if value.is_floating_point()}
    if len(types) == 1:
        network.to(types.pop())
    set_numbers(network, scale=descriptor.scale, channels=descriptor.input_channels)
    return network


def set_numbers(network: nn.Module, **numbers: int) -> None:
    """Give a network attributes, except those that it already has."""
    for name, number in numbers.items():
        if not hasattr(network, name):
            setattr(network, name, number)


def _registry() -> Any:
    """Give all architectures that are installed; spandrel's own registry stays as it is."""
    import spandrel

    registry = spandrel.MAIN_REGISTRY.copy()
    if find_spec("spandrel_extra_arches") is not None:
        import spandrel_extra_arches

        registry.add(*spandrel_extra_arches.EXTRA_REGISTRY, ignore_duplicates=True)
    return registry


class Limits(TorchFunctionMode):
    """Stop a constructor that makes far more tensors than its file holds."""

    def __init__(self, size: int, tensors: int) -> None:
        super().__init__()
        self.room = 4 * size + FREE_BYTES
        self.tensors = TENSORS * tensors + FREE_TENSORS

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            self.tensors -= 1
            self.room -= func(*args, **{**kwargs, "device": "meta", "out": None}).nbytes
            if self.tensors < 0 or self.room < 0:
                raise ValueError("its network is far larger than the file")
        return func(*args, **kwargs)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
