"""Loss and gradients of one image at one point of the line, by the network itself."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from faigfast.integration.objective import Objective, loss
from faigfast.integration.path import WeightPath

# Of (path, alpha, x, gt, objective); see `gradients_at`.
Evaluate = Callable[
    [WeightPath, float, Tensor, Tensor, Objective], tuple[Tensor, dict[str, Tensor]]
]


def gradients_at(
    path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
) -> tuple[Tensor, dict[str, Tensor]]:
    """Evaluate L(γ(α), x) and ∂L/∂γ, also where the network overwrites what autograd saved.

    Parameters
    ----------
    path : WeightPath
        The line γ.
    alpha : float
        α.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth [1, ...].
    objective : callable
        L, of (output, gt).

    Returns
    -------
    loss : Tensor
        [].
    gradients : dict of str to Tensor
        By state-dict key, of the moving tensors that the loss depends on; empty under `no_grad`.

    Raises
    ------
    ValueError
        If the network or the objective fails, or the gradient cannot be taken.
    """
    try:
        return _gradients_at(path, alpha, x, gt, objective, keep_saved=False)
    except ValueError as problem:
        if "modified by an inplace operation" not in str(problem):
            raise
        return _gradients_at(path, alpha, x, gt, objective, keep_saved=True)


def _gradients_at(
    path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective, keep_saved: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    point, losses = path.at(alpha), []

    def backward(output: Any) -> None:
        value = loss(objective, output, gt)
        losses.append(value.detach())
        if value.requires_grad:
            value.backward()

    copies = saved_tensors_hooks(Tensor.clone, lambda value: value)
    with copies if keep_saved else nullcontext():
        path.call(point, x, backward)
    gradients = {key: point[key].grad for key in path.delta}
    return losses[0], {key: value for key, value in gradients.items() if value is not None}
