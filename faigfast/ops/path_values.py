"""Shared parts of path operations: values on the line, gradient sums of images, layouts."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from faigfast.ops.registry import in_use


def on_line(
    w0: Tensor, dw: Tensor | None, alpha: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """γ(α) = w0 + αΔ at one point; w0 itself where nothing moves.

    At α = 0 this is the baseline to the bit, at α = 1 the target but for two roundings.

    Parameters
    ----------
    w0, dw : Tensor
        [*w]; dw None where the tensor is the same at both ends.
    alpha : Tensor
        Scalar, of the dtype of w0 or wider.
    dtype : torch.dtype, optional
        Type of the result; None: that of w0, which may be wider than the activations.
    """
    value = w0 if dw is None else torch.addcmul(w0, dw, alpha)
    return value if dtype is None else value.to(dtype)


def on_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Copy numbers to a device without waiting for its queued work."""
    return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Type in which gradients are summed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def new_gradient_sums(shape: torch.Size, images: int, like: Tensor) -> Tensor:
    """Zeros [N, *shape] that fill no memory; autograd collects a parameter's gradient there.

    A path operation takes such a tensor beside a parameter. The tensor's gradient is the
    parameter's, image by image and summed over the points of the line.
    """
    zero = torch.zeros((), dtype=wide(like.dtype), device=like.device)
    return zero.expand(images, *shape).requires_grad_()


def one_batch(part: Tensor) -> Tensor:
    """Set the batch stride of one sample, by which torch recognises channels-last."""
    if len(part) != 1:
        return part
    return part.as_strided(part.shape, (part.numel(), *part.stride()[1:]), part.storage_offset())


def arranged(value: Tensor) -> Tensor:
    """Lay images and convolution weights out channels-last."""
    kinds = {4: torch.channels_last, 5: torch.channels_last_3d}
    return value.contiguous(memory_format=kinds.get(value.ndim, torch.contiguous_format))


def dense(x: Tensor) -> Tensor:
    """Bring [P, M, C, *spatial] into dense [P, M, *spatial, C]; P is 1 if points share memory."""
    if x.shape[0] > 1 and x.stride(0) == 0:
        x = x[:1]
    return x.movedim(2, -1).contiguous()


def every_point(part: Tensor, points: int) -> Tensor:
    """Copy a shared point [1, ...] to all points, for kernels that read every point."""
    return part if len(part) == points else part.expand(points, *part.shape[1:]).contiguous()


def in_phases(part: Tensor, points: int, phases: int) -> Tensor:
    """[P, M, …] or [1, M, …] as [P/G, G·M, …]: every G-th point follows the same samples."""
    part = every_point(part, points)  # kernels know no samples that share memory
    return part.unflatten(0, (points // phases, phases)).flatten(1, 2)


def pitched(x: Tensor) -> Tensor:
    """As `dense`, but without a copy where x is a slice of channels of a dense image."""
    if x.shape[0] > 1 and x.stride(0) == 0:
        x = x[:1]
    pixels = x.movedim(2, -1)  # [P, M, *spatial, C]
    if pixels.is_contiguous():
        return pixels
    *outer, channels = zip(pixels.shape, pixels.stride(), strict=True)
    step = pixels.stride(-2)
    if channels[1] != 1 or step < channels[0] or pixels.shape[-2] == 1:
        return pixels.contiguous()
    for size, stride in reversed(outer):
        if size > 1 and stride != step:
            return pixels.contiguous()
        step *= size
    return pixels


def address(part: Tensor | None) -> int:
    """Address as the extensions take it; 0 for None."""
    return 0 if part is None else part.data_ptr()


def empty_at_points(part: Tensor, points: int) -> Tensor:
    """Uninitialised [P, ...] in the layout of a tensor [P, ...] or [1, ...]."""
    return torch.empty_like(part.expand(points, *part.shape[1:]))


def needed_gradients(
    gradients: Iterable[Tensor], needs: Sequence[bool], x: Tensor
) -> list[Tensor | None]:
    """Drop gradients that are not needed; sum the first, of x, over the points that share x."""
    gx, *sums = (part if need else None for part, need in zip(gradients, needs, strict=True))
    return [None if gx is None else gx.sum_to_size(x.shape), *sums]


def differentiate(
    operation: Any, backward: Callable[..., Any], saved: Sequence[int], gradient_sums: Sequence[int]
) -> None:
    """Register the gradient of a path operation of x and parameters.

    Parameters
    ----------
    operation : Operation
        Operation whose first argument is x.
    backward : callable
        Takes gy, the saved tensors, x first, and a list of which gradients are needed; gives all
        gradients, that of x first.
    saved, gradient_sums : sequence of int
        Positions of arguments that backward takes, x first and alpha last, and of tensors from
        `new_gradient_sums`.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(inputs[position] for position in saved))

    def gradient(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        needs = [ctx.needs_input_grad[position] for position in (0, *gradient_sums)]
        parts = ctx.saved_tensors  # once: a checkpoint unpacks its tensors once
        phases = in_use().phases
        if phases == 1:
            results = backward(gy, *parts, needs)
        else:
            x, *line, alpha = parts
            gx, *_ = backward(gy, *parts, [needs[0], *[False] * len(gradient_sums)])
            x, gy = (in_phases(part, len(alpha), phases) for part in (x, gy))
            few = alpha[: len(alpha) // phases]  # sums do not depend on it
            _, *rest = backward(gy, x, *line, few, [False, *needs[1:]])
            results = gx, *rest
        gradients = needed_gradients(results, needs, parts[0])
        by_position = dict(zip((0, *gradient_sums), gradients, strict=True))
        return tuple(by_position.get(position) for position in range(len(ctx.needs_input_grad)))

    operation.register_autograd(gradient, setup_context=setup_context)
