"""Endpoints: the two networks as they are, compared with the ends of the line."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from faigfast.engine.effects import draws, effects_of
from faigfast.integration.objective import Objective, loss
from faigfast.integration.path import WeightPath
from faigfast.models.generators import generators
from faigfast.models.state import call_as_is, own_type


def compare_endpoints(
    path: WeightPath,
    modules: tuple[nn.Module, nn.Module],
    objective: Objective,
    x: Tensor,
    gt: Tensor,
) -> None:
    """Refuse networks that draw random numbers, or differ in more than the tensors on the line.

    Parameters
    ----------
    path : WeightPath
        The line between their tensors.
    modules : tuple of nn.Module
        Baseline and target.
    objective : callable
        L.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth.

    Raises
    ------
    ValueError
        If the losses of the modules as they are and of the ends of the line differ, or the network
        does not take the image.
    """
    generator_states = generators()
    kind = own_type(modules[1])  # images may come in the type of a cast path
    by_modules, on_path = _losses(path, modules, objective, x.to(kind), gt.to(kind))
    # Other threads draw from the same generators.
    if generators() != generator_states and _draw(
        path, modules, objective, x.to(kind), gt.to(kind), by_modules
    ):
        raise ValueError(
            "the networks draw random numbers in eval mode, or the objective does; expected none"
        )
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    # A loss of 0, such as a network's against its own output, is rounding alone.
    rounding = torch.finfo(x.dtype).eps * max(map(abs, by_modules))
    losses = zip(("model_a", "model_b"), by_modules, on_path, strict=True)
    for argument, as_is, end in losses:
        if abs(as_is - end) > tolerance * max(abs(as_is), abs(end)) + rounding:
            raise ValueError(
                f"{argument} has the loss {as_is:.6g} as it is and {end:.6g} with its tensors in "
                "model_b; expected two networks that differ in their tensors alone"
            )


class _DrawRecorder(TorchDispatchMode):
    """Notices draws from torch's generators in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        self.drawn = self.drawn or (effects_of(func).random and draws(func, args, kwargs))
        return func(*args, **kwargs)


def _draw(
    path: WeightPath,
    modules: tuple[nn.Module, nn.Module],
    objective: Objective,
    x: Tensor,
    gt: Tensor,
    losses: list[float],
) -> bool:
    """Run the modules again: whether they draw, or have other losses than before."""
    with _DrawRecorder() as recorder:
        again, _ = _losses(path, modules, objective, x, gt)
    return recorder.drawn or again != losses


def _losses(
    path: WeightPath,
    modules: tuple[nn.Module, nn.Module],
    objective: Objective,
    x: Tensor,
    gt: Tensor,
) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        # The modules first: the target must not cache values of a call with other tensors.
        by_modules = [loss(objective, call_as_is(module, x), gt).item() for module in modules]
        points = (path.at(alpha) for alpha in (0.0, 1.0))
        on_path = [loss(objective, path.call(point, x), gt).item() for point in points]
    return by_modules, on_path
