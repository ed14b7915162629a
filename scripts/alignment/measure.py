"""Barrier of a pair before and after its baseline's channels are matched to the target's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from faigfast.integration.line_losses import barrier
from faigfast.integration.padding import middle, reflected
from faigfast.integration.path import WeightPath
from faigfast.models.distance import Distance
from faigfast.models.state import tensors, undisturbed, unwrap

from .activations import match_activations
from .groups import Groups, Orders, permutation_groups
from .matching import agreement, match_weights
from .scales import balancing, scaled

NODES = 15  # of the midpoint rule, as by default in `faigfast.attribute`
_Heights = tuple[dict[str, Tensor], dict[str, Tensor]]
SEEDS = range(5)  # orders of the groups in weight matching


@dataclass(frozen=True)
class Images:
    """Images on which a pair is measured.

    Attributes
    ----------
    lq : dict of str to Tensor
        [N, C, H, W] by degradation.
    gt : Tensor
        [N, C, scale·H, scale·W].
    pad : int
        Pixels by which the networks want images padded.
    calibration : sequence of Tensor
        [1, C, H, W], other photographs, on which activations are compared.
    """

    lq: Mapping[str, Tensor]
    gt: Tensor
    pad: int
    calibration: Sequence[Tensor]


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes
    ----------
    matching : str
        How the baseline was changed.
    distance : float
        ‖θ − θ̄‖/‖θ̄‖ of the parameters.
    moved : float
        Share of the channels in groups that have another place.
    change : float
        ‖F(θ̄ matched) − F(θ̄)‖/‖F(θ̄)‖ on the images: rounding alone.
    barriers : dict of str to Tensor
        [N] by degradation.
    heights : dict of str to Tensor
        [N], highest loss on the line divided by the larger end loss.
    """

    matching: str
    distance: float
    moved: float
    change: float
    barriers: Mapping[str, Tensor]
    heights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Candidate:
    """A baseline that computes the same as the given one."""

    matching: str
    network: nn.Module
    orders: Orders


def measured(
    baseline: nn.Module, target: nn.Module, images: Images, shuffled: bool = False
) -> Iterator[Measured]:
    """Measure a pair as it is and after every kind of matching.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    images : Images
        The images.
    shuffled : bool
        Shuffle the baseline's channels first: a control, since matching undoes it.
    """
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    groups = permutation_groups(baseline, target, reflected(images.calibration[0], images.pad))
    given = baseline
    if shuffled:
        generator = torch.Generator().manual_seed(0)
        orders = {g.atom: torch.randperm(g.size, generator=generator) for g in groups}
        given = groups.permuted(baseline, orders)
    known: list[tuple[nn.Module, _Heights]] = []
    for candidate in candidates(groups, given, target, images):
        values = next((v for n, v in known if _is_equal(n, candidate.network)), None)
        if values is None:
            values = line_barriers(candidate.network, target, images)
            known.append((candidate.network, values))
        barriers, heights = values
        moved = [value != torch.arange(len(value)) for value in candidate.orders.values()]
        yield Measured(
            candidate.matching,
            _distance(candidate.network, target),
            torch.cat(moved).double().mean().item() if moved else 0.0,
            _change(baseline, candidate.network, images),
            barriers,
            heights,
        )


def candidates(
    groups: Groups, baseline: nn.Module, target: nn.Module, images: Images
) -> Iterator[Candidate]:
    """Give the baseline as it is and after every kind of matching."""
    yield Candidate("none", baseline, {})
    values = [parameters_of(network, groups) for network in (target, baseline)]
    complete = [{**dict(n.named_buffers()), **tensors(n)} for n in (target, baseline)]
    calibration = [reflected(x, images.pad) for x in images.calibration]
    by_activations = match_activations(groups, complete[0], complete[1], calibration)
    matched = {
        "weights": _best(groups, *values),
        "activations": by_activations,
        "activations, then weights": match_weights(groups, *values, start=by_activations),
    }
    for name, orders in matched.items():
        yield Candidate(name, groups.permuted(baseline, orders), orders)
    if any(group.scalable for group in groups):
        # Matching by weights, too, is to see channels of equal norms.
        balanced = [scaled(groups, value, balancing(groups, value)) for value in values]
        matched = {
            "norms": {},
            "weights and norms": _best(groups, *balanced),
            "activations and norms": by_activations,
        }
        for name, orders in matched.items():
            yield Candidate(name, _rescaled(groups, baseline, target, orders), orders)


def _best(groups: Groups, target: Mapping[str, Tensor], baseline: Mapping[str, Tensor]) -> Orders:
    """Match weights from several orders of the groups; keep the closest result."""
    results = [match_weights(groups, target, baseline, seed=seed) for seed in SEEDS]
    return max(results, key=lambda orders: agreement(groups, target, baseline, orders))


def _rescaled(groups: Groups, baseline: nn.Module, target: nn.Module, orders: Orders) -> nn.Module:
    """Permute the baseline, and give its channels the target's ratios of norms."""
    network = groups.permuted(baseline, orders)
    own, wanted = (parameters_of(n, groups) for n in (network, target))
    scales = balancing(groups, own, wanted)
    return groups.replaced(network, scaled(groups, own, scales))


def parameters_of(network: nn.Module, groups: Groups) -> dict[str, Tensor]:
    """Give the parameters of a network that lie on the line, without buffers."""
    own = {key for key, _ in network.named_parameters()}
    return {k: v for k, v in tensors(network).items() if k in own and k in groups.axes}


def _is_equal(one: nn.Module, other: nn.Module) -> bool:
    own = tensors(other)
    return all(torch.equal(value, own[key]) for key, value in tensors(one).items())


def _distance(baseline: nn.Module, target: nn.Module) -> float:
    path = WeightPath(baseline, target)
    return Distance.of(path.start, path.delta, (), target).network


def _change(given: nn.Module, matched: nn.Module, images: Images) -> float:
    """Relative L2 distance between the outputs of two networks."""
    x = reflected(next(iter(images.lq.values())), images.pad)
    with undisturbed(given, matched), torch.no_grad():
        a, b = given(x.clone()), matched(x.clone())
    return ((a - b).norm() / a.norm()).item()


def line_barriers(baseline: nn.Module, target: nn.Module, images: Images) -> _Heights:
    """Measure the squared error at the nodes of the line, with forwards alone.

    Returns
    -------
    barriers, heights : dict of str to Tensor
        As in `Measured`, [N] by degradation.
    """
    path = WeightPath(baseline, target)
    inner = [(s + 0.5) / NODES for s in range(NODES)]
    barriers, heights = {}, {}
    with undisturbed(baseline, target), torch.no_grad():
        points = [path.at(alpha) for alpha in (0.0, *inner, 1.0)]
        for name, lq in images.lq.items():
            losses = torch.stack([_losses(path, point, lq, images) for point in points])  # [P, N]
            alpha = torch.tensor(inner, dtype=torch.float64)
            line = torch.stack([alpha.expand(len(lq), -1), losses[1:-1].T], -1)  # [N, P, 2]
            ends = losses[[0, -1]].T  # [N, 2]
            barriers[name] = barrier(line, ends)
            heights[name] = losses[1:-1].amax(0) / ends.amax(1)
    return barriers, heights


def _losses(path: WeightPath, point: dict[str, Tensor], lq: Tensor, images: Images) -> Tensor:
    """Give the summed squared error of every image, [N]."""
    output = path.call(point, reflected(lq, images.pad))
    part = middle(output, images.gt.shape[2:], images.pad) if images.pad else output
    return (part - images.gt).square().flatten(1).sum(1, dtype=torch.float64)
