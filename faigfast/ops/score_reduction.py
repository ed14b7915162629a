"""Scores of filters from summed weight gradients: Σ |Δ·total| over every kernel, per image."""

from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.registry import kernel, operation

# dtype → function of the extension for it.
_FUNCTIONS = {torch.float32: "score_reduction_float32", torch.float64: "score_reduction_float64"}


def score_reduction_reference(total: Tensor, delta: Tensor) -> Tensor:
    """Compute `score_reduction` in plain PyTorch, on any device and floating-point dtype."""
    return (delta * total).abs().flatten(3).sum(3).flatten(1)  # [N, O*I]


@operation
def score_reduction(total: Tensor, delta: Tensor) -> Tensor:
    """Sum |Δ·total| over every kernel of a convolution, image by image.

    This is FAIG_k = Σ_{i in kernel k} |Δ_i Σ_s w_s ∂L/∂γ_i| (Xie et al., NeurIPS 2021):
    the absolute value is taken after the sum over the points of the line and before any mean over
    images. Differentiable in both arguments.

    Parameters
    ----------
    total : Tensor
        [N, O, I, *k], weight gradients of each image, weighted and summed over the points.
    delta : Tensor
        [O, I, *k], target weights minus baseline weights; dtype and device of `total`.

    Returns
    -------
    Tensor
        [N, O*I], one score per image and filter.

    Raises
    ------
    TypeError
        If an argument is no floating-point tensor, or the dtypes differ.
    ValueError
        If shapes or devices do not fit each other.

    Examples
    --------
    >>> import torch
    >>> score_reduction(torch.full((1, 2, 1, 3), -2.0), torch.ones(2, 1, 3))
    tensor([[6., 6.]])
    """
    check_arguments(total, delta)
    return score_reduction_reference(total, delta)


def check_arguments(total: Tensor, delta: Tensor) -> None:
    """Raise the errors of `score_reduction`; kernels call this before they read anything."""
    for name, tensor in (("total", total), ("delta", delta)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} is of type {type(tensor).__name__}; expected a tensor")
        if not tensor.is_floating_point():
            raise TypeError(f"{name} is of dtype {tensor.dtype}; expected a floating-point dtype")
    if total.dtype != delta.dtype:
        raise TypeError(
            f"delta is of dtype {delta.dtype}; expected that of total, which is {total.dtype}"
        )
    if delta.ndim < 3 or total.shape[1:] != delta.shape:
        raise ValueError(
            f"total has shape {list(total.shape)} and delta {list(delta.shape)}; "
            "expected [N, O, I, *k] and [O, I, *k]"
        )
    if total.device != delta.device:
        raise ValueError(f"delta is on {delta.device}; expected {total.device}, where total is")


def _refuses(total: Tensor, delta: Tensor) -> str:
    check_arguments(total, delta)
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    if total.device.type != "cpu":
        return f"tensors are on {total.device}"
    return "" if total.dtype in _FUNCTIONS else f"tensors are of {total.dtype}"


@kernel("simd", "score_reduction", _refuses)
def _simd(total: Tensor, delta: Tensor) -> Tensor:
    scores = total.new_empty(total.shape[0], total.shape[1] * total.shape[2])
    launch(total, delta, scores)
    return scores


def launch(total: Tensor, delta: Tensor, scores: Tensor) -> None:
    """Fill `scores`, a contiguous [N, O*I], by the compiled kernel."""
    total, delta = total.contiguous(), delta.contiguous()
    n, f = scores.shape
    getattr(_extension.module, _FUNCTIONS[total.dtype])(
        total=total.data_ptr(),
        delta=delta.data_ptr(),
        scores=scores.data_ptr(),
        n=n,
        f=f,
        k=delta.shape[2:].numel(),
        threads=torch.get_num_threads(),
    )


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None]:
    total, delta = ctx.saved_tensors
    gy = gy.reshape(*total.shape[:3], *[1] * (total.ndim - 3))  # [N, O, I, 1, ...]
    signed = gy * (delta * total).sign()
    return (
        signed * delta if ctx.needs_input_grad[0] else None,
        (signed * total).sum(0) if ctx.needs_input_grad[1] else None,
    )


score_reduction.register_autograd(_backward, setup_context=_setup_context, once=False)
