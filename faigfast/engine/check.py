"""Check: a plan is compared with the network itself before it is trusted."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from faigfast.engine.execute import Plan, accumulate, gradients, losses_at, prepare, with_sums
from faigfast.engine.memory import Chunk
from faigfast.engine.plan import plan_for
from faigfast.engine.rules import Points
from faigfast.objective import Objective, loss
from faigfast.path import WeightPath

ALPHAS, WEIGHTS = (0.3, 0.8), (1.0, 0.7)  # unequal in every way
LARGEST = 64 * 64  # pixels; gradients of larger images are compared on their corner


def tolerance(dtype: torch.dtype) -> float:
    """How far a plan may be from its network: rounding flips some units at kinks."""
    return min(10 * torch.finfo(dtype).eps ** 0.5, 0.2)


def differs(
    path: WeightPath,
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
) -> str:
    """Compare losses and gradients of a plan, at two points of two images, with the network's.

    Parameters
    ----------
    path : WeightPath
        The line.
    plan : Plan
        For images of x's shape.
    given : mapping of str to Tensor or Moving
        From `faigfast.engine.execute.leaves`.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth.
    objective : callable
        L.
    chunk : Chunk
        As it will be used: points and images run together here if they will then.

    Returns
    -------
    str
        What differs; empty where nothing does.
    """
    pair = (x, _another(x))
    try:
        found = _by_plan(plan, given, pair, gt, objective, chunk)
    except (ValueError, RuntimeError, TypeError, NotImplementedError) as problem:
        reason = (str(problem).strip().splitlines() or [""])[0]
        return f"the captured graph does not run: {type(problem).__name__}: {reason[:200]}"
    expected = _by_network(path, pair, gt, objective)
    bound = tolerance(x.dtype)
    if not torch.allclose(found[0], expected[0], rtol=bound, atol=0):
        return f"the captured graph has the losses {found[0].tolist()}, not {expected[0].tolist()}"
    whole = sum(float(value.norm()) for value in expected[1].values())
    for key, value in expected[1].items():
        error = float((found[1].get(key, torch.zeros_like(value)) - value).norm())
        if not error <= bound * (float(value.norm()) + bound * whole):
            return (
                f"the captured graph's gradient of {key!r} is {error / float(value.norm()):.1e} "
                "from the network's"
            )
    return ""


def ends_differ(
    plan: Plan,
    given: Mapping[str, Any],
    x: Tensor,
    gt: Tensor,
    objective: Objective,
    ends: Mapping[float, float],
) -> bool:
    """Whether a plan's losses of one image at some α are not those that the networks gave."""
    with torch.no_grad():
        prepared = prepare(plan, with_sums(given, 1), x)
        for alpha, value in ends.items():
            points = Points(x.new_tensor([alpha]), 1)
            found = losses_at(plan, prepared, points, gt, objective, 1).item()
            if abs(found - value) > tolerance(x.dtype) / 10 * max(abs(found), abs(value)):
                return True
    return False


def small_enough(path: WeightPath, plan: Plan, x: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Take the corner of a large image, where the network does the same on that; else all."""
    pixels = x.shape[2:].numel()
    if pixels <= LARGEST or x.ndim != 4 or gt.ndim != 4:
        return x, gt
    sides = [min(side, 48) for side in x.shape[2:]]
    factors = [g // s if g % s == 0 else 0 for g, s in zip(gt.shape[2:], x.shape[2:], strict=True)]
    if 0 in factors:
        return x, gt
    corner = x[:, :, : sides[0], : sides[1]]
    other = plan_for(path, corner)
    if isinstance(other, str) or _work(other) != _work(plan):
        return x, gt
    return corner, gt[:, :, : sides[0] * factors[0], : sides[1] * factors[1]]


def _work(plan: Plan) -> list[Any]:
    return [node.target for node in plan.graph.graph.nodes]


def _another(x: Tensor) -> Tensor:
    """Make a second image that differs everywhere."""
    ramp = torch.linspace(0.05, 0.15, x.shape[-1], dtype=x.dtype, device=x.device)
    return x.flip(-1) + ramp


def _by_plan(
    plan: Plan,
    given: Mapping[str, Any],
    pair: tuple[Tensor, Tensor],
    gt: Tensor,
    objective: Objective,
    chunk: Chunk,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses [2 points, 2 images] and gradients [2, *w]."""
    alphas, weights = (pair[0].new_tensor(values) for values in (ALPHAS, WEIGHTS))
    columns, sums = [], []
    for images in [pair] if chunk.images > 1 else [pair[:1], pair[1:]]:
        x = torch.cat(images)
        own = with_sums(given, len(x))
        prepared = prepare(plan, own, x)
        size = 2 if chunk.points > 1 else 1
        rows = [
            accumulate(
                plan, prepared, Points(a, len(x)), w, gt.expand(len(x), *gt.shape[1:]), objective,
                chunk.segments,
            )
            for a, w in zip(alphas.split(size), weights.split(size), strict=True)
        ]  # fmt: skip
        columns.append(torch.cat(rows))
        sums.append(gradients(own))
    joined = {key: torch.cat([part[key] for part in sums]) for key in sums[0]}
    return torch.cat(columns, 1), joined


def _by_network(
    path: WeightPath, pair: tuple[Tensor, Tensor], gt: Tensor, objective: Objective
) -> tuple[Tensor, dict[str, Tensor]]:
    rows: list[list[Tensor]] = []
    sums: dict[str, Tensor] = {}
    for alpha, weight in zip(ALPHAS, WEIGHTS, strict=True):
        rows.append([])
        for n, x in enumerate(pair):
            point = path.at(alpha)

            def backward(output: Any, row: list[Tensor] = rows[-1]) -> None:
                value = loss(objective, output, gt)
                row.append(value.detach())
                if value.requires_grad:
                    value.backward()

            path.call(point, x, backward)
            for key in path.delta:
                grad = point[key].grad
                if grad is not None:
                    wide = torch.promote_types(grad.dtype, torch.float32)
                    sums.setdefault(key, grad.new_zeros(2, *grad.shape, dtype=wide))
                    sums[key][n] += weight * grad
    return torch.stack([torch.stack(row) for row in rows]), sums
