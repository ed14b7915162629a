"""Shared parts of the CUDA kernels: refusals, the current device and stream, weights at points."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.ops.path_values import address

TYPES = {
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}
NARROW = (torch.float16, torch.bfloat16, torch.float32)


def refuses(*parts: Tensor, types: tuple[torch.dtype, ...] = NARROW) -> str:
    """Say why the kernels do not serve tensors, or that the first is empty; "" if they serve."""
    why = _extension_cuda.problem(parts[0].device)
    if why:
        return why
    for part in parts:  # read through addresses, so none may be anything else
        if part.device != parts[0].device:
            return f"tensors are on {parts[0].device} and {part.device}"
        if part.dtype not in types:
            return f"tensors are of {part.dtype}"
    return "" if parts[0].numel() else "there is nothing to compute"


def extension() -> Any:
    """Give the extension; call this only after `refuses` gave ""."""
    return _extension_cuda.module


@contextmanager
def on(device: torch.device) -> Iterator[dict[str, int]]:
    """Make a device the current one; yield its index and stream as the kernels take them."""
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device)
        yield {"device": stream.device.index, "stream": stream.cuda_stream}


def at_all_points(w0: Tensor, dw: Tensor | None, alpha: Tensor, dtype: torch.dtype) -> Tensor:
    """γ(α) = w0 + αΔ at all points [P, *w], computed in float32, channels-last, by one kernel.

    Parameters
    ----------
    w0, dw : Tensor
        [O], or [O, I, *k]; then the result is dense as [P, O, *k, I].
    alpha : Tensor
        [P].
    dtype : torch.dtype
        Type of the result.
    """
    points, shape = len(alpha), w0.shape
    flat = w0.reshape(*shape[:2], -1) if w0.ndim > 1 else w0.view(-1, 1, 1)
    change = None if dw is None else dw.reshape(flat.shape)
    if change is not None and change.stride() != flat.stride():
        flat, change = flat.contiguous(), change.contiguous()
    outputs, inputs, taps = flat.shape
    gamma = w0.new_empty(points, outputs, taps, inputs, dtype=dtype)
    nodes = alpha.to(torch.float32).contiguous()
    with on(w0.device) as where:
        extension().path_weights(
            **where, from_type=TYPES[w0.dtype], to_type=TYPES[dtype], points=points,
            outputs=outputs, inputs=inputs, taps=taps, output_stride=flat.stride(0),
            input_stride=flat.stride(1), tap_stride=flat.stride(2), alpha=address(nodes),
            w0=address(flat), dw=address(change), gamma=address(gamma),
        )  # fmt: skip
    if w0.ndim == 1:
        return gamma.view(points, outputs)
    return gamma.view(points, outputs, *shape[2:], inputs).movedim(-1, 2)
