"""Training patches for networks whose output is smaller than the enlarged patch."""

import torch
from torch import Tensor, nn

from faigfast.data.patches import Patches
from faigfast.integration.padding import middle
from faigfast.models.state import blaming, undisturbed


class FittedPatches(Patches):
    """The same patches, with the middle of every ground truth that the network's output covers.

    Convolutions without padding lose pixels at the border of a patch; the photograph around its
    middle takes the place of the padding.

    Parameters
    ----------
    patches : Patches
        Source of the patches.
    network : nn.Module
        Whose output for one patch gives the size of the middle.

    Raises
    ------
    ValueError
        If the network does not take a patch, or makes more of it than the ground truth.
    """

    def __init__(self, patches: Patches, network: nn.Module) -> None:
        vars(self).update(vars(patches))
        self._patches = patches
        lq, gt = patches.batch(1, 0)
        with (
            blaming(f"the network does not take a patch {list(lq.shape)}", Exception),
            undisturbed(network),
            torch.no_grad(),
        ):
            output = network(lq.to(next(network.parameters())))
        self._sides = output.shape[2:]
        if any(a > b for a, b in zip(self._sides, gt.shape[2:], strict=True)):
            raise ValueError(
                f"the network makes {list(output.shape)} of a patch {list(lq.shape)}; expected at "
                f"most the ground truth's {list(gt.shape)}"
            )

    def batch(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw patches, as `Patches.batch` does."""
        lq, gt = self._patches.batch(size, seed)
        return lq, middle(gt, self._sides, 0)
