"""Path convolutions on an NVIDIA GPU: kernels of our own around cuDNN, channels-last.

One kernel makes the weights of all points, in the type and layout of the images. Backward, one pass
applies activation gradient, factor and shuffle, and sums the gradients of bias and slope.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from faigfast.backend.gpu.cuda_launch import TYPES, at_all_points, extension, on, refuses
from faigfast.ops.activation import activation_backward
from faigfast.ops.conv.operation import at_points, backward_at_points
from faigfast.ops.conv.spec import (
    Backward,
    ConvSpec,
    PathParameters,
    conv_backward_kernel,
    conv_kernel,
)
from faigfast.ops.path_values import address, dense, every_point, one_batch

# Activations whose gradient the mask kernel computes.
_FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky", "prelu": "leaky"}


def _refuses(x: Tensor, *parts: Tensor | None) -> str:
    return refuses(x, *(part for part in parts if part is not None))


@conv_kernel("cuda", lambda x, parameters, *_: _refuses(x, *parameters[:6]), "cuda")
def conv(
    x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv`."""
    w0, dw, b0, db, s0, ds, alpha = parameters

    def at_each_point() -> Iterator[tuple[Tensor, Tensor | None, Tensor | float]]:
        weights = at_all_points(w0, dw, alpha, x.dtype)
        biases = None if b0 is None else at_all_points(b0, db, alpha, x.dtype)
        slopes = None if s0 is None else at_all_points(s0, ds, alpha, x.dtype)
        for p, w in enumerate(weights.unbind()):
            yield (
                one_batch(w),
                None if biases is None else biases[p],
                spec.slope if slopes is None else slopes[p],
            )

    return at_points(x, at_each_point(), len(alpha), residual, spec)


@conv_backward_kernel(
    "cuda", lambda b: _refuses(
        b.gy, b.x, b.parameters.w0, b.parameters.dw, b.parameters.s0, b.parameters.ds
    ), "cuda",
)  # fmt: skip
def conv_backward(b: Backward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv_backward`."""
    gy, x, spec, needs = b.gy, b.x, b.spec, b.needs
    w0, dw, _, _, s0, ds, alpha = b.parameters
    if spec.activation not in _FUSED:
        gy = activation_backward(gy * spec.scale, b.saved, spec.activation, spec.slope)
        spec = spec.without_epilogue()
    slopes = None if s0 is None else at_all_points(s0, ds, alpha, torch.float32)
    g, gb, gs = mask_gradient(gy, b.saved, slopes, b.images, needs[2:], spec)
    if needs[3] and s0 is not None and s0.numel() == 1:
        gs = gs.sum(1, keepdim=True)
    weights = at_all_points(w0, dw, alpha, x.dtype).unbind()
    behind = zip(map(one_batch, g.unbind()), map(one_batch, weights), strict=True)
    gx, gw, _ = backward_at_points(
        behind, x, len(alpha), b.images, [*needs[:2], False], spec.geometry
    )
    return gx, gw, gb, gs


def mask_gradient(
    gy: Tensor,
    saved: Tensor,
    slopes: Tensor | None,
    images: int,
    needs: Sequence[bool],
    spec: ConvSpec,
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
    spec : ConvSpec
        Its activation is "none", "relu", "leaky_relu" or "prelu".

    Returns
    -------
    g : Tensor
        [P, M, O, *spatial] before the shuffle, channels-last.
    gb, gs : Tensor
        [N, O] in float32, summed over points, samples and pixels; gs for one slope per channel.
    """
    activation, scale, shuffle = spec.activation, spec.scale, spec.shuffle
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
            saved=address(dense_saved), slopes=address(slopes), slope=spec.slope, scale=scale,
            g=0 if unchanged else address(g), gb=address(sums[0]), gs=address(sums[1]),
        )  # fmt: skip
        scratch = upstream.new_empty(mask_gradient_kernel.room(), dtype=torch.float32)
        with on(gy.device) as where:
            mask_gradient_kernel.run(**where, room=address(scratch))
    gb, gs = (gy.new_empty(0) if part is None else part for part in sums)
    return g.movedim(-1, 2), gb, gs
