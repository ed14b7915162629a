"""Check: a plan is compared with the network itself before it is trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from faigfast.engine.losses import accumulate
from faigfast.engine.memory import Chunk
from faigfast.engine.op_rules import Points
from faigfast.engine.run import Plan, gradients, prepare, with_sums
from faigfast.integration.objective import OBJECTIVES, Objective, loss
from faigfast.integration.path import WeightPath
from faigfast.ops.registry import in_use

# Rounding of the products where kernels multiply float32 otherwise.
COARSE = {"tf32": 2.0**-11, "bf16x3": 2.0**-17}
CORNERS = 8, 16  # pixels; of images more than twice as large a corner is compared
ALPHAS, WEIGHTS = (0.3, 0.8), (1.0, 0.7)  # unequal in every way

Found = tuple[Tensor, dict[str, Tensor]]  # losses [S, N] and gradients [N, *w]


def tolerance(path: WeightPath, x: Tensor) -> float:
    """How far a plan's gradients may be from its network's: rounding flips some units at kinks.

    Losses, which have no kinks, are held to a tenth of it.
    """
    types = [part.dtype for part in (x, *path.start.values())]
    coarsest = max(torch.finfo(kind).eps for kind in (*types, in_use().values or x.dtype))
    if in_use().mode in COARSE:
        coarsest = max(coarsest, COARSE[in_use().mode])
    return min(10 * coarsest**0.5, 0.2)


def on_copies(objective: Objective) -> Objective:
    """Let an objective write on what it is given: points share what does not depend on them."""
    if any(objective is known for known in OBJECTIVES.values()):
        return objective

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
        From `faigfast.engine.run.leaves`.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth.
    objective : callable
        L.
    chunk : Chunk
        As it will be used: points and images run together here if they will then.
    alone : bool
        Compare one point of one image.

    Returns
    -------
    str
        What differs; empty where nothing does.
    """
    images = x, _another(x)
    runs = [Run(((0,),), (0,))] if alone else _runs(chunk.points > 1, chunk.images > 1)
    scale = in_use().scale
    try:
        samples = {
            (s, n): _by_network(path, ALPHAS[s], images[n], gt, objective)
            for s, n in dict.fromkeys(sample for run in runs for sample in run.samples())
        }
        for run in runs:
            pair = torch.cat([images[n] for n in run.images])
            by_plan = partial(
                _by_plan, plan, given, run.groups, pair, gt, on_copies(objective), chunk.segments
            )
            found = by_plan()
            while scale is not None and scale.overflowed(found[1]):
                found = by_plan()
            difference = _compare(found, _expected(run, samples), tolerance(path, x))
            if difference:
                return difference
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # what fails in the network too will tell of itself there
        return failed(problem)
    return ""


@dataclass(frozen=True)
class Sample:
    """One image at one point by the network itself: what the first part of a run is to give.

    Parameters
    ----------
    found : (Tensor, dict of str to Tensor)
        Loss [1, 1] and gradients [1, *w].
    bound : float
        From `tolerance`.
    """

    found: Found
    bound: float

    @classmethod
    def of(
        cls, path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
    ) -> "Sample":
        """Run the network."""
        return cls(_by_network(path, alpha, x, gt, objective), tolerance(path, x))

    def differs(self, weight: float, loss: Tensor, sums: Mapping[str, Tensor]) -> str:
        """Compare a loss and sums, which hold this point with that weight alone; "" if equal."""
        losses, grads = self.found
        expected = losses, {key: weight * value for key, value in grads.items()}
        return _compare((loss, dict(sums)), expected, self.bound)


@dataclass(frozen=True)
class Run:
    """A run of the plan: groups of points one after the other, of images together."""

    groups: tuple[tuple[int, ...], ...]
    images: tuple[int, ...]

    @property
    def points(self) -> list[int]:
        """All points, in order."""
        return [point for group in self.groups for point in group]

    def samples(self) -> list[tuple[int, int]]:
        """List its pairs of a point and an image."""
        return [(point, image) for point in self.points for image in self.images]


def _runs(points: bool, images: bool) -> list[Run]:
    """Two points and two images, together where several run together, and what is left over."""
    both, last = ((0, 1),) if points else ((0,), (1,)), ((1,),)
    if not images:
        return [Run(both, (0,)), Run(last, (1,))]
    leftovers = [Run(both, (0,)), Run(last, (0, 1))] if points else []
    return [Run(both, (0, 1)), Run(last, (1,)), *leftovers]


def _compare(found: Found, expected: Found, bound: float) -> str:
    # Losses of 16 bits may be summed, and kept, in 32.
    if not torch.allclose(found[0].double(), expected[0].double(), rtol=bound / 10, atol=0):
        return f"the captured graph has the losses {found[0].tolist()}, not {expected[0].tolist()}"
    whole = sum(float(value.norm()) for value in expected[1].values())
    for key in {**expected[1], **found[1]}:
        one, other = (part[1].get(key, torch.zeros(())) for part in (found, expected))
        error, size = float((one - other.to(one.device)).norm()), float(other.norm())
        if not error <= bound * (size + bound * whole):
            return (
                f"the captured graph's gradient of {key!r} differs from the network's by "
                f"{error:.1e}, of {size:.1e}"
            )
    return ""


def ends_differ(
    found: Sequence[float], expected: Sequence[float], path: WeightPath, x: Tensor
) -> str:
    """How a plan's losses L(θ̄), L(θ) of an image are not those that the networks gave; or ""."""
    bound = tolerance(path, x) / 10
    if all(abs(a - b) <= bound * max(abs(a), abs(b)) for a, b in zip(found, expected, strict=True)):
        return ""
    return (
        f"the captured graph's losses at the ends are {list(found)}, the networks' {list(expected)}"
    )


def failed(problem: Exception) -> str:
    """Say that a graph fails."""
    reason = (str(problem).strip().splitlines() or [""])[0]
    return f"the captured graph cannot be compared: {type(problem).__name__}: {reason[:200]}"


def _another(x: Tensor) -> Tensor:
    """Make a second image that differs everywhere and stays in the first one's range."""
    return 0.9 * x.flip(-1) if x.any() else x + 0.1


def _by_plan(
    plan: Plan,
    given: Mapping[str, Any],
    groups: Sequence[Sequence[int]],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    segments: int,
) -> Found:
    own = with_sums(given, len(x))
    prepared = prepare(plan, own, x)
    truths = gt.expand(len(x), *gt.shape[1:])
    rows = []
    for group in groups:
        points, weights = Points.at([ALPHAS[s] for s in group], x), [WEIGHTS[s] for s in group]
        rows.append(accumulate(plan, prepared, points, weights, truths, objective, segments))
    return torch.cat(rows), gradients(own)


def _by_network(
    path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
) -> Found:
    """Loss [1, 1] and gradients [1, *w] of one image at one point."""
    point, found = path.at(alpha), []

    def backward(output: Any) -> None:
        value = loss(objective, output, gt)
        found.append(value.detach().reshape(1, 1))
        if value.requires_grad:
            value.backward()

    path.call(point, x, backward)
    grads = {key: point[key].grad for key in path.delta}
    return found[0], {key: _wide(grad)[None] for key, grad in grads.items() if grad is not None}


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _expected(run: Run, samples: Mapping[tuple[int, int], Found]) -> Found:
    """Put together what a run has to give."""
    losses = [torch.cat([samples[s, n][0] for n in run.images], 1) for s in run.points]
    grads = {}
    for key in samples[run.samples()[0]][1]:
        of_images = [
            torch.stack([WEIGHTS[s] * samples[s, n][1][key] for s in run.points]).sum(0)
            for n in run.images
        ]
        grads[key] = torch.cat(of_images)
    return torch.cat(losses), grads


def corner(x: Tensor, gt: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Take the corner of a large image that leaves the same rest when cut into `side`; else all."""
    if x.ndim != 4 or gt.ndim != 4 or x.shape[2:].numel() <= (2 * side) ** 2:
        return x, gt
    sides = [min(length, side + length % side) for length in x.shape[2:]]
    factors = [g // s if g % s == 0 else 0 for g, s in zip(gt.shape[2:], x.shape[2:], strict=True)]
    if 0 in factors:
        return x, gt
    high, wide = (length * factor for length, factor in zip(sides, factors, strict=True))
    return x[:, :, : sides[0], : sides[1]], gt[:, :, :high, :wide]
