"""Check: a plan is compared with the network itself before it is trusted."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from faigfast.engine.execute import Plan, gradients, prepare, with_sums
from faigfast.engine.losses import accumulate
from faigfast.engine.memory import Chunk
from faigfast.engine.rules import Points
from faigfast.objective import OBJECTIVES, Objective, loss
from faigfast.ops.table import in_use
from faigfast.path import WeightPath

# Rounding of the products where kernels multiply float32 otherwise.
COARSE = {"tf32": 2.0**-11, "bf16x3": 2.0**-17}
CORNER = 16  # pixels; of images more than twice as large a corner is compared
ALPHAS, WEIGHTS = (0.3, 0.8), (1.0, 0.7)  # unequal in every way


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
    samples: int = 2,
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
    samples : int
        Points, and images.

    Returns
    -------
    str
        What differs; empty where nothing does.
    """
    pair = (x, _another(x))[:samples]
    sizes = [(p, n) for p in {chunk.points > 1, False} for n in {chunk.images > 1, False}]
    scale = in_use().scale
    try:
        expected = _by_network(path, pair, gt, objective)
        for several in sizes:  # of points, of images: what is left over runs alone
            runs = partial(
                _by_plan, plan, given, pair, gt, on_copies(objective), several, chunk.segments
            )
            found = runs()
            while scale is not None and scale.overflowed(found[1]):
                found = runs()
            difference = _compare(found, expected, tolerance(path, x))
            if difference:
                return difference
    except torch.OutOfMemoryError:
        raise
    except Exception as problem:  # what fails in the network too will tell of itself there
        return _failed(problem)
    return ""


def _compare(found: "Found", expected: "Found", bound: float) -> str:
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


def _failed(problem: Exception) -> str:
    reason = (str(problem).strip().splitlines() or [""])[0]
    return f"the captured graph cannot be compared: {type(problem).__name__}: {reason[:200]}"


def _another(x: Tensor) -> Tensor:
    """Make a second image that differs everywhere and stays in the first one's range."""
    return 0.9 * x.flip(-1) if x.any() else x + 0.1


Found = tuple[Tensor, dict[str, Tensor]]  # losses [2 points, 2 images] and gradients [2, *w]


def _by_plan(
    plan: Plan,
    given: Mapping[str, Any],
    pair: Sequence[Tensor],
    gt: Tensor,
    objective: Objective,
    several: tuple[bool, bool],
    segments: int,
) -> Found:
    columns, sums = [], []
    size, alphas = 2 if several[0] else 1, ALPHAS[: len(pair)]
    for images in [pair] if several[1] else [[image] for image in pair]:
        x = torch.cat(list(images))
        own = with_sums(given, len(x))
        prepared = prepare(plan, own, x)
        rows = [
            accumulate(
                plan, prepared, Points.at(alphas[i : i + size], x), WEIGHTS[i : i + size],
                gt.expand(len(x), *gt.shape[1:]), objective, segments,
            )
            for i in range(0, len(alphas), size)
        ]  # fmt: skip
        columns.append(torch.cat(rows))
        sums.append(gradients(own))
    joined = {key: torch.cat([part[key] for part in sums]) for key in sums[0]}
    return torch.cat(columns, 1), joined


def _by_network(
    path: WeightPath, pair: Sequence[Tensor], gt: Tensor, objective: Objective
) -> Found:
    rows: list[list[Tensor]] = []
    sums: dict[str, Tensor] = {}
    for alpha, weight in zip(ALPHAS[: len(pair)], WEIGHTS, strict=False):
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
                    sums.setdefault(key, grad.new_zeros(len(pair), *grad.shape, dtype=wide))
                    sums[key][n] += weight * grad
    return torch.stack([torch.stack(row) for row in rows]), sums


def corner(x: Tensor, gt: Tensor, side: int = CORNER) -> tuple[Tensor, Tensor]:
    """Take the corner of a large image that leaves the same rest when cut into `side`; else all."""
    if x.ndim != 4 or gt.ndim != 4 or x.shape[2:].numel() <= (2 * side) ** 2:
        return x, gt
    sides = [min(length, side + length % side) for length in x.shape[2:]]
    factors = [g // s if g % s == 0 else 0 for g, s in zip(gt.shape[2:], x.shape[2:], strict=True)]
    if 0 in factors:
        return x, gt
    high, wide = (length * factor for length, factor in zip(sides, factors, strict=True))
    return x[:, :, : sides[0], : sides[1]], gt[:, :, :high, :wide]
