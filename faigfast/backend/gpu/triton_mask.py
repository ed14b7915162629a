"""Gradient at a convolution's own result, before its activation, factor and shuffle, by Triton."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from faigfast.ops.activation import activation_backward
from faigfast.ops.conv.spec import Backward, ConvSpec, PathParameters
from faigfast.ops.path_values import dense, every_point

# Activations that the kernels apply, forward and backward.
FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky", "prelu": "leaky"}
PROGRAMS = 8  # programs of the kernel per multiprocessor
ON_CPU = 4  # programs in the interpreter


def contiguous(part: Tensor | None) -> Tensor | None:
    """Lay a parameter out as the kernels read it."""
    return None if part is None else part.contiguous()


def at_own_result(b: Backward) -> tuple[Tensor, Tensor, Tensor, ConvSpec]:
    """Gradient at the convolution's own result, gradients of bias and slope, and the rest to do.

    Returns
    -------
    g : Tensor
        [P, M, O, *spatial], channels-last.
    gb, gs : Tensor
        As in `faigfast.ops.conv.operation.conv_backward`.
    spec : ConvSpec
        The convolution without activation, factor and shuffle.
    """
    gy, spec, s0 = b.gy, b.spec, b.parameters.s0
    if spec.activation not in FUSED:
        gy = activation_backward(gy * spec.scale, b.saved, spec.activation, spec.slope)
        spec = spec.without_epilogue()
    g, gb, gs = _masked(gy, b.saved, b.parameters, b.images, b.needs[2:], spec)
    if b.needs[3] and s0 is not None:
        one = s0.numel() == 1
        gs = gs.sum(1, keepdim=True) if one else gs.unflatten(1, (-1, spec.shuffle**2)).sum(2)
    return g, gb, gs, spec.without_epilogue()._replace(shuffle=1)


def _masked(
    gy: Tensor,
    saved: Tensor,
    parameters: PathParameters,
    images: int,
    needs: Sequence[bool],
    spec: ConvSpec,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the convolution's own result from gy = ∂L/∂y, in one pass.

    Parameters
    ----------
    gy, saved, parameters
        As in `faigfast.ops.conv.operation.conv_backward`.
    images : int
        N, of M = N·b samples.
    needs : list of bool
        Which of gb, gs to compute; the others are empty.
    spec : ConvSpec
        Its activation is one of `FUSED`.

    Returns
    -------
    g : Tensor
        [P, M, O, *spatial] before the shuffle, channels-last.
    gb, gs : Tensor
        [N, O] in float32, summed over points, samples and pixels; gs for one slope per channel.
    """
    from faigfast.kernels.mask_gradient import launch, shares_of

    activation, shuffle = spec.activation, spec.shuffle
    upstream = every_point(dense(gy), len(gy))  # [P, M, *spatial, C]
    points, samples, *spatial, channels = upstream.shape
    channels *= shuffle**2
    spatial = [size // shuffle for size in spatial]
    unchanged = activation == "none" and spec.scale == 1 and shuffle == 1
    g = upstream if unchanged else upstream.new_empty(points, samples, *spatial, channels)
    gb = gs = upstream.new_empty(0)
    if not unchanged or any(needs):
        programs = ON_CPU
        if gy.is_cuda:
            gpu = torch.cuda.get_device_properties(gy.device)
            programs = PROGRAMS * gpu.multi_processor_count
        *above, width = spatial  # in one dimension there is one row
        size = math.prod(above), width
        pixels = samples // images * math.prod(spatial)
        shares = shares_of(points, pixels, images, channels, programs)
        sums = [
            upstream.new_empty(shares, images, channels, dtype=torch.float32) if need else None
            for need in needs
        ]
        launch(
            upstream, None if activation == "none" else every_point(dense(saved), points),
            (contiguous(parameters.s0), contiguous(parameters.ds)),
            parameters.alpha.float().contiguous(), None if unchanged else g, sums[0], sums[1],
            images, shares, size, channels, shuffle, FUSED[activation], spec.slope, spec.scale,
        ).run()  # fmt: skip
        gb, gs = (gb if part is None else part.sum(0) for part in sums)
    return g.movedim(-1, 2), gb, gs
