"""Masked forwards: the target run as it is, with a few weights put back to the baseline's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from faigfast.integration.objective import Objective, loss
from faigfast.integration.path import NetworkThen, WeightPath
from faigfast.models.state import copy_of, tensors


class MaskedForwards:
    """Losses of a copy of the target, one forward each: for networks without a graph, and checks.

    Parameters
    ----------
    path : WeightPath
        The line between the networks.
    """

    def __init__(self, path: WeightPath) -> None:
        network = copy_of(path.module).eval()
        self._start, self._tensors = path.start, tensors(network)
        self._run = NetworkThen(network)

    def losses(
        self,
        x: Tensor,
        gt: Tensor,
        objectives: Sequence[Objective],
        masks: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Losses [J] of one image, float64, with the masked elements at the baseline's values.

        Parameters
        ----------
        x, gt : Tensor
            One image [1, C, *spatial], and its ground truth.
        objectives : sequence of callable
            J losses of (output, gt).
        masks : mapping of str to Tensor
            Bool, by state-dict key; they index the first dimensions of the tensors.
        """
        with torch.no_grad(), self._masked(masks or {}):
            return self._run(
                x.clone(),
                lambda output: torch.stack([loss(one, output, gt).double() for one in objectives]),
            )

    @contextmanager
    def _masked(self, masks: Mapping[str, Tensor]) -> Iterator[None]:
        kept = {key: self._tensors[key][mask].clone() for key, mask in masks.items()}
        for key, mask in masks.items():
            self._tensors[key][mask] = self._start[key][mask]
        try:
            yield
        finally:
            for key, mask in masks.items():
                self._tensors[key][mask] = kept[key]
