"""What all path operations share: values on the line, and sums of gradients for each image."""

import torch
from torch import Tensor


def on_line(w0: Tensor, dw: Tensor | None, alpha: Tensor) -> Tensor:
    """γ(α) = w0 + αΔ at one point; w0 itself where nothing moves.

    Parameters
    ----------
    w0, dw : Tensor
        [*w]; dw None where the tensor is the same at both ends.
    alpha : Tensor
        Scalar, of the dtype of w0.
    """
    return w0 if dw is None else torch.addcmul(w0, dw, alpha)


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


def per_image(rows: Tensor, images: int) -> Tensor:
    """Split M = N·b rows into images: [M, ...] to [N, b, ...]."""
    return rows.unflatten(0, (images, -1))
