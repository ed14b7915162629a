"""Measure one architecture: scores and times of `attribute`, and of a plain loop."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from networks import INSTANCES, Instance
from packages import import_packages
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from faigfast.filters.index import FilterIndex
from faigfast.models.state import copy_of

IMAGES = 2
STEPS = 10
CALLS = 3  # timed in turn
LONG = 2.0  # seconds of the loop above which one is timed
SEED = 0

Pair = tuple[nn.Module, nn.Module]
Inputs = tuple[Tensor, ...]


def measure(name: str, timed: bool = True) -> dict[str, Any]:
    """Attribute a small pair of one architecture.

    Parameters
    ----------
    name : str
        Key of `INSTANCES`.
    timed : bool
        Also time warm calls and the plain loop.

    Returns
    -------
    dict
        name, backend, notes, folded, error, loop_error, first, warm and loop (CPU seconds); or
        `refused`, the sentence of a `ValueError` or `TypeError`; or `failed`, any other error.
    """
    import faigfast

    instance = INSTANCES[name]
    baseline, target = pair(instance)
    x, gt, inputs = images(instance, target)

    def attribute() -> Any:
        batch = {"lq": x, "gt": gt, "inputs": inputs} if inputs else (x, gt)
        return faigfast.attribute(baseline, target, batch, rule="midpoint", steps=STEPS)

    row: dict[str, Any] = {"name": name}
    try:
        first, result = _timed(attribute)
    except (ValueError, TypeError) as problem:
        return row | {"refused": _sentence(problem)}
    except Exception as problem:
        return row | {"failed": f"{type(problem).__name__}: {_sentence(problem)}"}
    row |= {"backend": result.backend, "notes": list(result.notes), "first": first}
    row["folded"] = not any(note.startswith("runs point by point") for note in result.notes)

    def loop() -> Tensor:
        return scores(baseline, target, x, gt, inputs, instance.loop_trains)

    try:
        exact = exact_scores(baseline, target, x, gt, inputs, instance.loop_trains)
    except Exception as problem:
        return row | {
            "failed": f"the plain loop, by {type(problem).__name__}: {_sentence(problem)}"
        }
    row["error"] = relative_error(result.scores(), exact)
    first_loop, rounded = _timed(loop)
    row["loop_error"] = relative_error(rounded, exact)
    if timed:
        calls = 1 if first_loop > LONG else CALLS
        seconds = [(_timed(attribute)[0], _timed(loop)[0]) for _ in range(calls)]
        row["warm"], row["loop"] = map(statistics.median, zip(*seconds, strict=True))
    return row


def pair(instance: Instance) -> Pair:
    """Make a baseline with seeded weights, and a target a tenth of each tensor's RMS away."""
    import_packages()
    torch.manual_seed(SEED)
    baseline = instance.network().eval()
    with torch.no_grad():
        for value in baseline.parameters():
            if value.is_floating_point() and not value.any():  # it would hide what precedes it
                value.normal_(std=0.05)
        target = copy_of(baseline)
        for value in target.parameters():
            if value.is_floating_point():
                deviation = 0.1 * float(value.square().mean().sqrt()) + 0.001
                value.add_(torch.randn_like(value), alpha=deviation)
    return baseline, target


def images(instance: Instance, target: nn.Module) -> tuple[Tensor, Tensor, Inputs]:
    """Make images x [N, C, H, W], ground truths of the outputs' shape, and the other inputs."""
    x = torch.rand(IMAGES, instance.channels, *instance.size)
    inputs: Inputs = ()
    if instance.masked:
        rows, columns = (slice(side // 4, side // 2 + 1) for side in instance.size)
        mask = torch.zeros(IMAGES, 1, *instance.size)
        mask[..., rows, columns] = 1
        inputs = (mask,)
    with torch.no_grad():
        shape = copy_of(target)(x[:1].clone(), *(value[:1] for value in inputs)).shape
    return x, torch.rand(IMAGES, *shape[1:]), inputs


class _Double(TorchFunctionMode):
    """Read `.float()` of a network's code as `.double()`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return (Tensor.double if func is Tensor.float else func)(*args, **(kwargs or {}))


def exact_scores(
    baseline: nn.Module, target: nn.Module, x: Tensor, gt: Tensor, inputs: Inputs, trains: bool
) -> Tensor:
    """Give `scores` in float64."""
    networks = [copy_of(network).double() for network in (baseline, target)]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # of constants that the networks make
    try:
        others = tuple(value.double() for value in inputs)
        with _Double():
            return scores(*networks, x.double(), gt.double(), others, trains)
    finally:
        torch.set_default_dtype(before)


def scores(
    baseline: nn.Module, target: nn.Module, x: Tensor, gt: Tensor, inputs: Inputs, trains: bool
) -> Tensor:
    """Score kernels by FAIG's equations: one image and one point of the line after another.

    Parameters
    ----------
    baseline, target : nn.Module
        θ̄ and θ.
    x, gt : Tensor
        [N, C, H, W]; images and ground truths.
    inputs : tuple of Tensor
        What forward takes beside x, [N, ...] each.
    trains : bool
        Call the networks in training mode.

    Returns
    -------
    Tensor
        [N, F].
    """
    start, end = ({k: v.detach() for k, v in m.state_dict().items()} for m in (baseline, target))
    layers = FilterIndex.of(target).layers
    network = copy_of(target).train(trains).requires_grad_(True)
    own = network.state_dict(keep_vars=True)
    rows = []
    for image, truth, *others in zip(
        x.split(1), gt.split(1), *(i.split(1) for i in inputs), strict=True
    ):
        sums = {layer: torch.zeros_like(start[layer]) for layer in layers}
        for step in range(STEPS):
            alpha = (step + 0.5) / STEPS
            network.zero_grad()
            for key, value in start.items():
                if value.is_floating_point():
                    own[key].data.copy_(value + alpha * (end[key] - value))
            # RCAN writes to its images; reentrant checkpoints refuse autograd.grad.
            (network(image.clone(), *others) - truth).square().sum().backward()
            for layer in layers:
                if own[layer].grad is not None:
                    sums[layer] += own[layer].grad / STEPS
        parts = [(sums[k] * (end[k] - start[k])).abs().flatten(2).sum(2) for k in layers]
        rows.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(rows)


def relative_error(given: Tensor, exact: Tensor) -> float:
    """Worst relative L1 error of an image's scores; [N, F] both."""
    exact = exact.double()
    difference = (given.double() - exact).abs().sum(1)
    return float((difference / exact.abs().sum(1)).max())


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.process_time()
    value = function()
    return time.process_time() - begin, value


def _sentence(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:400]
