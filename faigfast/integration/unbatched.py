"""An image without its batch axis, which torch would take for a batch of smaller images."""

import torch
from torch import nn

from faigfast.filters.index import FilterIndex
from faigfast.integration.batch import Batch
from faigfast.models.state import call_as_is


def refuse_unbatched(network: nn.Module, index: FilterIndex, batch: Batch) -> None:
    """Refuse an x of too few axes, unless the network takes it.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    index : FilterIndex
        Its convolutions tell the expected rank.
    batch : Batch
        Images that were read.

    Raises
    ------
    ValueError
        Naming x, its shape and the expected rank.
    """
    rank = min(map(len, index.shapes))
    for name, x in batch.lq.items():
        if x.ndim >= rank or batch.inputs:
            continue
        try:  # a network may add axes of its own
            with torch.no_grad():
                call_as_is(network, x[:1].detach())
        except ValueError:
            x_name = "x" if list(batch.lq) == ["lq"] else f"x of {name!r}"
            raise ValueError(
                f"{x_name} is {list(x.shape)}, of {x.ndim} axes; expected [N, C, *spatial] of "
                f"{rank} axes for the convolutions of the networks: a single image is x[None], its "
                "ground truth gt[None]"
            ) from None
