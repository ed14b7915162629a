"""Malformed and unusual objectives."""

import copy
import functools
import math
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from call import Call, Mutation
from oracle import absolute_error, squared_error
from torch import Tensor, nn

WORDS = r"objective|loss|gradient"
RAISED = (
    ValueError, TypeError, RuntimeError, KeyError, IndexError, AttributeError, RecursionError,
    StopIteration, AssertionError, OSError, FloatingPointError,
)  # fmt: skip


class Raised(Exception):
    """An exception of the caller's own."""


class Weighted(nn.Module):
    """A loss with parameters, as perceptual losses have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5))

    def forward(self, output: Tensor, gt: Tensor) -> Tensor:
        """Give the weighted squared error: [B]."""
        return squared_error(output * self.weight.to(output), gt)


class Method:
    """An object whose method is the loss."""

    def loss(self, output: Tensor, gt: Tensor) -> Tensor:
        """Give the squared error: [B]."""
        return squared_error(output, gt)


class Gathering:
    """A callable object that keeps every output."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def __call__(self, output: Tensor, gt: Tensor) -> Tensor:
        """Give the squared error: [B]."""
        self.outputs.append(output)
        return squared_error(output, gt)


def _penalty(output: Tensor, gt: Tensor) -> Tensor:
    """Squared error with a gradient penalty, through the network's graph."""
    if not output.requires_grad:
        output = output.detach().requires_grad_()
    with torch.enable_grad():
        energy = (output - gt).pow(4).sum()
        slope = torch.autograd.grad(energy, output, create_graph=True)[0]
    return squared_error(output, gt) + slope.square().flatten(1).sum(1)


def _detached_slope(output: Tensor, gt: Tensor) -> Tensor:
    """Squared error weighted by a gradient that is taken apart from the graph."""
    with torch.enable_grad():
        at = output.detach().requires_grad_()
        slope = torch.autograd.grad((at - gt).pow(3).sum(), at)[0]
    return (slope * (output - gt)).flatten(1).sum(1)


def _backward(output: Tensor, gt: Tensor) -> Tensor:
    with torch.enable_grad():
        at = output.detach().requires_grad_()
        (at - gt).square().sum().backward()
    return ((output - gt) * at.grad).flatten(1).sum(1)


def _writes(output: Tensor, gt: Tensor) -> Tensor:
    output.mul_(2)
    return squared_error(output, gt)


def _writes_data(output: Tensor, gt: Tensor) -> Tensor:
    output.data.clamp_(-0.5, 0.5)
    return squared_error(output, gt)


def _writes_gt(output: Tensor, gt: Tensor) -> Tensor:
    value = squared_error(output, gt)
    gt.zero_()
    return value


def _branches(output: Tensor, gt: Tensor) -> Tensor:
    value = squared_error(output, gt)
    return 2 * value if float(value.detach().sum()) > 1 else value


def _rows(output: Tensor, gt: Tensor) -> Tensor:
    return torch.stack([(a - b).square().sum() for a, b in zip(output, gt, strict=True)])


def _hooked(output: Tensor, gt: Tensor) -> Tensor:
    if output.requires_grad:
        output.register_hook(lambda gradient: 2 * gradient)
    return squared_error(output, gt)


def _own_network(output: Tensor, gt: Tensor) -> Tensor:
    return squared_error(torch.func.vmap(torch.sin)(output), gt)


def _quiet(output: Tensor, gt: Tensor) -> Tensor:
    with torch.no_grad():
        return squared_error(output, gt)


def _inference(output: Tensor, gt: Tensor) -> Tensor:
    with torch.inference_mode():
        return squared_error(output, gt)


def _grad_off(output: Tensor, gt: Tensor) -> Tensor:
    value = squared_error(output, gt)
    torch.set_grad_enabled(False)
    return value


def _parts(output: Tensor, gt: Tensor) -> Tensor:
    return (output - gt).square().flatten(1)


# Losses of one sample each.
UNUSUAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "of fourth powers": lambda y, gt: (y - gt).pow(4).flatten(1).sum(1),
    "of roots": lambda y, gt: squared_error(y, gt).sqrt(),
    "of logarithms, as PSNR": lambda y, gt: 10 * squared_error(y, gt).log10(),
    "of float64": lambda y, gt: squared_error(y.double(), gt.double()),
    "of the ground truth's gradient": lambda y, gt: squared_error(y.diff(dim=-1), gt.diff(dim=-1)),
    "with a gradient penalty": _penalty,
    "with a detached slope": _detached_slope,
    "with a backward": _backward,
    "that writes on the output": _writes,
    "that writes on the output's data": _writes_data,
    "that writes on the ground truth": _writes_gt,
    "that branches on values": _branches,
    "of rows": _rows,
    "with a hook": _hooked,
    "of vmap": _own_network,
    "that turns gradients off after itself": _grad_off,
    "as a partial function": functools.partial(squared_error),
    "as a method": lambda y, gt: Method().loss(y, gt),
    "without the ground truth": lambda y, gt: y.square().flatten(1).sum(1),
    "that is far from 0": lambda y, gt: squared_error(y, gt) * 1e-6 + 1e8,
    "negative": lambda y, gt: -squared_error(y, gt),
    "huge": lambda y, gt: squared_error(y, gt) * 1e30,
    "tiny": lambda y, gt: squared_error(y, gt) * 1e-30,
    "of medians": lambda y, gt: (y - gt).abs().flatten(1).median(1).values,
    "of a large power": lambda y, gt: (y - gt).pow(40).flatten(1).sum(1),
    "constant": lambda y, gt: 0 * squared_error(y, gt) + 1,
    "of absolute errors": absolute_error,
}
# What is no loss of one sample: each must be refused.
REFUSED: dict[str, Any] = {
    "unknown": "squared error",
    "empty": "",
    "None": None,
    "a number": 3,
    "bytes": b"squared_error",
    "a list": [squared_error],
    "a tensor": torch.zeros(3),
    "PyTorch's mean": nn.functional.mse_loss,
    "PyTorch's module of means": nn.MSELoss(),
    "of one argument": lambda y: y.flatten(1).sum(1),
    "of three arguments": lambda y, gt, more: squared_error(y, gt),
    "of no arguments": lambda: torch.zeros(1),
    "a class": nn.MSELoss,
    "of a scalar": lambda y, gt: squared_error(y, gt).sum(),
    "of a column": lambda y, gt: squared_error(y, gt)[:, None],
    "of two losses": lambda y, gt: squared_error(y, gt).repeat(2),
    "of no losses": lambda y, gt: squared_error(y, gt)[:0],
    "of every pixel": _parts,
    "of None": lambda y, gt: None,
    "of a float": lambda y, gt: float(squared_error(y, gt).detach().sum()),
    "of an array": lambda y, gt: squared_error(y, gt).detach().numpy(),
    "of a tuple": lambda y, gt: (squared_error(y, gt),),
    "of integers": lambda y, gt: squared_error(y, gt).long(),
    "of booleans": lambda y, gt: squared_error(y, gt) > 0,
    "of complex numbers": lambda y, gt: squared_error(y, gt) * 1j,
    "of NaN": lambda y, gt: squared_error(y, gt) * math.nan,
    "of inf": lambda y, gt: squared_error(y, gt) + math.inf,
    "of meta": lambda y, gt: squared_error(y, gt).to("meta"),
    "of sparse losses": lambda y, gt: squared_error(y, gt).to_sparse(),
    "rounded": lambda y, gt: squared_error(y, gt).round().detach(),
    "detached": lambda y, gt: squared_error(y.detach(), gt),
    "without gradients": _quiet,
    "of inference mode": _inference,
    "that draws": lambda y, gt: squared_error(y + torch.rand_like(y), gt),
}


def _unusual(name: str, loss: Callable[[Tensor, Tensor], Tensor]) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.options["objective"] = call.loss = loss

    return Mutation(f"objective {name}", change, WORDS)


def _refused(name: str, value: Any) -> Mutation:
    def change(call: Call, random: Random) -> None:
        call.options["objective"] = value

    return Mutation(f"objective {name}", change, WORDS, refused=True)


def _raising(kind: type[BaseException]) -> Mutation:
    def objective(output: Tensor, gt: Tensor) -> Tensor:
        raise kind("its own")

    def change(call: Call, random: Random) -> None:
        call.options["objective"] = objective

    name = f"objective raising {kind.__name__}"
    return Mutation(name, change, f"{WORDS}|its own", refused=True, own=(kind,))


def _weighted(call: Call, random: Random) -> None:
    loss = Weighted()
    call.options["objective"], call.loss = loss, copy.deepcopy(loss)
    call.watched.append(loss)


def _gathering(call: Call, random: Random) -> None:
    call.options["objective"], call.loss = Gathering(), squared_error


def _method(call: Call, random: Random) -> None:
    call.options["objective"] = Method().loss


MUTATIONS = [
    *(_unusual(name, loss) for name, loss in UNUSUAL.items()),
    *(_refused(name, value) for name, value in REFUSED.items()),
    *map(_raising, (*RAISED, Raised)),
    Mutation("objective with parameters", _weighted, WORDS),
    Mutation("objective that keeps every output", _gathering, WORDS),
    Mutation("objective as a bound method", _method, WORDS),
]
