"""Losses of single images."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from faigfast.integration.image_losses import (
    absolute_error,
    charbonnier,
    gradient,
    laplacian,
    squared_error,
    ssim,
)
from faigfast.integration.signatures import misfit

Objective = Callable[[Tensor, Tensor], Tensor]


OBJECTIVES: dict[str, Objective] = {
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "charbonnier": charbonnier,
    "gradient": gradient,
    "laplacian": laplacian,
    "ssim": ssim,
}


def resolve_objective(objective: str | Objective) -> tuple[str, Objective]:
    """Name and function of an objective.

    Parameters
    ----------
    objective : str or callable
        A name of `OBJECTIVES`, or a function (output, gt) to [B], one loss a sample.

    Returns
    -------
    name : str
    function : callable

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If it is neither a name nor callable.
    """
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ValueError(
                f"objective is {objective!r}; expected one of {', '.join(OBJECTIVES)}, or a "
                "function (output, gt) that returns one loss for each sample"
            )
        return objective, OBJECTIVES[objective]
    if not callable(objective) or isinstance(objective, type):
        text = (
            f"the {objective}" if isinstance(objective, type) else f"a {type(objective).__name__}"
        )
        raise TypeError(f"objective is {text}; expected a name or a function")
    if problem := misfit(objective, None, None):
        raise TypeError(f"objective is a function, but not of (output, gt): {problem}")
    kind = objective if hasattr(objective, "__qualname__") else type(objective)
    return f"{kind.__module__}.{kind.__qualname__}", objective


@contextmanager
def without_own_gradients(objective: Any) -> Iterator[None]:
    """Leave tensors and the parameters of modules that an objective uses without gradients."""
    values = list(_used_by(objective))
    tensors = [value for value in values if isinstance(value, Tensor) and value.is_leaf]
    modules = [value for value in values if isinstance(value, nn.Module)]
    tensors += [parameter for module in modules for parameter in module.parameters()]
    learning = [tensor for tensor in dict.fromkeys(tensors) if tensor.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_()


def _used_by(objective: Any) -> Iterator[Any]:
    """Give an objective itself, what it is bound to, and the variables that its code names."""
    if isinstance(objective, partial):
        yield from (*objective.args, *objective.keywords.values())
        yield from _used_by(objective.func)
        return
    yield from (objective, getattr(objective, "__self__", None))
    if inspect.isroutine(objective) and hasattr(objective, "__code__"):
        variables = inspect.getclosurevars(objective)
        yield from (*variables.nonlocals.values(), *variables.globals.values())


def is_ours(objective: Objective) -> bool:
    """Whether an objective is of this package, so that several threads may call it."""
    return getattr(objective, "__module__", "").partition(".")[0] == "faigfast"


def _evaluate(objective: Objective, output: Any, gt: Tensor) -> Any:
    """Call an objective so that it may take gradients of its own, also where none are wanted."""
    parts = [part for part in tree_leaves(output) if isinstance(part, Tensor)]
    wanted = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    if is_ours(objective) or wanted:
        return objective(output, gt)
    with torch.enable_grad():
        value = objective(tree_map(_leaf, output), gt)
    return value.detach() if isinstance(value, Tensor) else value


def _leaf(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    # A sum with zero, since the objective may write on an output, but not on a leaf.
    return value.detach().requires_grad_() + 0


def loss(objective: Objective, output: Tensor, gt: Tensor) -> Tensor:
    """Loss of one image, as a scalar that was checked.

    Raises
    ------
    ValueError
        If the objective does not give one loss, or it is not finite.
    TypeError
        If it does not give a tensor.
    """
    try:
        value = _evaluate(objective, output, gt.clone())  # it may write on what it is given
    except StopIteration as problem:  # which would end the loop over images
        raise ValueError("objective raises StopIteration; expected a loss") from problem
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"objective gives {kind}; expected a floating-point tensor of shape [B]")
    if value.layout != torch.strided or value.is_meta:
        raise ValueError(f"objective gives {value.layout} on {value.device}; expected dense values")
    if value.shape != (1,):
        raise ValueError(
            f"objective gives {list(value.shape)} for one image; expected [1], one loss a sample"
        )
    if not value.isfinite():
        raise ValueError(f"the loss is {value.item()}; expected a finite number")
    return value[0]
