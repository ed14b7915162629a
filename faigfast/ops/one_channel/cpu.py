"""One changed channel by a C++ kernel: 3×3 convolutions that keep the size, float32 on a CPU."""

from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.cpu.allocator import empty
from faigfast.ops.conv.cpu_queue import FUSED
from faigfast.ops.conv.spec import ConvSpec
from faigfast.ops.one_channel import operation as _operation  # noqa: F401  registers the operation
from faigfast.ops.path_values import address
from faigfast.ops.registry import kernel


def _refuses(
    change: Tensor, w: Tensor, known: Tensor, residual: Tensor | None, slopes: Tensor | None,
    *geometry: Any,
) -> str:  # fmt: skip
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    for part in (change, w, known, *(() if residual is None else (residual,))):
        if part.device.type != "cpu":
            return f"tensors are on {part.device}"
        if part.dtype != torch.float32:
            return f"tensors are of {part.dtype}"
    *sizes, activation, _, _, _ = geometry
    if w.shape[2:] != (3, 3) or not ConvSpec(*sizes).is_same_3x3:
        return "the convolution is no 3×3 that keeps the size"
    if slopes is not None or activation not in FUSED:
        return f"the activation is {activation}"
    if residual is not None and residual.shape != known.shape:
        return f"the residual is {list(residual.shape)}, not as the result"
    return "" if change.numel() else "there is nothing to compute"


@kernel("simd", "one_channel", _refuses, "cpu", notes_refusal=False)
def one_channel(
    change: Tensor, w: Tensor, known: Tensor, residual: Tensor | None, *rest: Any
) -> Tensor:
    """As `faigfast.ops.one_channel.operation.one_channel`."""
    *_, activation, slope, scale, shuffle = rest
    samples, _, height, width = change.shape
    channels = known.shape[1]
    change = change.contiguous()
    taps = w.reshape(channels, shuffle**2, 9).permute(1, 2, 0).contiguous()  # [r², 9, channels]
    known = known.movedim(1, -1).contiguous()
    residual = None if residual is None else residual.movedim(1, -1).contiguous()
    y = empty(samples, height * shuffle, width * shuffle, channels)
    _extension.module.one_channel(  # type: ignore[union-attr]
        sizes=[samples, height, width, channels, shuffle], change=address(change),
        w=address(taps), known=address(known), residual=address(residual), y=address(y),
        activation=FUSED[activation], slope=slope, scale=scale, threads=torch.get_num_threads(),
    )  # fmt: skip
    return y.movedim(-1, 1)
