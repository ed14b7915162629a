"""Pointwise operations, to measure kernels with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from faigfast.backend.gpu.cuda_launch import at_all_points
from faigfast.ops.conv.spec import ConvSpec
from faigfast.ops.path_values import on_line
from faigfast.ops.registry import Use, choose, using


@dataclass(frozen=True)
class PointwiseOperation:
    """An operation with its arguments.

    Parameters
    ----------
    operation : str
        Name in the table of operations.
    arguments : sequence
        Its arguments.
    bytes : int
        Least bytes to read and write.
    bound : float
        Largest relative L2 error.
    """

    operation: str
    arguments: Sequence[Any]
    bytes: int
    bound: float
    flops: ClassVar[int] = 0  # negligible beside the bytes

    def kernel(self, backend: str) -> str:
        """Name of the kernel that would run."""
        with using(Use(backend)):
            return choose(self.operation, *self.arguments).name

    def run(self, backend: str) -> list[Tensor]:
        """Compute the results by a backend's kernel, without empty tensors."""
        with using(Use(backend)):
            results = choose(self.operation, *self.arguments).run(*self.arguments)
        results = results if isinstance(results, tuple) else (results,)
        return [result for result in results if result.numel()]

    def error(self, backend: str) -> float:
        """Worst relative L2 error of a result against float64, on the same device."""
        exact = [a.double() if _is_float(a) else a for a in self.arguments]
        with using(Use()):
            expected = choose(self.operation, *exact).run(*exact)
        parts = expected if isinstance(expected, tuple) else (expected,)
        pairs = zip(self.run(backend), (p for p in parts if p.numel()), strict=True)
        return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs)


@dataclass(frozen=True)
class PathWeights(PointwiseOperation):
    """γ(α) at all points; it has no entry in the table, but is part of other operations."""

    def kernel(self, backend: str) -> str:
        """Name of the kernel that would run."""
        return {"": "plain", "cuda": "path_weights"}.get(backend, "plain")

    def run(self, backend: str) -> list[Tensor]:
        """Compute by torch point by point, or by one kernel."""
        w0, dw, alpha = self.arguments
        if backend == "cuda":
            return [at_all_points(w0, dw, alpha, torch.float16)]
        return [torch.stack([on_line(w0, dw, a).half() for a in alpha.unbind()])]

    def error(self, backend: str) -> float:
        """Relative L2 error against float64."""
        w0, dw, alpha = (part.double() for part in self.arguments)
        exact = torch.stack([on_line(w0, dw, a) for a in alpha.unbind()])
        (weights,) = self.run(backend)
        return float((weights.double() - exact).norm() / exact.norm())


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def pointwise_operations(
    device: torch.device | str, shrink: int = 1
) -> dict[str, Callable[[], PointwiseOperation]]:
    """Give functions that make the operations, by name.

    Parameters
    ----------
    device : torch.device or str
        Device of all tensors.
    shrink : int
        Divides heights, widths and channels.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    wide, size, channels = 512 // shrink, 256 // shrink, 64 // shrink
    return {
        f"weights at 8 points, {wide}×{wide}×3×3, fp32 to fp16": partial(_weights, normal, wide),
        f"mask and bias gradient, {channels} channels, 8×{size}², fp16": partial(
            _mask, normal, size, channels
        ),
        f"loss gradient, 8×4×3×{wide}², fp16": partial(_loss, normal, wide),
        f"score reduction, 16×{wide}×{wide}×3×3, fp32": partial(_scores, normal, wide),
    }


def _weights(normal: Callable[..., Tensor], width: int) -> PointwiseOperation:
    w0, dw = (normal(width, 3, 3, width).movedim(-1, 1) for _ in range(2))
    alpha = torch.linspace(0.1, 0.9, 8).to(w0)
    return PathWeights("", (w0, dw, alpha), w0.numel() * (8 + 8 * 2), 1e-3)


def _mask(normal: Callable[..., Tensor], size: int, channels: int) -> PointwiseOperation:
    gy, x, y = (
        normal(8, 1, size, size, channels, dtype=torch.float16).movedim(-1, 2) for _ in range(3)
    )
    w = normal(channels, 3, 3, channels, dtype=torch.float16).movedim(-1, 1)
    b = normal(channels, dtype=torch.float16)
    arguments = (
        gy, x, y.relu(), w, 0.1 * w, b, None, None, torch.linspace(0.1, 0.9, 8).to(gy), 1,
        [False, False, True, False], *ConvSpec(activation="relu"),
    )  # fmt: skip
    moved_bytes = 3 * gy.numel() * gy.element_size()
    return PointwiseOperation("conv_backward", arguments, moved_bytes, 5e-3)


def _loss(normal: Callable[..., Tensor], size: int) -> PointwiseOperation:
    y, gt = (normal(*images, 3 * size**2, dtype=torch.float16) for images in ((8, 4), (4,)))
    moved_bytes = (2 * y.numel() + gt.numel()) * 2
    return PointwiseOperation("squared_error_backward", (y, gt, normal(8, 4)), moved_bytes, 5e-3)


def _scores(normal: Callable[..., Tensor], width: int) -> PointwiseOperation:
    total = normal(16, width, 3, 3, width).movedim(-1, 2)
    delta = normal(width, 3, 3, width).movedim(-1, 1)
    moved_bytes = (total.numel() + delta.numel()) * 4
    return PointwiseOperation("score_reduction", (total, delta), moved_bytes, 1e-5)
