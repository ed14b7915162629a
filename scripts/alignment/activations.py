"""Matching by activations: channels of two networks that respond alike to photographs.

Source: Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging models modulo permutation
symmetries", ICLR 2023, section 3.1; by correlation as in Li et al., "Convergent learning: do
different neural networks learn the same representations?", ICLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from .axes import Atom, leaves, places
from .groups import Groups
from .matching import Values, assigned

MOST_SAMPLES = 1024  # of a channel, from one value for one image
CONSTANT = 1e-7  # standard deviation relative to the mean that rounding explains

Channels = dict[tuple[Atom, fx.Node], Tensor]


def match_activations(
    groups: Groups, target: Values, baseline: Values, images: Sequence[Tensor]
) -> dict[Atom, Tensor]:
    """Match channels whose activations on images correlate.

    Parameters
    ----------
    groups : Groups
        Of the networks.
    target, baseline : mapping of str to Tensor
        Their tensors by key, of all keys of `groups.keys`.
    images : sequence of Tensor
        [1, C, *spatial], of the shape from which the groups were derived.

    Returns
    -------
    dict of Atom to Tensor
        The baseline's channel at every place, [n]. Correlations add up over all values of the
        captured graph that depend on the image. Channels within a grid (heads of attention) are
        compared in the order that the other factors of the grid have in the two networks.

    Raises
    ------
    ValueError
        If there are no images.
    """
    if not images:
        raise ValueError("images is empty; expected at least one image [1, C, *spatial]")
    moments: dict[tuple[Atom, fx.Node], Tensor] = {}
    for x in images:
        first, second = (_Activations(groups, values).of(x) for values in (target, baseline))
        for key, a in first.items():
            added = _moments(a, second[key])
            moments[key] = added if key not in moments else moments[key] + added
    similarity: dict[Atom, Tensor] = {}
    for (atom, _), sums in moments.items():
        similarity[atom] = similarity.get(atom, 0) + _correlation(sums)
    return {atom: assigned(matrix) for atom, matrix in similarity.items()}


def _moments(a: Tensor, b: Tensor) -> Tensor:
    """Products of the channels [n, samples] of two networks and of ones, [2n + 1, 2n + 1]."""
    every = torch.cat([a, b, torch.ones(1, a.shape[1], dtype=a.dtype)])
    return every @ every.T


def _correlation(sums: Tensor) -> Tensor:
    """Correlation of the target's and the baseline's channels, [n, n]; 0 of constant channels."""
    count, means = sums[-1, -1], sums[-1, :-1] / sums[-1, -1]
    covariance = sums[:-1, :-1] / count - means[:, None] * means
    scale = covariance.diagonal().clamp(min=0).sqrt()
    tiny = scale <= CONSTANT * means.abs()
    inverse = torch.where(tiny, 0, 1 / scale)
    n = len(scale) // 2
    return (inverse[:, None] * covariance * inverse)[:n, n:]


class _Activations(fx.Interpreter):
    """Channels of one network's values, by group and node of the graph."""

    def __init__(self, groups: Groups, values: Values) -> None:
        super().__init__(fx.GraphModule(groups.root, groups.graph))
        self.groups, self.values = groups, values
        self.atoms = {group.atom for group in groups}
        self.from_image = _from_image(groups.graph)
        self.kept: Channels = {}

    def of(self, x: Tensor) -> Channels:
        """Run the graph on one image [1, C, *spatial]; give [channels, samples] in float64."""
        with torch.no_grad():
            self.run(*(self.values[key].clone() for key in self.groups.keys), x.clone())
        return self.kept

    def run_node(self, n: fx.Node) -> object:
        """Run a node and keep the channels of its value."""
        result = super().run_node(n)
        if isinstance(result, Tensor) and n.op == "call_function" and n in self.from_image:
            for dim, axis in enumerate(self.groups.nodes[n]):
                for atom in self.atoms & set(leaves(axis)):
                    index = places(axis, atom).T  # [n, occurrences]
                    samples = result.movedim(dim, 0)[index].flatten(1)
                    step = -(-samples.shape[1] // MOST_SAMPLES)
                    self.kept[atom, n] = samples[:, ::step].double()
        return result


def _from_image(graph: fx.Graph) -> set[fx.Node]:
    """Collect the nodes whose values depend on the image, the last placeholder."""
    nodes = [node for node in graph.nodes if node.op == "placeholder"][-1:]
    reached = set(nodes)
    for node in graph.nodes:
        if reached.intersection(node.all_input_nodes):
            reached.add(node)
    return reached
