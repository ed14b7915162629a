"""Call: the arguments of one attribution, and mutations that make them malformed or unusual."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from oracle import Loss, squared_error
from torch import Tensor, nn

Make = Callable[[], nn.Module]
Meant = dict[str, list[tuple[Tensor, Tensor]]]
ANY = (ValueError, TypeError, FileNotFoundError, ImportError, FloatingPointError)


@dataclass
class Call:
    """Arguments of one attribution, with the images and the loss that they mean.

    Attributes
    ----------
    baseline, target, batch, options
        As given to the product.
    meant : dict of str to list of (Tensor, Tensor)
        Plain images [1, C, *spatial] with their ground truths, by degradation.
    loss : callable
        The objective, for the oracle.
    layers : set of str, optional
        Layers that `parameters` selects; None: all.
    networks : tuple of nn.Module, optional
        Plain networks for the oracle; None: the given ones.
    watched : list of nn.Module
        Other modules that must stay as they are.
    contexts : list of callable
        Make the context managers around the call.
    draws : bool
        Whether other threads draw random numbers meanwhile.
    entry : callable, optional
        Runs the call in a way of its own; takes the function that does so.
    """

    baseline: Any
    target: Any
    batch: Any
    options: dict[str, Any]
    meant: Meant
    loss: Loss = squared_error
    layers: set[str] | None = None
    networks: tuple[nn.Module, nn.Module] | None = None
    watched: list[nn.Module] = field(default_factory=list)
    contexts: list[Callable[[], AbstractContextManager[Any]]] = field(default_factory=list)
    draws: bool = False
    entry: Callable[[Callable[[], Any]], Any] | None = None

    @property
    def images(self) -> tuple[Tensor, Tensor]:
        """Images [N, ...] and ground truth of the first degradation."""
        x, gt = zip(*next(iter(self.meant.values())), strict=True)
        return torch.cat(x), torch.cat(gt)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images that the base networks take."""
        return self.images[0].dtype

    def give(self, x: Any, gt: Any) -> None:
        """Take x and gt as the batch; images and ground truths that are meant stay the same."""
        self.batch = (x, gt)

    def mean(self, x: Tensor, gt: Tensor) -> None:
        """Take plain x and gt as the batch and as its meaning."""
        self.batch, self.meant = (x, gt), {"lq": split_images(x, gt)}


@dataclass(frozen=True)
class Mutation:
    """One change that makes a call malformed or unusual.

    Attributes
    ----------
    name : str
        In words.
    change : callable
        Changes a call in place.
    words : str
        Regular expression; an error names what was changed by one of these words.
    refused : bool
        Whether scores would be wrong whatever they are.
    alone : bool
        Whether the mutation goes with no other one.
    own : tuple of type
        Exceptions of the caller's own code, which may pass through.
    """

    name: str
    change: Callable[[Call, Random], object]
    words: str
    refused: bool = False
    alone: bool = False
    own: tuple[type[BaseException], ...] = ()


def randomise(network: nn.Module, random: Random) -> nn.Module:
    """Draw the floating tensors of a network at random, with positive variances."""
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point() and value.numel():
                noise = torch.randn(value.shape, generator=generator).to(value)
                gain = 1.4 * value[0].numel() ** -0.5 if value.ndim > 2 else 0.2
                value.copy_(0.5 + noise.abs() if key.endswith("_var") else gain * noise)
    return network.eval()


def pair(make: Make, dtype: torch.dtype, random: Random) -> tuple[nn.Module, nn.Module]:
    """Make a baseline and a target."""
    baseline, target = (randomise(make().to(dtype), random) for _ in range(2))
    return baseline, target


def draw_images(
    random: Random, dtype: torch.dtype, shape: tuple[int, ...] = (2, 2, 6, 5)
) -> tuple[Tensor, Tensor]:
    """Draw images and a ground truth of one shape."""
    generator = torch.Generator().manual_seed(random.randrange(2**31))
    x, gt = (torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2))
    return x, gt


def split_images(x: Tensor, gt: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split images [N, ...] and ground truths into copies of one image [1, ...]."""
    parts = (part.detach().clone().split(1) for part in (x, gt))
    return list(zip(*parts, strict=True))


def smooth() -> nn.Module:
    """Two convolutions around tanh."""
    return nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 3, padding=1))


def kinked() -> nn.Module:
    """Three convolutions around ReLU."""
    layers = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 3, padding=1)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def base_call(random: Random) -> Call:
    """Draw a call without any fault."""
    dtype = random.choice([torch.float32, torch.float64])
    networks = pair(random.choice([smooth, kinked]), dtype, random)
    x, gt = draw_images(random, dtype)
    call = Call(*networks, (x, gt), {"steps": random.randint(2, 4)}, {})
    backends = ["auto", "auto", "torch", "reference", *["cpu"] * (dtype == torch.float32)]
    if (backend := random.choice(backends)) != "auto":
        call.options["backend"] = backend
    call.mean(x, gt)
    return call
