"""Which kernels compute which operations on which card: one table, no measurement in a call.

An entry is replaced by what `make gpu` measures on the card; until then it says where it is from.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Preference:
    """Operations that another backend computes faster than the one in use.

    Parameters
    ----------
    backends : mapping of str to str
        Operation → backend whose kernel is asked first.
    basis : str
        Where the entry is from.
    """

    backends: Mapping[str, str]
    basis: str


# (compute capability, backend in use) → preference for activations of 16 bits.
CARDS = {
    # 3×3, 64 channels: forward 35–40 % of the peak by cuDNN and 20–25 % by Triton, input gradient
    # 35 and 15 %, weight gradient 30 and 13 %.
    ((9, 0), "triton"): Preference(
        {"conv": "cuda", "conv_backward": "cuda"}, "estimated, not yet run"
    ),
}


def preference_for(
    device: torch.device, backend: str, values: torch.dtype | None
) -> Preference | None:
    """Look a card up; None where the backend in use keeps all operations.

    Parameters
    ----------
    device : torch.device
        Device of the run.
    backend : str
        Backend in use.
    values : torch.dtype, optional
        Type of activations of 16 bits; None: activations have the networks' own type.
    """
    if device.type != "cuda" or values is None:
        return None
    return CARDS.get((torch.cuda.get_device_capability(device), backend))
