"""Ends: the two networks as they are, against the ends of the line between their tensors."""

import torch
from torch import Tensor, nn

from faigfast.integration.objective import Objective, loss
from faigfast.integration.path import WeightPath
from faigfast.models.fingerprint import generators
from faigfast.models.state import call_as_is, own_type


def compare_ends(
    line: WeightPath,
    modules: tuple[nn.Module, nn.Module],
    objective: Objective,
    x: Tensor,
    gt: Tensor,
) -> None:
    """Refuse networks that draw random numbers, or differ in more than the tensors on the line.

    Parameters
    ----------
    line : WeightPath
        Between their tensors.
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
    before = generators()
    kind = own_type(modules[1])  # images may come in the type of a cast line
    found = _losses(line, modules, objective, x.to(kind), gt.to(kind))
    if generators() != before:
        raise ValueError("the networks draw random numbers in eval mode; expected none")
    tolerance = torch.finfo(x.dtype).eps ** 0.5
    for argument, value, end in zip(("model_a", "model_b"), *found, strict=True):
        if abs(value - end) > tolerance * max(abs(value), abs(end)):
            raise ValueError(
                f"{argument} has the loss {value:.6g} as it is and {end:.6g} with its tensors in "
                "model_b; expected two networks that differ in their tensors alone"
            )


def _losses(
    line: WeightPath,
    modules: tuple[nn.Module, nn.Module],
    objective: Objective,
    x: Tensor,
    gt: Tensor,
) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        # The modules first: what the target keeps of its first call must be of its own tensors.
        own = [loss(objective, call_as_is(module, x), gt).item() for module in modules]
        points = (line.at(alpha) for alpha in (0.0, 1.0))
        ends = [loss(objective, line.call(point, x), gt).item() for point in points]
    return own, ends
