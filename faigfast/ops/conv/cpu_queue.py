"""Queue: path convolutions in C++ that run one after the other, in float32 on a CPU."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.cpu.allocator import empty
from faigfast.ops.conv.cpu_weights import Taps, packed, shape_of_sums, taps_of
from faigfast.ops.conv.operation import SAME, Geometry
from faigfast.ops.path_values import address

# Activations that the kernels apply, forward and backward.
FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky"}
FUSED_BACKWARD = {**FUSED, "prelu": "leaky"}  # prelu in backward alone


class Queue:
    """Convolutions that Python prepares first, and that then run in the same order.

    A kernel evicts Python's data from the caches: preparing many in a row takes a third of the time
    of preparing each between two kernels. Results hold no values until `run`.
    """

    def __init__(self) -> None:
        self._tasks: list[Any] = []
        self._held: list[Any] = []  # tensors whose addresses the tasks have
        self._free: dict[tuple[int, ...], list[Tensor]] = {}
        self._idle = 0  # numbers in the free tensors

    def free(self, part: Tensor) -> None:
        """Reuse the memory of a tensor for later results of the same shape.

        The tensor is a result of this queue, and only tasks queued before this call read it.
        """
        self._free.setdefault(tuple(part.shape), []).append(part)
        self._idle += part.numel()

    def run(self) -> None:
        """Run all tasks, and return free tensors to the allocator."""
        if self._tasks:
            _extension.module.run(self._tasks)  # type: ignore[union-attr]
        self._idle = 0
        for part in (self._tasks, self._held, self._free):
            part.clear()

    def convolve(
        self, pixels: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
        alpha: Tensor, residual: Tensor | None, activation: str, slope: float, scale: float,
        shuffle: int, geometry: Geometry = SAME,
    ) -> Tensor:  # fmt: skip
        """Queue y [P, M, H, W, O] of a path convolution with an activation of `FUSED`.

        Parameters
        ----------
        pixels : Tensor
            x as `pitched` gives it, [P, M, H, W, C].
        residual : Tensor, optional
            As `dense` gives it.
        """
        outputs, taps = _outputs(w0, geometry), taps_of(w0, geometry)
        stride, padding, dilation, transposed, extra, _ = geometry
        reach = [d * (k - 1) for d, k in zip(dilation, w0.shape[2:], strict=True)]
        sides = zip(pixels.shape[2:4], padding, reach, stride, extra, strict=True)
        height, width = (
            (n - 1) * s - 2 * p + r + e + 1 if transposed else (n + 2 * p - r - 1) // s + 1
            for n, p, r, s, e in sides
        )
        y = self._result(
            len(alpha), pixels.shape[1], height * shuffle, width * shuffle, outputs // shuffle**2
        )
        convolution = self._path_convolution(
            pixels, (height, width), outputs, taps, geometry,
            packed(w0, dw, taps, shuffle, rotated=False), alpha, shuffle, activation, slope,
            scale, b0, db,
        )  # fmt: skip
        task = _extension.module.forward(  # type: ignore[union-attr]
            convolution, x=address(pixels), x_point=_point_stride(pixels),
            x_pixel=_pixel_stride(pixels), residual=address(residual),
            residual_point=0 if residual is None else _point_stride(residual),
            y=address(y),
        )  # fmt: skip
        self._add(task, pixels, residual, y)
        return y

    def convolve_backward(
        self, gy: Tensor, saved: Tensor | None, pixels: Tensor, w0: Tensor, dw: Tensor | None,
        s0: Tensor | None, ds: Tensor | None, alpha: Tensor, more: Tensor | None, images: int,
        needs: Sequence[bool], activation: str, slope: float, scale: float, shuffle: int,
        input_activation: tuple[str, float] = ("none", 0.0), geometry: Geometry = SAME,
    ) -> list[Tensor | None]:  # fmt: skip
        """Queue gx [P, M, H, W, C], gw, gb and gs [N, O], each where it is needed.

        Parameters
        ----------
        gy, saved : Tensor
            [P, M, H, W, O], dense; saved is the activation's input or output, None without one.
        pixels, more : Tensor
            x, and a tensor that is added to gx, both as `pitched` gives them.
        input_activation : (str, float)
            Activation of `FUSED` and slope that gave x: gx is the gradient at its input.

        Returns
        -------
        list of Tensor or None
            gw as `faigfast.ops.conv.cpu_weights.as_weights` takes it; [N, *w] for a 3×3.
        """
        taps = taps_of(w0, geometry)
        gx = self._result(len(alpha), *pixels.shape[1:]) if needs[0] else None
        weights = packed(w0, dw, taps, shuffle, rotated=True) if needs[0] else (None, None)
        size, outputs = [n // shuffle for n in gy.shape[2:4]], _outputs(w0, geometry)
        convolution = self._path_convolution(
            pixels, size, outputs, taps, geometry, weights, alpha, shuffle, activation, slope,
            scale, s0=s0, ds=ds,
        )  # fmt: skip
        shapes = shape_of_sums(w0, taps), (outputs,), (outputs,)
        gw, gb, gs = (
            empty(images, *shape) if need else None
            for shape, need in zip(shapes, needs[1:], strict=True)
        )
        task = _extension.module.backward(  # type: ignore[union-attr]
            convolution, gy=address(gy), saved=address(saved), x=address(pixels),
            x_point=_point_stride(pixels), x_pixel=_pixel_stride(pixels), images=images,
            more=address(more), more_pixel=0 if more is None else _pixel_stride(more),
            before=FUSED[input_activation[0]], before_slope=input_activation[1], gx=address(gx),
            gw=address(gw), gb=address(gb), gs=address(gs),
        )  # fmt: skip
        gradients = gx, gw, gb, gs
        self._add(task, gy, saved, pixels, more, *gradients)
        return list(gradients)

    def _result(self, *shape: int) -> Tensor:
        """Memory for a result. Call it before a task's other parts: it may run earlier tasks."""
        free_tensors = self._free.get(shape)
        if free_tensors:
            self._idle -= math.prod(shape)
            return free_tensors.pop()
        if self._idle >= math.prod(shape):  # of other shapes: the allocator can reuse their memory
            self.run()
        return empty(*shape)

    def _add(self, task: Any, *held: Tensor | None) -> None:
        self._tasks.append(task)
        self._held += held

    def _path_convolution(
        self, x: Tensor, size: Sequence[int], outputs: int, taps: Taps, geometry: Geometry,
        weights: tuple[Tensor | None, Tensor | None], alpha: Tensor, shuffle: int,
        activation: str, slope: float, scale: float,
        b0: Tensor | None = None, db: Tensor | None = None,
        s0: Tensor | None = None, ds: Tensor | None = None,
    ) -> Any:  # fmt: skip
        """Describe a convolution to the extension."""
        alpha = alpha.contiguous()
        b0, db, s0, ds = (None if part is None else part.contiguous() for part in (b0, db, s0, ds))
        self._held += *weights, alpha, b0, db, s0, ds
        kind, grid = taps
        stride, padding, dilation, transposed, _, groups = geometry
        kernel = _kernel_geometry(
            kind, grid, tuple(padding), tuple(stride), tuple(dilation), groups, transposed
        )
        return _extension.module.PathConvolution(  # type: ignore[union-attr]
            sizes=[len(alpha), x.shape[1], *size, x.shape[4], outputs],
            x_size=x.shape[2:4],
            kernel=kernel,
            shuffle=shuffle,
            alpha=address(alpha),
            w0=address(weights[0]),
            dw=address(weights[1]),
            b0=address(b0),
            db=address(db),
            s0=address(s0),
            ds=address(ds),
            shared_slope=s0 is not None and s0.numel() == 1,
            activation=FUSED_BACKWARD[activation],
            slope=slope,
            scale=scale,
            threads=torch.get_num_threads(),
        )  # fmt: skip


def _outputs(w0: Tensor, geometry: Geometry) -> int:
    """Channels of y before the shuffle."""
    transposed, groups = geometry[3], geometry[5]
    return w0.shape[1] * groups if transposed else w0.shape[0]


def _point_stride(part: Tensor) -> int:
    """Elements from one point to the next; 0 where all points share memory."""
    return part.stride(0) if part.shape[0] > 1 else 0


def _pixel_stride(part: Tensor) -> int:
    """Elements from one pixel to the next, in a tensor from `pitched`."""
    return part.stride(3) if part.shape[3] > 1 else part.shape[4]


@cache
def _kernel_geometry(
    kind: str, size: tuple[int, ...], padding: tuple[int, ...], stride: tuple[int, ...],
    dilation: tuple[int, ...], groups: int, transposed: bool,
) -> Any:  # fmt: skip
    return _extension.module.Kernel(  # type: ignore[union-attr]
        kind=kind, size=size, padding=padding, stride=stride, dilation=dilation, groups=groups,
        transposed=transposed,
    )  # fmt: skip
