"""Layers at some points of the line, to measure kernels with."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import faigfast.engine.op_rules  # noqa: F401  all kernels are in the table
from faigfast.ops.conv.operation import conv, conv_backward
from faigfast.ops.conv.spec import ConvSpec
from faigfast.ops.linear.operation import linear, linear_backward
from faigfast.ops.registry import Use, choose, using

PASSES = ("forward", "input gradient", "weight gradient")


class ConvolutionLayer:
    """A convolution at some points of the line, with bias and ReLU.

    Parameters
    ----------
    channels, size, points : int
        Size of the input; one image of size² pixels at each point.
    device, dtype
        Device and type of all tensors.
    mode : str
        Multiplication of float32; see `faigfast.ops.registry.Use`.
    outputs : int, optional
        Output channels; None: as many as input channels.
    kernel, stride, dilation, groups, transposed
        As in `torch.convolution`; with stride 1 the padding keeps the size.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        points: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        mode: str = "ieee",
        *,
        outputs: int | None = None,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        transposed: bool = False,
    ) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        self.mode = mode
        padding = dilation * (kernel - 1) // 2
        self.spec = ConvSpec(
            [stride] * 2, [padding] * 2, [dilation] * 2, transposed, [0, 0], groups, "relu"
        )
        outputs = outputs or channels
        first, second = (channels, outputs) if transposed else (outputs, channels)
        shape = first, kernel, kernel, second // groups
        taps = kernel**2 * channels // groups
        self.x = normal(points, 1, size, size, channels).movedim(-1, 2)
        self.w0 = taps**-0.5 * normal(*shape).movedim(-1, 1)
        self.dw = 0.1 * taps**-0.5 * normal(*shape).movedim(-1, 1)
        self.b0, self.db = normal(outputs), normal(outputs)
        self.alpha = torch.linspace(0.1, 0.9, points).to(device, dtype)
        self.y = self.forward("")
        self.gy = normal(*self.y.movedim(2, -1).shape).movedim(-1, 2)
        self.flops = (
            2 * taps * outputs * points * (size**2 if transposed else self.y[0, 0, 0].numel())
        )

    @property
    def forward_arguments(self) -> tuple[Any, ...]:
        """Arguments of `conv`."""
        return (
            self.x, self.w0, self.dw, self.b0, self.db, None, None, self.alpha, None, None, None,
            None, *self.spec,
        )  # fmt: skip

    def backward_arguments(self, needs: Sequence[bool]) -> tuple[Any, ...]:
        """Give the arguments of `conv_backward`."""
        return (
            self.gy, self.x, self.y, self.w0, self.dw, self.b0, None, None, self.alpha, 1,
            list(needs), *self.spec,
        )  # fmt: skip

    def forward(self, backend: str) -> Tensor:
        """Compute y by a backend's kernels; "" is plain PyTorch."""
        with torch.no_grad(), using(Use(backend, mode=self.mode)):
            return conv(*self.forward_arguments)[0]

    def backward(self, backend: str, needs: Sequence[bool]) -> Sequence[Tensor]:
        """Compute gradients by a backend's kernels."""
        with using(Use(backend, mode=self.mode)):
            return conv_backward(*self.backward_arguments(needs))

    def run(self, part: str, backend: str) -> Sequence[Tensor]:
        """Run one pass; the weight's pass computes the bias's gradient too."""
        if part == PASSES[0]:
            return [self.forward(backend)]
        of_weight = part == PASSES[2]
        return self.backward(backend, [not of_weight, of_weight, of_weight, False])

    def kernel(self, part: str, backend: str) -> str:
        """Name of the kernel that would run."""
        with using(Use(backend, mode=self.mode)):
            if part == PASSES[0]:
                return choose("conv", *self.forward_arguments).name
            return choose("conv_backward", *self.backward_arguments([True] * 3 + [False])).name

    def error(self, backend: str) -> float:
        """Worst relative L2 error of one point's results against float64, on a CPU."""
        one_point = copy.copy(self)
        one_point.x, one_point.gy, one_point.y, one_point.alpha = (
            self.x[:1],
            self.gy[:1],
            self.y[:1],
            self.alpha[:1],
        )
        double = copy.copy(one_point)
        for name, value in vars(one_point).items():
            if isinstance(value, Tensor):
                setattr(double, name, value.cpu().double())
        own = [
            one_point.forward(backend),
            *one_point.backward(backend, [True, True, True, False])[:3],
        ]
        exact = [double.forward(""), *double.backward("", [True, True, True, False])[:3]]
        return max(
            float((a.cpu().double() - b).norm() / b.norm()) for a, b in zip(own, exact, strict=True)
        )


class LinearLayer:
    """A linear layer at some points of the line, with one image of some rows at each.

    Parameters
    ----------
    features, rows, points : int
        Size of the input.
    outputs : int
        Output features.
    """

    def __init__(self, features: int, rows: int, points: int, outputs: int) -> None:
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        self.x, self.gy = normal(points, 1, rows, features), normal(points, 1, rows, outputs)
        self.w0 = features**-0.5 * normal(outputs, features)
        self.dw = 0.1 * self.w0.flip(0)
        self.b0, self.db = normal(outputs), normal(outputs)
        self.alpha = torch.linspace(0.1, 0.9, points)
        self.flops = 2 * features * outputs * rows * points

    def run(self, part: str, backend: str) -> Sequence[Tensor]:
        """Run one pass, as `ConvolutionLayer.run`."""
        with torch.no_grad(), using(Use(backend)):
            if part == PASSES[0]:
                parameters = self.w0, self.dw, self.b0, self.db, self.alpha
                return [linear(self.x, *parameters, None, None)]
            of_weight = part == PASSES[2]
            weights = self.w0, self.dw, self.alpha
            return linear_backward(self.gy, self.x, *weights, [not of_weight, of_weight, of_weight])

    def kernel(self, part: str, backend: str) -> str:
        """Name of the kernel that would run."""
        with using(Use(backend)):
            return choose(
                "linear", self.x, self.w0, self.dw, self.b0, self.db, self.alpha, None, None
            ).name

    def error(self, backend: str) -> float:
        """Worst relative L2 error of all results against float64."""
        double = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(double, name, value.double())
        worst = 0.0
        for part in PASSES:
            for own, exact in zip(self.run(part, backend), double.run(part, ""), strict=True):
                if exact.numel():
                    worst = max(worst, float((own.double() - exact).norm() / exact.norm()))
        return worst
