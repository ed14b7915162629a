"""Whether a network can be trained on, and its enlargement."""

from typing import Any

import torch
from torch import nn

from faigfast.integration.padding import reflected
from faigfast.models.output_shape import OutputShapes
from faigfast.models.state import all_finite, copy_of, own_type, undisturbed


def check_trainable(network: nn.Module) -> None:
    """Refuse a network without parameters that learn.

    Raises
    ------
    ValueError
        If there is no floating-point parameter, none has `requires_grad`, or a value is not finite.
    """
    parameters = dict(network.named_parameters())
    floats = {name: value for name, value in parameters.items() if value.is_floating_point()}
    if not floats:
        types = sorted({str(value.dtype) for value in network.state_dict().values()})
        raise ValueError(
            f"target has no floating-point parameter, only {', '.join(types) or 'none'}; expected "
            "a network that can be trained, not a quantised or frozen one"
        )
    if not any(value.requires_grad for value in floats.values()):
        raise ValueError(
            "target is frozen: no parameter has requires_grad; expected some that may learn, as "
            "after target.requires_grad_(True)"
        )
    for name, value in floats.items():
        if not all_finite(value.detach()):
            raise ValueError(f"target holds {name!r} with values that are not finite")


def scale_of(network: nn.Module, given: Any, channels: int, patch: int, pad: int) -> int:
    """Give the enlargement of a network.

    Parameters
    ----------
    network : nn.Module
        The network.
    given : int, optional
        Of the user; None: the attribute `scale`, or the least integer that explains the output.

    Raises
    ------
    ValueError
        If it is no positive integer, or the network has another.
    """
    valid = isinstance(given, int) and not isinstance(given, bool) and given > 0
    if given is not None and not valid:
        raise ValueError(f"scale is {given!r}; expected a positive integer, or None")
    own = getattr(network, "scale", None)
    if not isinstance(own, int) or isinstance(own, bool) or own < 1:
        own = None
    if given is not None and own is not None and given != own:
        raise ValueError(f"scale is {given} and the network enlarges by {own}; expected that")
    if given is not None or own is not None:
        return int(given if given is not None else own or 1)
    return OutputShapes(network).enlargement(channels, patch, pad)


def check_forward(network: nn.Module, channels: int, scale: int, patch: int, pad: int) -> None:
    """Refuse a network whose output does not fit the ground truth, or has no gradient.

    Raises
    ------
    ValueError
        Naming the remedy.
    """
    side = patch + 2 * pad
    if pad >= patch:
        raise ValueError(f"pad is {pad} for patches of {patch} pixels; expected a smaller pad")
    output = OutputShapes(network).of(channels, side, side)
    want = scale * patch
    problem = f"the network makes {list(output[1:])} of {[channels, side, side]}"
    if len(output) != 4 or output[1] != channels:
        raise ValueError(f"target: {problem}; expected [{channels}, {want}, {want}]")
    lost = want - output[-1]
    if (pad == 0 and lost) or lost > 0 or lost % 2 or output[-2] != output[-1]:
        remedy = "another scale"
        if lost > 0 and lost % (2 * scale) == 0:
            remedy = f"pad={pad + lost // (2 * scale)}, or another scale"
        raise ValueError(f"target: {problem} with pad={pad} at scale {scale}; expected {remedy}")
    copied = copy_of(network)
    place = next(copied.parameters())
    x = torch.rand(1, channels, patch, patch, generator=torch.Generator().manual_seed(0))
    with undisturbed(copied):
        made = copied(reflected(x.to(place.device, own_type(copied)), pad))
    if not made.requires_grad:
        raise ValueError(
            "target: its output has no gradient; expected a forward without no_grad or detach"
        )
