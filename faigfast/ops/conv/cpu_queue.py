"""Queue: path convolutions in C++ that run one after the other, in float32 on a CPU."""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.cpu.allocator import empty
from faigfast.integration.cells import Cell
from faigfast.ops.averaged_activation.cpu import task as averaged_task
from faigfast.ops.averaged_activation.operation import flattened
from faigfast.ops.conv.cpu_weights import (
    Taps,
    multiplies_bf16,
    packed,
    shape_of_sums,
    taps_of,
)
from faigfast.ops.conv.spec import ConvSpec, PathParameters
from faigfast.ops.path_values import address

# Activations that the kernels apply, forward and backward.
FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky"}
# In backward alone: prelu, and factors from memory in place of the derivative.
FUSED_BACKWARD = {**FUSED, "prelu": "leaky", "factor": "factor"}


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
        self, pixels: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
    ) -> Tensor:
        """Queue y [P, M, H, W, O] of a path convolution with an activation of `FUSED`.

        Parameters
        ----------
        pixels : Tensor
            x as `pitched` gives it, [P, M, H, W, C].
        residual : Tensor, optional
            As `dense` gives it.
        """
        w0, shuffle = parameters.w0, spec.shuffle
        outputs, taps = _outputs(w0, spec), taps_of(w0, spec)
        stride, padding, dilation, transposed, extra, _ = spec.geometry
        reach = [d * (k - 1) for d, k in zip(dilation, w0.shape[2:], strict=True)]
        sides = zip(pixels.shape[2:4], padding, reach, stride, extra, strict=True)
        height, width = (
            (n - 1) * s - 2 * p + r + e + 1 if transposed else (n + 2 * p - r - 1) // s + 1
            for n, p, r, s, e in sides
        )
        y = self._result(
            len(parameters.alpha), pixels.shape[1], height * shuffle, width * shuffle,
            outputs // shuffle**2,
        )  # fmt: skip
        convolution = self._path_convolution(
            pixels, (height, width), outputs, taps,
            packed(w0, parameters.dw, taps, shuffle, "forward"), parameters.without_slope(), spec,
            bf16=False,
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
        self, gy: Tensor, saved: Tensor | None, pixels: Tensor, parameters: PathParameters,
        more: Tensor | None, images: int, needs: Sequence[bool], spec: ConvSpec,
        input_activation: tuple[str, float] = ("none", 0.0), input_factors: Tensor | None = None,
    ) -> list[Tensor | None]:  # fmt: skip
        """Queue gx [P, M, H, W, C], gw, gb and gs [N, O], each where it is needed.

        Parameters
        ----------
        gy, saved : Tensor
            [P, M, H, W, O], dense; saved is the activation's input or output, its factors where it
            is "factor", None without one.
        pixels, more : Tensor
            x, and a tensor that is added to gx, both as `pitched` gives them.
        input_activation : (str, float)
            Activation of `FUSED` or "factor", and slope, that gave x: gx is the gradient at its
            input.
        input_factors : Tensor, optional
            As x, dense, of the activation "factor".

        Returns
        -------
        list of Tensor or None
            gw as `faigfast.ops.conv.cpu_weights.as_weights` takes it; [N, *w] for a 3×3.
        """
        w0, shuffle = parameters.w0, spec.shuffle
        taps = taps_of(w0, spec)
        bf16 = multiplies_bf16(w0, taps)
        gx = self._result(len(parameters.alpha), *pixels.shape[1:]) if needs[0] else None
        weights: tuple[Tensor | None, Tensor | None] = None, None
        if needs[0]:
            weights = packed(w0, parameters.dw, taps, shuffle, "plain" if bf16 else "flipped")
        size, outputs = [n // shuffle for n in gy.shape[2:4]], _outputs(w0, spec)
        convolution = self._path_convolution(
            pixels, size, outputs, taps, weights, parameters.without_bias(), spec, bf16
        )
        shapes = shape_of_sums(w0, taps), (outputs,), (outputs,)
        gw, gb, gs = (
            empty(images, *shape) if need else None
            for shape, need in zip(shapes, needs[1:], strict=True)
        )
        task = _extension.module.backward(  # type: ignore[union-attr]
            convolution, gy=address(gy), saved=address(saved), x=address(pixels),
            x_point=_point_stride(pixels), x_pixel=_pixel_stride(pixels), images=images,
            more=address(more), more_pixel=0 if more is None else _pixel_stride(more),
            before=FUSED_BACKWARD[input_activation[0]], before_slope=input_activation[1],
            before_factors=address(input_factors), gx=address(gx), gw=address(gw), gb=address(gb),
            gs=address(gs),
        )  # fmt: skip
        gradients = gx, gw, gb, gs
        self._add(task, gy, saved, pixels, more, input_factors, *gradients)
        return list(gradients)

    def average(self, z: Tensor, cells: Sequence[Cell], slope: float) -> Tensor:
        """Queue y = act(z), written over z, and the factors [P, ...] of its mean slopes."""
        factors = self._result(*z.shape)
        neighbours, coefficients = map(torch.tensor, flattened(cells))
        self._add(
            averaged_task(z, z, factors, neighbours, coefficients, slope),
            z, factors, neighbours, coefficients,
        )  # fmt: skip
        return factors

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
        self, x: Tensor, size: Sequence[int], outputs: int, taps: Taps,
        weights: tuple[Tensor | None, Tensor | None], parameters: PathParameters, spec: ConvSpec,
        bf16: bool,
    ) -> Any:  # fmt: skip
        """Describe a convolution to the extension."""
        alpha = parameters.alpha.contiguous()
        b0, db, s0, ds = (None if p is None else p.contiguous() for p in parameters[2:6])
        self._held += *weights, alpha, b0, db, s0, ds
        kind, grid = taps
        stride, padding, dilation, transposed, _, groups = spec.geometry
        kernel = _kernel_geometry(
            kind, grid, tuple(padding), tuple(stride), tuple(dilation), groups, transposed
        )
        return _extension.module.PathConvolution(  # type: ignore[union-attr]
            sizes=[len(alpha), x.shape[1], *size, x.shape[4], outputs],
            x_size=x.shape[2:4],
            kernel=kernel,
            shuffle=spec.shuffle,
            alpha=address(alpha),
            w0=address(weights[0]),
            dw=address(weights[1]),
            b0=address(b0),
            db=address(db),
            s0=address(s0),
            ds=address(ds),
            shared_slope=s0 is not None and s0.numel() == 1,
            activation=FUSED_BACKWARD[spec.activation],
            slope=spec.slope,
            scale=spec.scale,
            bf16=bf16,
            threads=torch.get_num_threads(),
        )  # fmt: skip


def _outputs(w0: Tensor, spec: ConvSpec) -> int:
    """Channels of y before the shuffle."""
    return w0.shape[1] * spec.groups if spec.transposed else w0.shape[0]


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
