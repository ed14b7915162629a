"""Networks that are known by their state dicts."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from faigfast.zoo.srcnn import SRCNNStyle
from faigfast.zoo.srresnet import SRResNet

__all__ = ["SRCNNStyle", "SRResNet", "infer_network"]

FAMILIES = (SRResNet, SRCNNStyle)


def infer_network(state: Mapping[str, Tensor]) -> nn.Module:
    """Build the known network, with fresh weights, that a state dict belongs to.

    Parameters
    ----------
    state : mapping of str to Tensor
        A state dict under its family's own keys.

    Returns
    -------
    nn.Module
        An `SRResNet` or an `SRCNNStyle` of the sizes that the shapes tell.

    Raises
    ------
    ValueError
        If no family has such keys and shapes; each family's reason is given.

    Examples
    --------
    >>> type(infer_network(SRCNNStyle(widths=(4, 6), scale=2).state_dict())).__name__
    'SRCNNStyle'
    """
    reasons = []
    with torch.random.fork_rng(devices=[]):  # fresh weights must not move the caller's RNG
        for family in FAMILIES:
            try:
                return family.infer(state)
            except ValueError as error:
                reasons.append(str(error))
    raise ValueError(
        f"no known network fits: {'; '.join(reasons)}; pass your own module as `into=` for another"
    )
