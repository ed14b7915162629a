"""The path convolution 3×3 of 64 channels to 64 on Hopper, by a kernel of our own.

It has not run on a device yet, so only FAIGFAST_HOPPER=1 enables it.
"""

import os

import torch
from torch import Tensor

from faigfast.backend.gpu import cuda_conv  # noqa: F401  its kernel comes after this one
from faigfast.backend.gpu import extension as _extension_cuda
from faigfast.backend.gpu.cuda_launch import TYPES, at_all_points, extension, on
from faigfast.ops.conv.spec import ConvSpec, PathParameters, conv_kernel
from faigfast.ops.path_values import address, dense

_FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky"}
_ALIGNED = 16  # bytes; alignment of addresses that the copy engine reads


def _refuses(x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec) -> str:
    w0, dw, b0, db = parameters[:4]
    if w0.shape != (64, 64, 3, 3):
        return f"the weight is {'×'.join(map(str, w0.shape))}, not 64×64×3×3"
    if not spec.is_same_3x3 or spec.shuffle != 1:
        return "stride, padding, dilation, groups and shuffle are not 1, or it is transposed"
    if spec.activation not in _FUSED or spec.keeps_more(residual):
        return f"it does not take {spec.activation} with what follows"
    if why := _extension_cuda.problem(x.device):
        return why
    if x.dtype not in TYPES or (residual is not None and residual.dtype != x.dtype):
        return f"tensors are of {x.dtype}"
    for part in (w0, dw, b0, db, residual):  # read through addresses, so none may be elsewhere
        if part is not None and part.device != x.device:
            return f"tensors are on {x.device} and {part.device}"
    if not x.numel():
        return "there is nothing to compute"
    if os.environ.get("FAIGFAST_HOPPER") != "1":
        return "compiled, not yet run on a device; FAIGFAST_HOPPER=1 takes it"
    return ""


@conv_kernel("hopper", _refuses, "cuda", notes_refusal=False)
def conv(
    x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv`."""
    w0, dw, b0, db, _, _, alpha = parameters
    pixels = _aligned(dense(x))  # [P or 1, M, H, W, 64]
    rest = None if residual is None else _aligned(dense(residual))
    gamma = at_all_points(w0, dw, alpha, x.dtype).movedim(2, -1)  # [P, 64, 3, 3, 64], dense
    bias = None if b0 is None else at_all_points(b0, db, alpha, torch.float32)
    points, (samples, height, width) = len(alpha), pixels.shape[1:4]
    y = x.new_empty(points, *pixels.shape[1:])
    with on(x.device) as where:
        extension().convolution64(
            **where, type=TYPES[x.dtype], points=points, samples=samples, height=height,
            width=width, shared=len(pixels) < points,
            residual_shared=rest is not None and len(rest) < points, x=address(pixels),
            gamma=address(gamma), bias=address(bias), residual=address(rest), y=address(y),
            activation=_FUSED[spec.activation], slope=spec.slope, scale=spec.scale,
        )  # fmt: skip
    return y.movedim(-1, 2), x.new_empty(0)


def _aligned(pixels: Tensor) -> Tensor:
    return pixels if pixels.data_ptr() % _ALIGNED == 0 else pixels.clone()
