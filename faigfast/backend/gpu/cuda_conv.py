"""Path convolutions on an NVIDIA GPU: kernels of our own around cuDNN, channels-last.

One kernel makes the weights of all points, in the type and layout of the images. Backward, one pass
applies activation gradient, factor and shuffle, and sums the gradients of bias and slope.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.gpu.cuda_launch import TYPES, at_all_points, extension, on, refuses
from faigfast.ops.activation import activation_backward
from faigfast.ops.conv.operation import at_points, backward_at_points
from faigfast.ops.path_values import address, dense, every_point, one_batch
from faigfast.ops.registry import kernel

# Activations whose gradient the mask kernel computes.
_FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky", "prelu": "leaky"}


def _refuses(x: Tensor, *parts: Tensor | None) -> str:
    return refuses(x, *(part for part in parts if part is not None))


@kernel("cuda", "conv", lambda x, *rest: _refuses(x, *rest[:6]), "cuda")
def conv(
    x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, sum_w: Tensor | None,
    sum_b: Tensor | None, sum_s: Tensor | None, residual: Tensor | None,
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.operation.conv`."""
    geometry = (stride, padding, dilation, transposed, output_padding, groups)

    def parameters() -> Iterator[tuple[Tensor, Tensor | None, Tensor | float]]:
        weights = at_all_points(w0, dw, alpha, x.dtype)
        biases = None if b0 is None else at_all_points(b0, db, alpha, x.dtype)
        slopes = None if s0 is None else at_all_points(s0, ds, alpha, x.dtype)
        for p, w in enumerate(weights.unbind()):
            yield (
                one_batch(w),
                None if biases is None else biases[p],
                slope if slopes is None else slopes[p],
            )

    return at_points(x, parameters(), len(alpha), residual, geometry, activation, scale, shuffle)


@kernel("cuda", "conv_backward", lambda gy, x, saved, *rest: _refuses(
    gy, x, *rest[:2], rest[3], rest[4]), "cuda")  # fmt: skip
def conv_backward(
    gy: Tensor, x: Tensor, saved: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, images: int,
    needs: list[bool],
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.operation.conv_backward`."""
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    if activation not in _FUSED:
        gy = activation_backward(gy * scale, saved, activation, slope)
        activation, scale = "none", 1.0
    slopes = None if s0 is None else at_all_points(s0, ds, alpha, torch.float32)
    g, gb, gs = mask_gradient(
        gy, saved, slopes, images, needs[2:], activation, slope, scale, shuffle
    )
    if needs[3] and s0 is not None and s0.numel() == 1:
        gs = gs.sum(1, keepdim=True)
    weights = at_all_points(w0, dw, alpha, x.dtype).unbind()
    gradients_and_weights = zip(map(one_batch, g.unbind()), map(one_batch, weights), strict=True)
    gx, gw, _ = backward_at_points(
        gradients_and_weights, x, len(alpha), images, [*needs[:2], False], geometry
    )
    return gx, gw, gb, gs


def mask_gradient(
    gy: Tensor,
    saved: Tensor,
    slopes: Tensor | None,
    images: int,
    needs: list[bool],
    activation: str,
    slope: float,
    scale: float,
    shuffle: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the convolution's own result from gy = ∂L/∂y, in one pass.

    Parameters
    ----------
    gy, saved : Tensor
        As in `faigfast.ops.conv.operation.conv_backward`.
    slopes : Tensor, optional
        [P, O] or [P, 1] of prelu, in float32.
    images : int
        N, of M = N·b samples.
    needs : list of bool
        Which of gb, gs to compute; the others are empty.
    activation : str
        "none", "relu", "leaky_relu" or "prelu".

    Returns
    -------
    g : Tensor
        [P, M, O, *spatial] before the shuffle, channels-last.
    gb, gs : Tensor
        [N, O] in float32, summed over points, samples and pixels; gs for one slope per channel.
    """
    upstream = every_point(dense(gy), len(gy))  # [P, M, *spatial, C]
    dense_saved = None if activation == "none" else every_point(dense(saved), len(gy))
    points, samples, *spatial, channels = upstream.shape
    channels *= shuffle**2
    spatial = [size // shuffle for size in spatial]
    unchanged = activation == "none" and scale == 1 and shuffle == 1
    g = upstream if unchanged else upstream.new_empty(points, samples, *spatial, channels)
    sums = [
        upstream.new_empty(images, channels, dtype=torch.float32) if need else None
        for need in needs
    ]
    if slopes is not None:
        slopes = slopes.expand(points, channels).contiguous()
    if not unchanged or any(needs):
        height = spatial[0] if spatial else 1
        mask_gradient_kernel = extension().MaskGradient(
            type=TYPES[gy.dtype], points=points, images=images, samples=samples // images,
            height=height, width=torch.Size(spatial[1:]).numel(), channels=channels,
            shuffle=shuffle, activation=_FUSED[activation], gy=address(upstream),
            saved=address(dense_saved), slopes=address(slopes), slope=slope, scale=scale,
            g=0 if unchanged else address(g), gb=address(sums[0]), gs=address(sums[1]),
        )  # fmt: skip
        scratch = upstream.new_empty(mask_gradient_kernel.room(), dtype=torch.float32)
        with on(gy.device) as where:
            mask_gradient_kernel.run(**where, room=address(scratch))
    gb, gs = (gy.new_empty(0) if part is None else part for part in sums)
    return g.movedim(-1, 2), gb, gs
