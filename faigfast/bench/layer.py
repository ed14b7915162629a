"""One convolution at some points of the line, as kernels are measured by it."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from faigfast.ops.conv import conv, conv_backward
from faigfast.ops.table import Use, choose, using

PASSES = ("forward", "input gradient", "weight gradient")
GEOMETRY: tuple[Any, ...] = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)


class Layer:
    """A square 3×3 layer at some points of the line, with bias and ReLU.

    Parameters
    ----------
    channels, size, points : int
        Of the layer; one image of size² pixels at each point.
    device, dtype
        Of all its tensors.
    mode : str
        How float32 is multiplied; see `faigfast.ops.table.Use`.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        points: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        mode: str = "ieee",
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        def image() -> Tensor:
            return normal(points, 1, size, size, channels).movedim(-1, 2)

        self.mode = mode
        gain = (9 * channels) ** -0.5
        self.x, self.gy = image(), image()
        self.w0 = gain * normal(channels, 3, 3, channels).movedim(-1, 1)
        self.dw = 0.1 * gain * normal(channels, 3, 3, channels).movedim(-1, 1)
        self.b0, self.db = normal(channels), normal(channels)
        self.alpha = torch.linspace(0.1, 0.9, points).to(device, dtype)
        self.flops = 18 * channels**2 * size**2 * points
        self.y = self.forward("")

    @property
    def forward_arguments(self) -> tuple[Any, ...]:
        """Arguments of `conv`."""
        return (
            self.x, self.w0, self.dw, self.b0, self.db, None, None, self.alpha, None, None, None,
            None, *GEOMETRY, "relu", 0.0, 1.0, 1,
        )  # fmt: skip

    def backward_arguments(self, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Give the arguments of `conv_backward`."""
        return (
            self.gy, self.x, self.y, self.w0, self.dw, self.b0, None, None, self.alpha, None, 1,
            list(needs), *GEOMETRY, "relu", 0.0, 1.0, 1,
        )  # fmt: skip

    def forward(self, backend: str) -> Tensor:
        """Y by a backend's kernels; "" is plain PyTorch."""
        with torch.no_grad(), using(Use(backend, mode=self.mode)):
            return conv(*self.forward_arguments)[0]

    def backward(self, backend: str, needs: Sequence[bool]) -> Sequence[Tensor]:
        """Gradients by a backend's kernels."""
        with using(Use(backend, mode=self.mode)):
            return conv_backward(*self.backward_arguments(needs))

    def run(self, part: str, backend: str) -> Sequence[Tensor]:
        """One pass, with what belongs to it: the bias's gradient is taken with the weight's."""
        if part == PASSES[0]:
            return [self.forward(backend)]
        both = part == PASSES[2]
        return self.backward(backend, [not both, both, both, False])

    def kernel(self, part: str, backend: str) -> str:
        """Name of the kernel that would run."""
        with using(Use(backend, mode=self.mode)):
            if part == PASSES[0]:
                return choose("conv", *self.forward_arguments).name
            return choose("conv_backward", *self.backward_arguments([True] * 3 + [False])).name

    def error(self, backend: str) -> float:
        """Worst relative L2 error of one point's results against float64, on a CPU."""
        one = copy.copy(self)
        one.x, one.gy, one.y, one.alpha = self.x[:1], self.gy[:1], self.y[:1], self.alpha[:1]
        double = copy.copy(one)
        for name, value in vars(one).items():
            if isinstance(value, Tensor):
                setattr(double, name, value.cpu().double())
        own = [one.forward(backend), *one.backward(backend, [True, True, True, False])[:3]]
        exact = [double.forward(""), *double.backward("", [True, True, True, False])[:3]]
        return max(
            float((a.cpu().double() - b).norm() / b.norm()) for a, b in zip(own, exact, strict=True)
        )
