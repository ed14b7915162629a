"""A layer of 64 channels at some points of the line, with its passes by every contender."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

import faigfast.engine.op_rules  # noqa: F401  all kernels are in the table
from faigfast.backend.catalogue import backends
from faigfast.backend.gpu import extension
from faigfast.ops.conv.operation import conv, conv_backward
from faigfast.ops.conv.spec import ConvSpec
from faigfast.ops.registry import Use, choose, in_use, using

from .outcomes import NotRunError

PASSES = ("forward", "input gradient", "weight gradient")
# Points, images, height and width: 8×256² and 64×48² samples of pixels.
SHAPES = {"8×256²": (8, 1, 256, 256), "64×48²": (4, 16, 48, 48)}
BOUND = 5e-3  # relative L2 error of fp16 against float64
BACKENDS = {"torch": "", "triton": "triton", "cuda": "cuda", "hopper": "cuda"}
_aten = torch.ops.aten


class PathLayer:
    """A 3×3 convolution with bias and ReLU, its input and its upstream gradient.

    Parameters
    ----------
    shape : (int, int, int, int)
        Points P, images N, height, width.
    seed : int
        Of all values.
    channels : int
        Of input and output.
    device, dtype
        Of images; weights are float32, as in a call.
    """

    def __init__(
        self,
        shape: Sequence[int],
        seed: int,
        channels: int = 64,
        device: str = "cuda",
        dtype: torch.dtype = torch.float16,
    ) -> None:
        points, self.images, height, width = shape
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*sizes: int, gain: float = 1.0) -> Tensor:
            return gain * torch.randn(sizes, generator=generator, device=device)

        gain = (9 * channels) ** -0.5
        self.spec = ConvSpec(activation="relu")
        pixels = (points, self.images, height, width, channels)
        self.x, self.gy = (normal(*pixels).to(dtype).movedim(-1, 2) for _ in range(2))
        kernel = (channels, 3, 3, channels)
        self.w0, self.dw = (normal(*kernel, gain=g).movedim(-1, 1) for g in (gain, 0.1 * gain))
        self.b0, self.db = normal(channels), normal(channels, gain=0.1)
        self.alpha = torch.linspace(0.1, 0.9, points, device=device)
        self.y = self.run(PASSES[0], "torch")[0]
        self.flops = 2 * 9 * channels**2 * self.x[:, :, 0].numel()
        self.bytes = 2 * self.x.numel() * self.x.element_size()

    def backward_arguments(self, part: str) -> tuple[Any, ...]:
        """Arguments of `conv_backward`; the weight's pass computes the bias's gradient too."""
        weight = part == PASSES[2]
        needs = [not weight, weight, weight, False]
        line = self.w0, self.dw, self.b0, None, None, self.alpha
        return (self.gy, self.x, self.y, *line, self.images, needs, *self.spec)

    def forward_arguments(self) -> tuple[Any, ...]:
        """Arguments of `conv`."""
        line = self.w0, self.dw, self.b0, self.db, None, None, self.alpha
        return (self.x, *line, None, None, None, None, *self.spec)

    def run(self, part: str, who: str) -> list[Tensor]:
        """Compute one pass; give its results, without empty ones."""
        if who == "cudnn":
            return self._cudnn(part)
        with torch.no_grad(), serving(who):
            if part == PASSES[0]:
                return [conv(*self.forward_arguments())[0]]
            results = conv_backward(*self.backward_arguments(part))
        return [result for result in results if result.numel()]

    def served(self, part: str, who: str) -> None:
        """Check that the contender's own kernel serves the pass.

        Raises
        ------
        NotRunError
            If another kernel does.
        """
        if who in ("cudnn", "torch"):
            return
        with serving(who):
            operation, arguments = (
                ("conv", self.forward_arguments())
                if part == PASSES[0]
                else ("conv_backward", self.backward_arguments(part))
            )
            name = choose(operation, *arguments).name
            refusals = list(in_use().refused)
        if not name.startswith(who):
            raise NotRunError(refusals[-1] if refusals else f"the kernel {name} serves it")

    def _cudnn(self, part: str) -> list[Tensor]:
        """One call for all samples with the weights of one point: less work than the line needs."""
        x, gy = (value.flatten(0, 1) for value in (self.x, self.gy))
        weight = self.w0.to(x.dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        geometry = self.spec.geometry
        if part == PASSES[0]:
            bias = self.b0.to(x.dtype)
            return [torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)]
        mask = [part == PASSES[1], part == PASSES[2], False]
        results = _aten.convolution_backward(gy, x, weight, None, *geometry, mask)
        return [result for result in results if result is not None]

    def error(self, part: str, who: str) -> float:
        """Worst relative L2 error of a pass of the first point and image against float64."""
        small = self.first()
        pairs = zip(small.run(part, who), small.doubled().run(part, "torch"), strict=True)
        return max(relative_error(own, exact) for own, exact in pairs)

    def first(self) -> "PathLayer":
        """Give the layer with the first point and image."""
        part = object.__new__(PathLayer)
        part.__dict__ |= self.__dict__ | {"images": 1, "alpha": self.alpha[:1]}
        for name in ("x", "gy", "y"):
            setattr(part, name, getattr(self, name)[:1, :1])
        return part

    def doubled(self) -> "PathLayer":
        """Give the layer in float64."""
        part = object.__new__(PathLayer)
        part.__dict__ |= {
            name: value.double() if isinstance(value, Tensor) else value
            for name, value in self.__dict__.items()
        }
        return part


def relative_error(own: Tensor, exact: Tensor) -> float:
    """‖own − exact‖ / ‖exact‖; NaN stays NaN."""
    return float((own.double() - exact.double()).norm() / exact.double().norm())


@contextmanager
def serving(who: str) -> Iterator[None]:
    """Let a contender's kernels serve operations; only `hopper` has its own convolution."""
    before = os.environ.pop("FAIGFAST_HOPPER", None)
    if who == "hopper":
        os.environ["FAIGFAST_HOPPER"] = "1"
    try:
        with using(Use(BACKENDS[who])):
            yield
    finally:
        os.environ.pop("FAIGFAST_HOPPER", None)
        if before is not None:
            os.environ["FAIGFAST_HOPPER"] = before


def poison(size: int = 1 << 28) -> None:
    """Leave NaN in memory that the next tensors get, so that what is not written shows."""
    torch.full((size,), float("nan"), device="cuda", dtype=torch.float16)


def require(who: str) -> None:
    """Check that a contender's backend serves this machine.

    Raises
    ------
    NotRunError
        With the reason of the backend.
    """
    if who == "hopper" and (why := extension.problem()):
        raise NotRunError(why)
    name = BACKENDS.get(who, "")
    if name and not backends()[name].available:
        raise NotRunError(backends()[name].reason)
