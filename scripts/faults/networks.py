"""Networks with habits: side effects, random numbers, state, gradients of their own."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def dtype_of(network: nn.Module) -> torch.dtype:
    """Type of a network's first parameter."""
    return next(network.parameters()).dtype


class Habit(nn.Module):
    """Two convolutions with a function of the network and the features between them."""

    def __init__(self, between: Callable[["Habit", Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
        self.between = between
        self.calls = 0
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(3))
        self.kept: Any = None

    def forward(self, x: Tensor) -> Tensor:
        """Give last(between(first(x)))."""
        return self.last(self.between(self, self.first(x)))


class Raising(Habit):
    """Raises an exception of a given kind."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__(self._raise)
        self.kind = kind

    def _raise(self, network: Habit, y: Tensor) -> Tensor:
        raise self.kind("its own")


class Tuple(Habit):
    """Returns a tuple."""

    def __init__(self) -> None:
        super().__init__(lambda network, y: y.tanh())

    def forward(self, x: Tensor) -> Any:
        """Give the output and the features."""
        features = self.first(x).tanh()
        return self.last(features), features


class Straight(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Round to quarters."""
        return (4 * value).round() / 4

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Pass the gradient on."""
        return gradient


def loss_of_first(output: Any, gt: Tensor) -> Tensor:
    """Give the squared error of the first of several outputs."""
    return (output[0] - gt).square().flatten(1).sum(1)


def _counts(network: Habit, y: Tensor) -> Tensor:
    network.calls += 1
    return y.tanh()


def _counts_in_a_buffer(network: Habit, y: Tensor) -> Tensor:
    network.count += 1
    return y.tanh()


def _averages(network: Habit, y: Tensor) -> Tensor:
    with torch.no_grad():
        network.average.mul_(0.9).add_(0.1 * y.mean((0, 2, 3)))
    return y.tanh()


def _keeps(network: Habit, y: Tensor) -> Tensor:
    network.kept = y.tanh()
    return network.kept


def _remembers_weights(network: Habit, y: Tensor) -> Tensor:
    network.kept = network.last.weight * 2
    return y.tanh()


def _seeds(network: Habit, y: Tensor) -> Tensor:
    torch.manual_seed(7)
    return y.tanh() + torch.rand_like(y)


def _draws_in_vain(network: Habit, y: Tensor) -> Tensor:
    torch.rand(3)
    return y.tanh()


def _draws_python_in_vain(network: Habit, y: Tensor) -> Tensor:
    random.random(), np.random.rand()
    return y.tanh()


def _own_gradient(network: Habit, y: Tensor) -> Tensor:
    with torch.enable_grad():
        at = y.detach().requires_grad_()
        slope = torch.autograd.grad((at**3).sum(), at)[0]
    return y.tanh() + slope


def _own_gradient_of_graph(network: Habit, y: Tensor) -> Tensor:
    with torch.enable_grad():
        given = y if y.requires_grad else y.detach().requires_grad_()
        return torch.autograd.grad((given**3).sum(), given, create_graph=True)[0].tanh()


def _writes(network: Habit, y: Tensor) -> Tensor:
    y[:, 0] *= 2
    return y.tanh_()


def _writes_out(network: Habit, y: Tensor) -> Tensor:
    full = torch.empty_like(y)
    full[..., ::2], full[..., 1::2] = y[..., ::2].tanh(), y[..., 1::2].sigmoid()
    return full


def _branches(network: Habit, y: Tensor) -> Tensor:
    return y.tanh() if float(y.detach().mean()) > 0 else y.sigmoid()


def _leaves_grad_mode(network: Habit, y: Tensor) -> Tensor:
    torch.set_grad_enabled(torch.is_grad_enabled())
    return y.tanh()


def _in_float32(network: Habit, y: Tensor) -> Tensor:
    return y.float().tanh().to(y)


def _through_numpy(network: Habit, y: Tensor) -> Tensor:
    scale = float(np.abs(y.detach().numpy()).max())
    return y.tanh() * scale


def _loops(network: Habit, y: Tensor) -> Tensor:
    return torch.stack([row.tanh() for row in y])


def _turns_train(network: Habit, y: Tensor) -> Tensor:
    network.train()
    return y.tanh()


# Habits that leave the value of the network a function of its tensors and the image.
UNUSUAL: dict[str, Callable[[], nn.Module]] = {
    name: lambda between=between: Habit(between)
    for name, between in {
        "that counts its calls": _counts,
        "that counts its calls in a buffer": _counts_in_a_buffer,
        "that averages in a buffer": _averages,
        "that keeps its features": _keeps,
        "that keeps a function of its weights": _remembers_weights,
        "that draws in vain": _draws_in_vain,
        "that draws in vain from Python and NumPy": _draws_python_in_vain,
        "with a gradient inside": _own_gradient,
        "with a gradient through its graph": _own_gradient_of_graph,
        "that writes on its features": _writes,
        "that writes into parts": _writes_out,
        "that branches on values": _branches,
        "that sets the grad mode": _leaves_grad_mode,
        "that computes in float32": _in_float32,
        "that goes through NumPy": _through_numpy,
        "that loops over images": _loops,
        "of constant features": lambda net, y: torch.zeros_like(y.detach()),
        "of detached features": lambda net, y: y.detach().tanh(),
        "that calls train()": _turns_train,
        "with checkpointing": lambda net, y: checkpoint(torch.tanh, y, use_reentrant=False),
        "with reentrant checkpointing": lambda net, y: checkpoint(
            torch.tanh, y, use_reentrant=True
        ),
        "with a function of its own": lambda net, y: Straight.apply(y),
        "that sorts": lambda net, y: y.sort(dim=-1).values,
        "of statistics of the batch": lambda net, y: y / y.std((1, 2, 3), keepdim=True),
        "of Fourier transforms": lambda net, y: torch.fft.ifft2(torch.fft.fft2(y).tanh()).real,
        "with a sparse product": lambda net, y: (
            torch.sparse.mm(torch.eye(3).to(y).to_sparse(), y.transpose(0, 1).flatten(1))
            .view(3, len(y), *y.shape[2:])
            .transpose(0, 1)
        ),
        "with a hook on a gradient": lambda net, y: (
            y.register_hook(lambda g: 3 * g) if y.requires_grad else None,
            y.tanh(),
        )[1],
        "of infinite slope": lambda net, y: y.abs().sqrt(),
        "of huge factors": lambda net, y: y * 1e18,
        "of tiny factors": lambda net, y: y * 1e-30,
        "of einsum and roll": lambda net, y: torch.einsum("nchw,ck->nkhw", y.roll(1, -1).tanh(),
                                                         torch.ones(3, 3).to(y)),
        "with vmap inside": lambda net, y: torch.vmap(torch.tanh)(y),
        "with autocast inside": lambda net, y: _autocast(y),
    }.items()
}  # fmt: skip


def _autocast(y: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=True):
        return y.tanh()


def _counting_value(network: Habit, y: Tensor) -> Tensor:
    network.calls += 1
    return y.tanh() * network.calls


# Habits that leave no right answer, or no gradient.
REFUSED: dict[str, Callable[[], nn.Module]] = {
    name: lambda between=between: Habit(between)
    for name, between in {
        "that draws": lambda net, y: y + torch.rand_like(y),
        "that seeds, then draws": _seeds,
        "with dropout that never ends": lambda net, y: nn.functional.dropout(y, 0.5, True),
        "that draws from Python": lambda net, y: y * random.random(),
        "that draws from NumPy": lambda net, y: y * float(np.random.rand()),
        "of its number of calls": _counting_value,
        "of NaN": lambda net, y: y * float("nan"),
        "of None": lambda net, y: None,
        "of complex features": lambda net, y: y * 1j,
        "of other sizes": lambda net, y: y[..., :-1],
        "without features": lambda net, y: y[:, :0],
    }.items()
}
REFUSED["that returns a tuple"] = Tuple
RAISED = (
    KeyError, IndexError, RuntimeError, AttributeError, RecursionError, StopIteration, OSError,
    NotImplementedError, AssertionError, MemoryError, ZeroDivisionError,
)  # fmt: skip
