"""Verify: a plan is compared with the network itself before the engine trusts it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from faigfast.engine.losses import accumulate
from faigfast.engine.memory import Chunk
from faigfast.engine.points import Points
from faigfast.engine.run import Plan, prepare, take_gradients, with_gradient_sums
from faigfast.integration.gradients import gradients_at
from faigfast.integration.objective import OBJECTIVES, Objective
from faigfast.integration.padding import OnMiddle
from faigfast.integration.path import WeightPath
from faigfast.models.packing import packing
from faigfast.models.state import call_as_is, own_type
from faigfast.ops.registry import in_use

# Rounding of a product where kernels multiply float32 in another mode.
PRODUCT_ROUNDING = {"bf16": 2.0**-8, "tf32": 2.0**-11, "bf16x3": 2.0**-17}
CORNER_SIDES = 8, 16  # pixels; an image more than twice as large is compared on a corner
ALPHAS, WEIGHTS = (0.3, 0.8), (1.0, 0.7)  # unequal in every way

LossesAndGradients = tuple[Tensor, dict[str, Tensor]]  # losses [S, N] and gradients [N, *w]


def tolerance(path: WeightPath, x: Tensor) -> float:
    """Largest relative error of a plan's gradients: rounding flips some units at kinks.

    The bound for losses, which have no kinks, is a tenth of it.
    """
    types = [part.dtype for part in (x, *path.start.values())]
    coarsest = max(torch.finfo(kind).eps for kind in (*types, in_use().values or x.dtype))
    if in_use().mode in PRODUCT_ROUNDING:
        coarsest = max(coarsest, PRODUCT_ROUNDING[in_use().mode])
    return min(10 * coarsest**0.5, 0.2)


def on_copies(objective: Objective) -> Objective:
    """Let an objective overwrite its output: points share values that do not depend on them."""
    if isinstance(objective, OnMiddle):
        return OnMiddle(on_copies(objective.objective), objective.pad)
    if any(objective is known for known in OBJECTIVES.values()):
        return objective

    @wraps(objective)  # which is still the user's
    def copied(output: Any, gt: Tensor) -> Tensor:
        own = tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, output)
        return objective(own, gt)

    return copied


def differs(
    path: WeightPath,
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
    alone: bool = False,
) -> str:
    """Compare losses and gradients of a plan, at two points of two images, with the network's.

    Parameters
    ----------
    path : WeightPath
        The line.
    plan : Plan
        For images of x's shape.
    given : mapping of str to Tensor or Moving
        From `faigfast.engine.run.path_tensors`.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth.
    objective : callable
        L.
    chunk : Chunk
        Chunk of the run: points and images run together here if they do there.
    alone : bool
        Compare one point of one image.

    Returns
    -------
    str
        The difference, in words; empty where there is none.
    """
    images = x, _another(x)
    plan_runs = (
        [PlanRun(((0,),), (0,))] if alone else _plan_runs(chunk.points > 1, chunk.images > 1)
    )
    scale = in_use().scale
    try:
        samples = {
            (s, n): _by_network(path, ALPHAS[s], images[n], gt, objective)
            for s, n in dict.fromkeys(sample for run in plan_runs for sample in run.samples())
        }
        for run in plan_runs:
            pair = torch.cat([images[n] for n in run.images])
            by_plan = partial(
                _by_plan, plan, given, run.groups, pair, gt, on_copies(objective), chunk.segments
            )
            outcome = by_plan()
            while scale is not None and scale.overflowed(outcome[1]):
                outcome = by_plan()
            difference = _compare(outcome, _expected(run, samples), tolerance(path, x))
            if difference:
                return difference
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # a network that fails too raises when it runs point by point
        return failed(problem)
    return ""


@dataclass(frozen=True)
class ReferenceSample:
    """One image at one point, by the network itself: the reference of a run's first chunk.

    Parameters
    ----------
    expected : (Tensor, dict of str to Tensor)
        Loss [1, 1] and gradients [1, *w].
    bound : float
        From `tolerance`.
    """

    expected: LossesAndGradients
    bound: float

    @classmethod
    def of(
        cls, path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
    ) -> "ReferenceSample":
        """Run the network."""
        return cls(_by_network(path, alpha, x, gt, objective), tolerance(path, x))

    def differs(self, weight: float, loss: Tensor, gradients: Mapping[str, Tensor]) -> str:
        """Compare a loss, and gradients of this point alone times `weight`; "" if equal."""
        losses, grads = self.expected
        expected = losses, {key: weight * value for key, value in grads.items()}
        return _compare((loss, dict(gradients)), expected, self.bound)


@dataclass(frozen=True)
class PlanRun:
    """A run of the plan: groups of points one after the other, with all images in each."""

    groups: tuple[tuple[int, ...], ...]
    images: tuple[int, ...]

    @property
    def points(self) -> list[int]:
        """All points, in order."""
        return [point for group in self.groups for point in group]

    def samples(self) -> list[tuple[int, int]]:
        """List the pairs of a point and an image."""
        return [(point, image) for point in self.points for image in self.images]


def _plan_runs(points: bool, images: bool) -> list[PlanRun]:
    """List runs of two points and two images: together as in the chunk, and a smaller last one."""
    both_points, last_point = ((0, 1),) if points else ((0,), (1,)), ((1,),)
    if not images:
        return [PlanRun(both_points, (0,)), PlanRun(last_point, (1,))]
    leftovers = [PlanRun(both_points, (0,)), PlanRun(last_point, (0, 1))] if points else []
    return [PlanRun(both_points, (0, 1)), PlanRun(last_point, (1,)), *leftovers]


def _compare(outcome: LossesAndGradients, expected: LossesAndGradients, bound: float) -> str:
    # The plan may sum and keep losses of 16 bits in 32.
    if not torch.allclose(outcome[0].double(), expected[0].double(), rtol=bound / 10, atol=0):
        losses, others = outcome[0].tolist(), expected[0].tolist()
        return f"the captured graph has the losses {losses}, not {others}"
    total = sum(float(value.norm()) for value in expected[1].values())
    for key in {**expected[1], **outcome[1]}:
        one, other = (part[1].get(key, torch.zeros(())) for part in (outcome, expected))
        error, size = float((one - other.to(one.device)).norm()), float(other.norm())
        if not error <= bound * (size + bound * total):
            return (
                f"the captured graph's gradient of {key!r} differs from the network's by "
                f"{error:.1e}, of {size:.1e}"
            )
    return ""


def endpoint_losses_differ(
    by_plan: Sequence[float], by_networks: Sequence[float], path: WeightPath, x: Tensor
) -> str:
    """Say how a plan's losses L(θ̄), L(θ) of an image differ from the networks'; "" if equal."""
    bound = tolerance(path, x) / 10
    # A loss of 0, such as a network's against its own output, is rounding alone.
    rounding = torch.finfo(x.dtype).eps * max(map(abs, by_networks))
    if all(
        abs(a - b) <= bound * max(abs(a), abs(b)) + rounding
        for a, b in zip(by_plan, by_networks, strict=True)
    ):
        return ""
    return (
        f"the captured graph's losses at the ends are {list(by_plan)}, the networks' "
        f"{list(by_networks)}"
    )


def failed(problem: Exception) -> str:
    """Say how a graph fails."""
    reason = (str(problem).strip().splitlines() or [""])[0]
    return f"the captured graph cannot be compared: {type(problem).__name__}: {reason[:200]}"


def _another(x: Tensor) -> Tensor:
    """Make a second image that differs everywhere, in the range of the first."""
    used = packing()
    channels = x.shape[1] if used is None else used.channels
    image, inputs = x[:, :channels], x[:, channels:]
    return torch.cat([0.9 * image.flip(-1) if image.any() else image + 0.1, inputs], 1)


def _by_plan(
    plan: Plan,
    given: Mapping[str, Any],
    groups: Sequence[Sequence[int]],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    segments: int,
) -> LossesAndGradients:
    tensors = with_gradient_sums(given, len(x))
    prepared = prepare(plan, tensors, x)
    truths = gt.expand(len(x), *gt.shape[1:])
    rows = []
    for group in groups:
        points, weights = Points.at([ALPHAS[s] for s in group], x), [WEIGHTS[s] for s in group]
        rows.append(accumulate(plan, prepared, points, weights, truths, objective, segments))
    return torch.cat(rows), take_gradients(tensors)


def _by_network(
    path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
) -> LossesAndGradients:
    """Loss [1, 1] and gradients [1, *w] of one image at one point."""
    loss, gradients = gradients_at(path, alpha, x, gt, objective)
    return loss.reshape(1, 1), {key: _to_wide(value)[None] for key, value in gradients.items()}


def _to_wide(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _expected(
    run: PlanRun, samples: Mapping[tuple[int, int], LossesAndGradients]
) -> LossesAndGradients:
    """Losses and gradients that a run should give, from its samples."""
    losses = [torch.cat([samples[s, n][0] for n in run.images], 1) for s in run.points]
    grads = {}
    for key in samples[run.samples()[0]][1]:
        of_images = [
            torch.stack([WEIGHTS[s] * samples[s, n][1][key] for s in run.points]).sum(0)
            for n in run.images
        ]
        grads[key] = torch.cat(of_images)
    return torch.cat(losses), grads


def corner(
    x: Tensor,
    gt: Tensor,
    side: int,
    objective: Objective | None = None,
    network: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """Crop a large image to a corner with the same remainder modulo `side`; keep other images.

    Images with further inputs are kept: these would be cropped too.

    Parameters
    ----------
    x, gt : Tensor
        [N, C, *spatial], and the ground truth.
    side : int
        Least side of the corner in pixels.
    objective : callable, optional
        L; of padded images, the corner's ground truth has the size of the network's output.
    network : nn.Module, optional
        The target.
    """
    if (
        packing() is not None
        or x.ndim != 4
        or gt.ndim != 4
        or x.shape[2:].numel() <= (2 * side) ** 2
    ):
        return x, gt
    sides = [min(length, side + length % side) for length in x.shape[2:]]
    part = x[:, :, : sides[0], : sides[1]]
    if network is not None and isinstance(objective, OnMiddle):
        own = _output_sides(network, part)
        fit = len(own) == 2 and all(a <= b for a, b in zip(own, gt.shape[2:], strict=True))
        return (part, gt[:, :, : own[0], : own[1]]) if fit else (x, gt)
    factors = [g // s if g % s == 0 else 0 for g, s in zip(gt.shape[2:], x.shape[2:], strict=True)]
    if 0 in factors:
        return x, gt
    high, wide = (length * factor for length, factor in zip(sides, factors, strict=True))
    return part, gt[:, :, :high, :wide]


def _output_sides(network: nn.Module, x: Tensor) -> tuple[int, ...]:
    """Sides of a network's output; none if it does not take the image."""
    try:
        with torch.no_grad():
            output = call_as_is(network, x.to(own_type(network)))
    except ValueError:
        return ()
    return tuple(output.shape[2:]) if isinstance(output, Tensor) else ()
