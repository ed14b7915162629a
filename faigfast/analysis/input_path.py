"""Integrated gradients along the input: what each kernel's gradient adds up to between two images.

The weights stand still and the image moves. To the engine the place on that path is one more
tensor of the network, which moves from 0 to 1, while the weights move by nothing.
"""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast import reference
from faigfast.attribution.attributor import alone
from faigfast.engine.accumulator import Sums
from faigfast.engine.graph import Graphs
from faigfast.engine.integrate import Engine
from faigfast.engine.verify_in_run import PointByPoint
from faigfast.filters.filter_set import FilterIndex
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Quadrature
from faigfast.models.state import undisturbed


class _Between(nn.Module):
    """A network on the image at a place between two, which come as one of twice the channels."""

    def __init__(self, network: nn.Module, place: float) -> None:
        super().__init__()
        self.network = network
        self.place = nn.Parameter(next(network.parameters()).new_tensor(place))

    def forward(self, ends: Tensor) -> Any:
        first, last = ends.chunk(2, dim=1)
        return self.network(first + self.place * (last - first))


def _total(output: Tensor, _: Tensor) -> Tensor:
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
    """

    def __init__(
        self, network: nn.Module, rule: Quadrature, backend: str, memory: int | None = None
    ) -> None:
        self.rule = rule
        self.modules = _Between(network, 0.0), _Between(network, 1.0)
        self.index = FilterIndex.of(self.modules[1])
        self.layers = frozenset(self.index.layers)
        with undisturbed(*self.modules):
            line = WeightPath(*self.modules)
            # A kernel's score is its gradient's, not that times a change.
            self.unit = copy.copy(line)
            ones = {key: torch.ones_like(line.start[key]) for key in self.layers}
            self.unit.delta = {**line.delta, **ones}
            line.delta = {**line.delta, **{key: torch.zeros_like(v) for key, v in ones.items()}}
            self.engine: Engine | None = None
            if backend != "reference":
                name = "" if backend == "torch" else backend
                self.engine = Engine(line, line, self.modules, _total, Graphs(), memory, name)

    def scores(self, first: Tensor, last: Tensor, bar: tqdm) -> Tensor:
        """Score every filter, Σ |Σ_s w_s ∂(Σ F(θ, x_s))/∂θ|.

        Parameters
        ----------
        first, last : Tensor
            [N, C, *spatial], where the paths of N images begin and end.
        bar : tqdm
            Counts points·images.

        Returns
        -------
        Tensor
            [N, F], on the CPU.
        """
        ends = torch.cat([first, last], 1)
        with alone, undisturbed(*self.modules):
            return torch.stack([s.cpu() for s in self._integrals(ends, last, bar)])

    def _integrals(self, ends: Tensor, gt: Tensor, bar: tqdm) -> Iterator[Tensor]:
        done = 0
        if self.engine is not None:
            sums = partial(Sums, self.unit, self.index, self.layers)
            try:
                for integral in self.engine.integrate(self.rule.steps, ends, gt, sums, bar.update):
                    done += 1
                    yield integral.scores
                return
            except PointByPoint:  # the same, more slowly
                self.engine = None
        for n in range(done, len(ends)):
            found = reference.integrate(
                self.unit, self.rule.steps(), _total, self.index, self.layers, ends[n : n + 1],
                gt[n : n + 1], advance=bar.update,
            )  # fmt: skip
            yield found.scores
