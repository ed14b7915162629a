"""Path convolutions on an NVIDIA GPU by cuDNN, channels-last, with Triton kernels around it.

One kernel makes the weights of all points, in the type and layout of the images. Backward, one pass
applies activation gradient, factor and shuffle, and sums the gradients of bias and slope.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from faigfast.backend.gpu.cuda_launch import at_all_points
from faigfast.backend.gpu.triton_conv import refuses
from faigfast.backend.gpu.triton_mask import at_own_result
from faigfast.ops.conv.operation import at_points, backward_at_points
from faigfast.ops.conv.spec import (
    Backward,
    ConvSpec,
    PathParameters,
    conv_backward_kernel,
    conv_kernel,
)
from faigfast.ops.path_values import one_batch, wide

aten = torch.ops.aten


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
    x, needs = b.x, b.needs
    w0, dw, *_, alpha = b.parameters
    g, gb, gs, spec = at_own_result(b)
    gx = gw = x.new_empty(0)
    if needs[0]:
        weights = at_all_points(w0, dw, alpha, x.dtype).unbind()
        behind = zip(map(one_batch, g.unbind()), map(one_batch, weights), strict=True)
        needed = [True, False, False]
        gx, *_ = backward_at_points(behind, x, len(alpha), b.images, needed, spec.geometry)
    if needs[1]:
        gw = weight_gradients(g, x, w0.shape, b.images, spec)
    return gx, gw, gb, gs


def weight_gradients(
    g: Tensor, x: Tensor, shape: torch.Size, images: int, spec: ConvSpec
) -> Tensor:
    """Gradients [N, *w] of weights in at least float32: one call of cuDNN for each image.

    They depend on no weights, so that all points of an image are one batch.

    Parameters
    ----------
    g, x : Tensor
        [P, M, O, *spatial] and [P, M, C, *spatial], or [1, M, ...] where all points share x.
    shape : torch.Size
        Shape of a weight.
    images : int
        N, of M = N·b samples.
    """
    # cuDNN returns float16, and a sum over n products grows like √n: smaller gradients keep it in
    # range, and their rounding stays far below that of the products.
    terms = g[:, : g.shape[1] // images, 0].numel()
    halvings = math.ceil(math.log2(terms) / 2) if g.dtype == torch.float16 else 0
    batches = [
        part.expand(len(g), *part.shape[1:]).movedim(2, -1).unflatten(1, (images, -1))
        .transpose(0, 1).flatten(1, 2).contiguous().movedim(-1, 2)
        for part in (g * 2.0**-halvings if halvings else g, x)
    ]  # fmt: skip
    weight = x.new_empty(shape)
    mask = [False, True, False]
    rows = [
        aten.convolution_backward(*map(one_batch, pair), weight, None, *spec.geometry, mask)[1]
        for pair in zip(*batches, strict=True)
    ]
    total = torch.stack(rows).to(wide(x.dtype))
    return (total * 2.0**halvings if halvings else total).contiguous()
