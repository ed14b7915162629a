"""Integrated gradients along the input: each kernel's gradients summed between two images.

The weights are fixed and the image moves. For the engine, the place on that path is one more
tensor of the network; this tensor moves from 0 to 1, and the weights move by nothing.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast import reference
from faigfast.attribution.attributor import attribution_lock
from faigfast.engine.accumulator import GradientAccumulator
from faigfast.engine.graph import Graphs
from faigfast.engine.integrate import Engine
from faigfast.engine.verify_in_run import PointByPoint
from faigfast.filters.index import FilterIndex
from faigfast.integration.padding import on_middle, reflected
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Quadrature
from faigfast.integration.refinement import fixed
from faigfast.models.state import undisturbed


class _Between(nn.Module):
    """A network run between two images, which come in one tensor of twice the channels."""

    def __init__(self, network: nn.Module, place: float) -> None:
        super().__init__()
        self.network = network
        self.place = nn.Parameter(next(network.parameters()).new_tensor(place))

    def forward(self, image_pair: Tensor) -> Any:
        first, last = image_pair.chunk(2, dim=1)
        return self.network(first + self.place * (last - first))


def _output_sum(output: Tensor, _: Tensor) -> Tensor:
    return output.flatten(1).sum(1)


class InputPath:
    """The gradients of a network's summed output along the line between two images.

    Parameters
    ----------
    network : nn.Module
        Unwrapped; unchanged.
    rule : Quadrature
        Nodes on the path, 0 at its start.
    backend : str
        Of `faigfast.backends`, available.
    memory : int, optional
        As in `faigfast.attribute`.
    pad : int
        As in `faigfast.attribute`: the sum is of the middle of the output.
    """

    def __init__(
        self,
        network: nn.Module,
        rule: Quadrature,
        backend: str,
        memory: int | None = None,
        pad: int = 0,
    ) -> None:
        self.rule, self.backend, self.pad = rule, backend, pad
        self.objective = on_middle(_output_sum, pad)
        self.modules = _Between(network, 0.0), _Between(network, 1.0)
        self.index = FilterIndex.of(self.modules[1])
        self.layers = frozenset(self.index.layers)
        with undisturbed(*self.modules):
            path = WeightPath(*self.modules)
            # A kernel's score is the norm of its gradient: every weight counts with Δ = 1.
            self.path_of_unit_change = copy.copy(path)
            ones = {key: torch.ones_like(path.start[key]) for key in self.layers}
            self.path_of_unit_change.delta = {**path.delta, **ones}
            path.delta = {**path.delta, **{key: torch.zeros_like(v) for key, v in ones.items()}}
            self.engine: Engine | None = None
            if backend != "reference":
                name = "" if backend == "torch" else backend
                self.engine = Engine(
                    path, path, self.modules, self.objective, Graphs(), memory, name
                )

    def scores(self, first: Tensor, last: Tensor, gt: Tensor, bar: tqdm) -> Tensor:
        """Score every filter, Σ |Σ_s w_s ∂(Σ F(θ, x_s))/∂θ|.

        Parameters
        ----------
        first, last : Tensor
            [N, C, *spatial], first and last images of N paths.
        gt : Tensor
            [N, C, *spatial], whose size is that of the middle of the output; not used without
            padding.
        bar : tqdm
            Counts points·images.

        Returns
        -------
        Tensor
            [N, F], on the CPU.
        """
        image_pairs = reflected(torch.cat([first, last], 1), self.pad)
        gt = gt if self.pad else last
        with attribution_lock, undisturbed(*self.modules):
            return torch.stack([s.cpu() for s in self._scores_by_image(image_pairs, gt, bar)])

    def _scores_by_image(self, image_pairs: Tensor, gt: Tensor, bar: tqdm) -> Iterator[Tensor]:
        done = 0
        if self.engine is not None:
            accumulator = partial(
                GradientAccumulator, self.path_of_unit_change, self.index, self.layers
            )
            try:
                for image_scores in self.engine.integrate(
                    fixed(self.rule), image_pairs, gt, accumulator, bar.update
                ):
                    done += 1
                    yield image_scores.scores
                return
            except PointByPoint:  # the reference computes the same, more slowly
                self.engine = None
        for n in range(done, len(image_pairs)):
            image_scores = reference.integrate(
                self.path_of_unit_change, fixed(self.rule), self.objective, self.index,
                self.layers, image_pairs[n : n + 1], gt[n : n + 1], advance=bar.update,
            )  # fmt: skip
            yield image_scores.scores
