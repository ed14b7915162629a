"""The path convolution 3×3 of 64 channels to 64 on Hopper, by a kernel of our own.

Its input gradient is the same convolution with flipped weights, by the same kernel; weight
gradients are cuDNN's. It has not run on a device yet, so only FAIGFAST_HOPPER=1 enables it.
"""

import os

import torch
from torch import Tensor

from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.backend.gpu.cuda_conv import weight_gradients
from faigfast.backend.gpu.cuda_launch import TYPES, at_all_points, extension, on
from faigfast.backend.gpu.triton_mask import at_own_result
from faigfast.ops.conv.spec import (
    Backward,
    ConvSpec,
    PathParameters,
    conv_backward_kernel,
    conv_kernel,
)
from faigfast.ops.path_values import address, dense

_FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky"}
_ALIGNED = 16  # bytes; alignment of addresses that the copy engine reads


def _refuses(x: Tensor, spec: ConvSpec, *parts: Tensor | None) -> str:
    """Say why the kernel does not serve x and `parts`, of which the first is the weight."""
    (w0, *_), residual = parts, parts[-1]
    assert w0 is not None
    if w0.shape != (64, 64, 3, 3):
        return f"the weight is {'×'.join(map(str, w0.shape))}, not 64×64×3×3"
    if not spec.is_same_3x3 or spec.shuffle != 1:
        return "stride, padding, dilation, groups and shuffle are not 1, or it is transposed"
    if why := _extension_cuda.problem(x.device):
        return why
    if x.dtype not in TYPES or (residual is not None and residual.dtype != x.dtype):
        return f"tensors are of {x.dtype}"
    for part in parts:  # read through addresses, so none may be elsewhere
        if part is not None and part.device != x.device:
            return f"tensors are on {x.device} and {part.device}"
    if not x.numel():
        return "there is nothing to compute"
    if os.environ.get("FAIGFAST_HOPPER") != "1":
        return "compiled, not yet run on a device; FAIGFAST_HOPPER=1 takes it"
    return ""


def _refuses_forward(
    x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
) -> str:
    if spec.activation not in _FUSED or spec.keeps_more(residual):
        return f"it does not take {spec.activation} with what follows"
    return _refuses(x, spec, *parameters[:4], residual)


def _refuses_backward(b: Backward) -> str:
    if not b.needs[0]:
        return "no input gradient is needed"
    return _refuses(b.x, b.spec, b.parameters.w0, b.parameters.dw, b.gy)


@conv_kernel("hopper", _refuses_forward, "cuda", notes_refusal=False)
def conv(
    x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv`."""
    w0, dw, b0, db, _, _, alpha = parameters
    gamma = at_all_points(w0, dw, alpha, x.dtype).movedim(2, -1)  # [P, 64, 3, 3, 64], dense
    bias = None if b0 is None else at_all_points(b0, db, alpha, torch.float32)
    rest = None if residual is None else dense(residual)
    return _convolved(dense(x), gamma, bias, rest, spec), x.new_empty(0)


@conv_backward_kernel("hopper", _refuses_backward, "cuda", notes_refusal=False)
def conv_backward(b: Backward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv_backward`."""
    w0, dw, *_, alpha = b.parameters
    g, gb, gs, spec = at_own_result(b)
    gamma = at_all_points(w0, dw, alpha, b.x.dtype)  # [P, O, C, 3, 3]
    flipped = gamma.flip(3, 4).permute(0, 2, 3, 4, 1).contiguous()
    gx = _convolved(dense(g), flipped, None, None, ConvSpec())
    gw = b.x.new_empty(0)
    if b.needs[1]:
        gw = weight_gradients(g, b.x, w0.shape, b.images, spec)
    return gx, gw, gb, gs


def _convolved(
    pixels: Tensor, gamma: Tensor, bias: Tensor | None, residual: Tensor | None, spec: ConvSpec
) -> Tensor:
    """Convolve [P or 1, M, H, W, 64] with γ [P, 64, 3, 3, 64]; give [P, M, 64, H, W]."""
    pixels, rest = _aligned(pixels), None if residual is None else _aligned(residual)
    points, (samples, height, width) = len(gamma), pixels.shape[1:4]
    y = pixels.new_empty(points, *pixels.shape[1:])
    with on(pixels.device) as where:
        extension().convolution64(
            **where, type=TYPES[pixels.dtype], points=points, samples=samples, height=height,
            width=width, shared=len(pixels) < points,
            residual_shared=rest is not None and len(rest) < points, x=address(pixels),
            gamma=address(gamma), bias=address(bias), residual=address(rest), y=address(y),
            activation=_FUSED[spec.activation], slope=spec.slope, scale=spec.scale,
        )  # fmt: skip
    return y.movedim(-1, 2)


def _aligned(pixels: Tensor) -> Tensor:
    return pixels if pixels.data_ptr() % _ALIGNED == 0 else pixels.clone()
