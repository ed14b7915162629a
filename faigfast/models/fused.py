"""Networks whose branches are merged before anything else: the argument `fuse`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from faigfast.models.generators import rewound
from faigfast.models.state import blaming, copy_of, unwrap

Fuse = Callable[[nn.Module], nn.Module | None]


def check_fuse(fuse: Any) -> None:
    """Refuse a `fuse` that cannot be called.

    Raises
    ------
    TypeError
        If `fuse` is neither None nor callable.
    """
    if fuse is not None and not callable(fuse):
        raise TypeError(
            f"fuse is a {type(fuse).__name__}; expected a function that takes a network and "
            "returns it merged"
        )


def fused(fuse: Fuse | None, model: nn.Module, name: str) -> nn.Module:
    """Merge the branches of a copy of a network.

    Parameters
    ----------
    fuse : callable, optional
        Takes a copy of the network in eval mode, without gradients; returns the merged network, or
        None if it merged the copy in place. None: `model` itself is returned.
    model : nn.Module
        Left as it is.
    name : str
        Name of the model in errors.

    Raises
    ------
    TypeError
        If `fuse` cannot be called, or returns anything but a module or None.
    ValueError
        If `fuse` fails.

    Examples
    --------
    >>> conv_and_norm = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    >>> merged = fused(lambda net: nn.utils.fuse_conv_bn_eval(*net), conv_and_norm, "model_b")
    >>> [key for key, _ in merged.named_parameters()]
    ['weight', 'bias']
    """
    check_fuse(fuse)
    if fuse is None:
        return model
    own = copy_of(unwrap(model, name)).eval()
    with (
        rewound(),  # a new layer draws its first weights
        torch.inference_mode(False),
        torch.no_grad(),
        blaming(f"fuse of {name}", Exception),
    ):
        merged = fuse(own)
    if merged is not None and not isinstance(merged, nn.Module):
        raise TypeError(
            f"fuse gives a {type(merged).__name__} for {name}; expected a torch.nn.Module, or None "
            "if it merges in place"
        )
    result = own if merged is None else unwrap(merged, f"fuse of {name}")
    source = getattr(model, "faigfast_source", None)
    if source is not None:
        vars(result)["faigfast_source"] = source
    return result


def fused_pair(
    fuse: Fuse | None, baseline: nn.Module, target: nn.Module
) -> tuple[nn.Module, nn.Module]:
    """Merge the branches of copies of model_a and model_b; see `fused`."""
    return fused(fuse, baseline, "model_a"), fused(fuse, target, "model_b")
