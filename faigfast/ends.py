"""Ends: the two networks as they are, against the ends of the line between their tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from faigfast.fingerprints import generators
from faigfast.networks import call_as_is
from faigfast.objective import Objective, loss
from faigfast.path import WeightPath

SIDE = 32  # pixels; of images more than twice as large a corner is compared


def compare_ends(
    line: WeightPath,
    modules: tuple[nn.Module, nn.Module],
    objective: Objective,
    x: Tensor,
    gt: Tensor,
    whole: bool = False,
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
    whole : bool
        Compare on all of a large image, not on a corner of it.

    Raises
    ------
    ValueError
        If the losses of the modules as they are and of the ends of the line differ, or the network
        does not take the image.
    """
    before = generators()
    try:
        part = (x, gt) if whole else corner(x, gt)
        found = _losses(line, modules, objective, *part)
    except ValueError:  # a part may be too small for the network
        found = _losses(line, modules, objective, x, gt)
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


def end_losses(
    path: WeightPath,
    modules: tuple[nn.Module, nn.Module] | None,
    objective: Objective,
    x: Tensor,
    gt: Tensor,
    ends: Sequence[float],
) -> list[float]:
    """Losses of one image at ends of the line, L(θ̄) for 0 and L(θ) for 1.

    Parameters
    ----------
    path : WeightPath
        The line.
    modules : tuple of nn.Module, optional
        Baseline and target, run as they are; None: their tensors on the line are run in the target.
    objective : callable
        L.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth.
    ends : sequence of float
        Of 0 and 1.
    """
    with torch.no_grad():
        if modules is not None:
            outputs = (call_as_is(modules[int(end)], x) for end in ends)
        else:
            outputs = (path.call(path.at(end), x) for end in ends)
        return [loss(objective, output, gt).item() for output in outputs]


def corner(x: Tensor, gt: Tensor, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """Take the corner of a large image that leaves the same rest when cut into `side`; else all."""
    if x.ndim != 4 or gt.ndim != 4 or x.shape[2:].numel() <= (2 * side) ** 2:
        return x, gt
    sides = [min(length, side + length % side) for length in x.shape[2:]]
    factors = [g // s if g % s == 0 else 0 for g, s in zip(gt.shape[2:], x.shape[2:], strict=True)]
    if 0 in factors:
        return x, gt
    high, wide = (length * factor for length, factor in zip(sides, factors, strict=True))
    return x[:, :, : sides[0], : sides[1]], gt[:, :, :high, :wide]
