"""Shared parts of the backend cuda: the current device and stream, weights at points."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.gpu import extension as _extension_cuda

TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def extension() -> Any:
    """Give the extension; call this only where `extension.problem` gave ""."""
    return _extension_cuda.module


@contextmanager
def on(device: torch.device) -> Iterator[dict[str, int]]:
    """Make a device the current one; yield its index and stream as the kernels take them."""
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device)
        yield {"device": stream.device.index, "stream": stream.cuda_stream}


def at_all_points(w0: Tensor, dw: Tensor | None, alpha: Tensor, dtype: torch.dtype) -> Tensor:
    """γ(α) = w0 + αΔ at all points [P, *w], computed in float32, channels-last.

    Parameters
    ----------
    w0, dw : Tensor
        [O], or [O, I, *k]; then the result is dense as [P, O, *k, I].
    alpha : Tensor
        [P].
    dtype : torch.dtype
        Type of the result.
    """
    last = w0.ndim > 1
    start, change = (
        None if part is None else (part.movedim(1, -1) if last else part).contiguous()
        for part in (w0, dw)
    )
    assert start is not None
    nodes, shape = alpha.float().contiguous(), (len(alpha), *start.shape)
    if change is None:
        gamma = start.to(dtype).expand(shape).contiguous()
    elif start.is_cuda:
        from faigfast.kernels.path_weights import launch

        gamma = start.new_empty(shape, dtype=dtype)
        launch(start, change, nodes, gamma).run()
    else:
        steps = nodes.view(-1, *[1] * start.ndim)
        gamma = torch.addcmul(start.float(), change.float(), steps).to(dtype)
    return gamma.movedim(-1, 2) if last else gamma
