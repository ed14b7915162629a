"""What all path operations share: values on the line, and sums of gradients for each image."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


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
        Of the result where it is not that of w0, which may be a wider master.
    """
    value = w0 if dw is None else torch.addcmul(w0, dw, alpha)
    return value if dtype is None else value.to(dtype)


def on_device(numbers: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Give numbers as a tensor without waiting for what the device does at the time."""
    return torch.tensor(numbers, dtype=dtype).to(device, non_blocking=True)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Type in which gradients are summed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def no_sums(shape: torch.Size, images: int, like: Tensor) -> Tensor:
    """Zeros [N, *shape] that fill no memory, as where sums of gradients are collected.

    A path operation takes such a tensor beside a parameter. The gradient that reaches it is the
    parameter's, image by image and summed over the points of the line.
    """
    zero = torch.zeros((), dtype=wide(like.dtype), device=like.device)
    return zero.expand(images, *shape).requires_grad_()


def one_batch(part: Tensor) -> Tensor:
    """Give a batch of one sample the stride by which torch tells channels-last from others."""
    if len(part) != 1:
        return part
    return part.as_strided(part.shape, (part.numel(), *part.stride()[1:]), part.storage_offset())


def arranged(value: Tensor) -> Tensor:
    """Lay images and convolution weights out channels-last."""
    kinds = {4: torch.channels_last, 5: torch.channels_last_3d}
    return value.contiguous(memory_format=kinds.get(value.ndim, torch.contiguous_format))


def dense(x: Tensor) -> Tensor:
    """Bring [P, M, C, *spatial] into dense [P, M, *spatial, C]; one point stands for all alike."""
    if x.shape[0] > 1 and x.stride(0) == 0:
        x = x[:1]
    return x.movedim(2, -1).contiguous()


def every_point(found: Tensor, points: int) -> Tensor:
    """Copy the one point that stands for all alike, for kernels that read every point."""
    return found if len(found) == points else found.expand(points, *found.shape[1:]).contiguous()


def pitched(x: Tensor) -> Tensor:
    """As `dense`, but without a copy where x is some channels of a dense image that has more."""
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
    """Address as the extensions take it; 0: there is nothing."""
    return 0 if part is None else part.data_ptr()


def room(part: Tensor, points: int) -> Tensor:
    """Uninitialised [P, ...], laid out as [P, ...] or [1, ...] is, channels-last or not."""
    return torch.empty_like(part.expand(points, *part.shape[1:]))


def wanted(found: Iterable[Tensor], needs: Sequence[bool], x: Tensor) -> list[Tensor | None]:
    """Gradients that are needed, the first that of x, summed over the points which share it."""
    gx, *sums = (part if need else None for part, need in zip(found, needs, strict=True))
    return [None if gx is None else gx.sum_to_size(x.shape), *sums]


def differentiate(
    operation: Any, backward: Callable[..., Any], saved: Sequence[int], sums: Sequence[int]
) -> None:
    """Register the gradient of a path operation of x and parameters.

    Parameters
    ----------
    operation : Operation
        Its first argument is x.
    backward : callable
        Takes gy, what is saved, x first, and which gradients are wanted; gives them, that of x
        first.
    saved, sums : sequence of int
        Places of arguments that backward takes, and of the tensors from `no_sums`.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*(inputs[place] for place in saved))

    def gradient(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        needs = [ctx.needs_input_grad[place] for place in (0, *sums)]
        parts = ctx.saved_tensors  # once: what is computed again is unpacked once
        found = wanted(backward(gy, *parts, needs), needs, parts[0])
        by_place = dict(zip((0, *sums), found, strict=True))
        return tuple(by_place.get(place) for place in range(len(ctx.needs_input_grad)))

    operation.register_autograd(gradient, setup_context=setup_context)
