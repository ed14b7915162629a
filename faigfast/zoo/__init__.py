"""Networks that are known by their state dicts."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from faigfast.zoo.dncnn import DnCNN
from faigfast.zoo.drunet import DRUNet
from faigfast.zoo.edsr import EDSR
from faigfast.zoo.ffdnet import FFDNet
from faigfast.zoo.rcan import RCAN
from faigfast.zoo.rrdbnet import RRDBNet
from faigfast.zoo.span import SPAN
from faigfast.zoo.srcnn import SRCNNStyle
from faigfast.zoo.srresnet import SRResNet
from faigfast.zoo.srvggnet import SRVGGNetCompact
from faigfast.zoo.swinir import SwinIR

__all__ = [
    "EDSR",
    "RCAN",
    "SPAN",
    "DRUNet",
    "DnCNN",
    "FFDNet",
    "RRDBNet",
    "SRCNNStyle",
    "SRResNet",
    "SRVGGNetCompact",
    "SwinIR",
    "infer_network",
]

FAMILIES = (
    SRResNet,
    SRCNNStyle,
    EDSR,
    RRDBNet,
    RCAN,
    SwinIR,
    SRVGGNetCompact,
    SPAN,
    DnCNN,
    FFDNet,
    DRUNet,
)


def infer_network(state: Mapping[str, Tensor]) -> nn.Module:
    """Build the known network, with fresh weights, that a state dict belongs to.

    Parameters
    ----------
    state : mapping of str to Tensor
        A state dict under its family's own keys.

    Returns
    -------
    nn.Module
        One of this package's networks; its sizes follow from the shapes.

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
                name, reason = family.__name__, str(error)
                reasons.append(reason if reason.startswith(name) else f"{name}: {reason}")
    raise ValueError(
        f"no known network fits: {'; '.join(reasons)}; pass your own module as `into=` for another"
    )
