"""Path convolutions of two dimensions by Triton kernels, on GPUs."""

from typing import Any

import torch
from torch import Tensor

from faigfast.backend.gpu import triton_support as _triton
from faigfast.backend.gpu.triton_mask import FUSED, at_own_result, contiguous
from faigfast.backend.precision import MATRIX
from faigfast.ops.activation import ACTIVATIONS, activate
from faigfast.ops.conv import operation as _conv  # noqa: F401  registers the operation
from faigfast.ops.conv.spec import (
    Backward,
    ConvSpec,
    PathParameters,
    conv_backward_kernel,
    conv_kernel,
)
from faigfast.ops.path_values import dense
from faigfast.ops.registry import in_use

MOST_PIXELS = 2**31 - 2**20  # of one point: pixel indices have 32 bits, offsets 64
MODES = {torch.float16: "fp16", torch.bfloat16: "bf16"}
MATRIX_MODES = (*MODES.values(), *MATRIX)


def mode(x: Tensor) -> str:
    """How kernels multiply: in the type of x, or for float32 in the mode in use."""
    return MODES.get(x.dtype) or in_use().mode


def refuses(x: Tensor, *parts: Tensor) -> str:
    """Say why the kernels do not serve these tensors; "" where they do."""
    why = _triton.refuses(x.device)
    if why:
        return why
    if x.dtype not in (*MODES, torch.float32):
        return f"tensors are of {x.dtype}"
    for part in parts:
        if part.device != x.device:
            return f"tensors are on {x.device} and {part.device}"
        if part.dtype not in (x.dtype, torch.float32):
            return f"tensors are of {x.dtype} and {part.dtype}"
    return "" if x.numel() else "there is nothing to compute"


def refuses_products(x: Tensor, *parts: Tensor) -> str:
    """As `refuses`, and for products in float32, which have no matrix instructions."""
    why = refuses(x, *parts)
    return why or ("" if mode(x) in MATRIX_MODES else "cuDNN is faster in float32")


def _refuses(x: Tensor, parameters: PathParameters, spec: ConvSpec) -> str:
    w0 = parameters.w0
    why = refuses_products(x, w0, parameters.alpha)
    if why:
        return why
    if w0.ndim != 4:
        return f"the kernel has {w0.ndim - 2} dimensions"
    if spec.transposed:
        return "it is transposed"
    return _too_many(x, w0, spec) if spec.groups == 1 else f"it has {spec.groups} groups"


def _too_many(x: Tensor, w0: Tensor, spec: ConvSpec) -> str:
    from faigfast.kernels.geometry import Geometry

    samples, channels, *size = x.shape[1:]
    g = Geometry.of(
        (1, samples, *size, channels), w0.shape, spec.stride, spec.padding, spec.dilation, shuffle=1
    )
    most = samples * max(g.height * g.width, g.out_height * g.out_width)
    return "" if most < MOST_PIXELS else f"one point has {most} pixels, more than 32 bits count"


def _kernel_layer(shape: torch.Size, parameters: PathParameters, spec: ConvSpec, mode: str) -> Any:
    """Gather the arguments that all kernels share; `shape` is that of x [P, M, H, W, C]."""
    from faigfast.kernels.conv import Layer
    from faigfast.kernels.geometry import Geometry

    w0, dw, _, _, s0, ds, alpha = parameters
    return Layer(
        w=(w0.movedim(1, -1).contiguous(), None if dw is None else dw.movedim(1, -1).contiguous()),
        s=(contiguous(s0), contiguous(ds)),
        alpha=alpha.float().contiguous(),
        geometry=Geometry.of(
            shape, w0.shape, spec.stride, spec.padding, spec.dilation, spec.shuffle
        ),
        activation=FUSED[spec.activation],
        slope=spec.slope,
        scale=spec.scale,
        mode=mode,
    )


@conv_kernel("triton", lambda x, parameters, _, spec: _refuses(x, parameters, spec), "triton")
def conv(
    x: Tensor, parameters: PathParameters, residual: Tensor | None, spec: ConvSpec
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv`."""
    from faigfast.kernels.conv import forward_launches, run

    activation, scale, shuffle = spec.activation, spec.scale, spec.shuffle
    keeps = spec.keeps_more(residual)
    fused = activation in FUSED  # else the kernel stops before the activation
    pixels = dense(x)
    layer = _kernel_layer(
        pixels.shape,
        parameters if fused else parameters.without_slope(),
        spec if fused else spec.without_epilogue(),
        mode(x),
    )
    g = layer.geometry
    y = x.new_empty(
        len(parameters.alpha), pixels.shape[1], g.out_height * shuffle, g.out_width * shuffle,
        g.outputs // shuffle**2,
    )  # fmt: skip
    saved = torch.empty_like(y) if fused and keeps else None
    rest = dense(residual) if fused and residual is not None else None
    saved_kind = "" if saved is None else "input" if ACTIVATIONS[activation] else "output"
    biases = contiguous(parameters.b0), contiguous(parameters.db)
    run(forward_launches(layer, pixels, biases, rest, y, saved, saved_kind))
    y = y.movedim(-1, 2)
    if fused:
        return y, x.new_empty(0) if saved is None else saved.movedim(-1, 2)
    z = y.clone() if ACTIVATIONS[activation] else y
    y = activate(y.flatten(0, 1), activation, spec.slope).view_as(y)
    kept = z if ACTIVATIONS[activation] else y
    if residual is not None:
        y = torch.add(residual, y, alpha=scale)
    elif scale != 1:
        y = y * scale
    return y, kept if keeps else x.new_empty(0)


@conv_backward_kernel("triton", lambda b: _refuses(b.x, b.parameters, b.spec), "triton")
def conv_backward(b: Backward) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `faigfast.ops.conv.operation.conv_backward`."""
    from faigfast.kernels.conv import input_gradient_launches, run, weight_gradient

    x, needs = b.x, b.needs
    g, gb, gs, spec = at_own_result(b)
    pixels, upstream = dense(x), g.movedim(2, -1)
    layer = _kernel_layer(pixels.shape, b.parameters.without_slope(), spec, mode(x))
    gx = gw = x.new_empty(0)
    if needs[0]:
        gradient = x.new_empty(len(b.parameters.alpha), *pixels.shape[1:])
        run(input_gradient_launches(layer, upstream, gradient))
        gx = gradient.movedim(-1, 2)
    if needs[1]:
        gw = weight_gradient(layer, upstream, pixels, b.images).movedim(-1, 2).contiguous()
    return gx, gw, gb, gs
