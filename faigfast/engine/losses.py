"""Losses of a plan at points of the line, image by image, and sums of their gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from faigfast.engine.points import Points
from faigfast.engine.run import Plan, Values, forward
from faigfast.engine.samples import Samples
from faigfast.integration.objective import Objective, loss, squared_error
from faigfast.integration.padding import OnMiddle, middle
from faigfast.ops.path_values import on_device
from faigfast.ops.registry import in_use
from faigfast.ops.squared_error.operation import fits, flat
from faigfast.ops.squared_error.operation import squared_error as fused_squared_error


def losses_at(
    plan: Plan, prepared: Values, points: Points, gt: Tensor, objective: Objective, segments: int
) -> Tensor:
    """Losses [P, N] at some points, as `loss` gives them for each image [1, ...] of gt.

    Squared errors of all samples together are not checked, since a check waits for the GPU:
    see `check_losses`.
    """
    return losses_of(forward(plan, prepared, points, segments), points, gt, objective)


def losses_of(out: Any, points: Points, gt: Tensor, objective: Objective) -> Tensor:
    """Losses [P, N] of a network's output, in which `Samples` stand for tensors."""
    if isinstance(objective, OnMiddle) and _has_rank(out, gt):
        out = Samples(middle(out.data, gt.shape[2:], objective.pad))
        objective = objective.objective
    # One by one, each loss would wait for the GPU and have a gradient of its own.
    if objective is squared_error:
        losses = _squared_errors(out, len(points.nodes), gt)
        if losses is not None:
            return losses
    if in_use().values is not None:
        out = tree_map(lambda v: _widened(v, gt.dtype, points.images), out)
    # With an index, the gradient of each sample would be as large as the gradient of all.
    out = tree_map(lambda v: _UnboundSamples.of(v.data) if isinstance(v, Samples) else v, out)

    def one(p: int, n: int) -> Tensor:
        sample = tree_map(lambda v: v.at(p, n) if isinstance(v, _UnboundSamples) else v, out)
        with _of_image(n):
            return loss(objective, sample, gt[n : n + 1])

    rows = [[one(p, n) for n in range(points.images)] for p in range(len(points.nodes))]
    return torch.stack([torch.stack(row) for row in rows])


def _has_rank(out: Any, gt: Tensor) -> bool:
    """Whether an output [P, N, 1, *own] is of images of gt's rank."""
    return isinstance(out, Samples) and out.data.ndim - 2 == gt.ndim > 2


@dataclass(frozen=True)
class _UnboundSamples:
    """Parts of a value [P, N, ...], or [1, N, ...] or [P, 1, ...] if points or images share it."""

    rows: list[tuple[Tensor, ...]]

    @classmethod
    def of(cls, data: Tensor) -> "_UnboundSamples":
        return cls([row.unbind() for row in data.unbind()])

    def at(self, p: int, n: int) -> Tensor:
        row = self.rows[p % len(self.rows)]
        return row[n % len(row)]


def check_losses(
    plan: Plan,
    prepared: Values,
    losses: Sequence[tuple[Points, Tensor]],
    gt: Tensor,
    objective: Objective,
    segments: int = 1,
) -> None:
    """Raise the error of `loss` if one of the losses [P, N] at some points is not finite."""
    finite = torch.stack([values.isfinite().all() for _, values in losses])
    if bool(finite.all()):
        return
    with torch.no_grad():
        for points, values in losses:
            if not bool(values.isfinite().all()):
                losses_at(plan, prepared, points, gt, partial(_unrecognised, objective), segments)
    raise ValueError("a loss is not finite, but finite when it is computed again")


def _unrecognised(objective: Objective, output: Tensor, gt: Tensor) -> Tensor:
    """Call an objective through another function, so that losses are computed one by one."""
    return objective(output, gt)


def _squared_errors(out: Any, points: int, gt: Tensor) -> Tensor | None:
    """Losses [P, N] of all samples at once; None where `fits` is false."""
    if not isinstance(out, Samples) or not fits(out.data, points, gt):
        return None
    losses, _ = fused_squared_error(flat(out.data.squeeze(2), 2), flat(gt, 1))
    return losses


def _widened(value: Any, dtype: torch.dtype, images: int) -> Any:
    """Cast an output to the type of its ground truth; scale the gradient on its way back."""
    if not isinstance(value, Samples) or not value.data.is_floating_point():
        return value
    scale = in_use().scale
    if scale is None:
        return Samples(value.data.to(dtype))
    return Samples(scale.enter(value.data, dtype, images))


@contextmanager
def _of_image(n: int) -> Iterator[None]:
    """Add the image's number to an error about a value."""
    try:
        yield
    except (ValueError, TypeError) as problem:
        problem.image = n  # type: ignore[union-attr]
        raise


def accumulate(
    plan: Plan,
    prepared: Values,
    points: Points,
    weights: Sequence[float] | Tensor,
    gt: Tensor,
    objective: Objective,
    segments: int = 1,
) -> Tensor:
    """Add Σ_s w_s ∂L(γ(α_s), x)/∂γ of each image to the gradient sums of the tensors that move.

    Parameters
    ----------
    prepared : dict
        From `prepare`.
    points : Points
        α_s, for N images.
    weights : sequence of float or Tensor
        w_s, P of them.
    gt : Tensor
        [N, ...].
    objective : callable
        L.
    segments : int
        As in `forward`.

    Returns
    -------
    Tensor
        Losses [P, N].
    """
    losses = losses_at(plan, prepared, points, gt, objective, segments)
    if losses.requires_grad:
        factors = weights
        if not isinstance(factors, Tensor):
            factors = on_device(factors, losses.dtype, losses.device)
        (losses * factors[:, None]).sum().backward()
    return losses.detach()
