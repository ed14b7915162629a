"""Path convolutions of two dimensions by Triton kernels, on GPUs."""

from typing import Any

import torch
from torch import Tensor

from faigfast.backend.gpu import triton_support as _triton
from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.conv.operation import keeps_more
from faigfast.ops.path_values import dense, every_point
from faigfast.ops.registry import in_use, kernel

# Activations that the kernels apply, forward and backward.
FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky", "prelu": "leaky"}
MOST_PIXELS = 2**31 - 2**20  # of one point: pixel indices have 32 bits, offsets 64
MODES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


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


def _refuses(x: Tensor, w0: Tensor, alpha: Tensor, geometry: tuple[Any, ...]) -> str:
    why = refuses(x, w0, alpha)
    if why:
        return why
    if w0.ndim != 4:
        return f"the kernel has {w0.ndim - 2} dimensions"
    transposed, groups = geometry[3], geometry[5]
    if transposed:
        return "it is transposed"
    return _too_many(x, w0, geometry) if groups == 1 else f"it has {groups} groups"


def _too_many(x: Tensor, w0: Tensor, geometry: tuple[Any, ...]) -> str:
    from faigfast.kernels.geometry import Geometry

    samples, channels, *size = x.shape[1:]
    g = Geometry.of((1, samples, *size, channels), w0.shape, *geometry[:3], shuffle=1)
    most = samples * max(g.height * g.width, g.out_height * g.out_width)
    return "" if most < MOST_PIXELS else f"one point has {most} pixels, more than 32 bits count"


def _kernel_layer(
    shape: torch.Size, w0: Tensor, dw: Tensor | None, s0: Tensor | None, ds: Tensor | None,
    alpha: Tensor, geometry: tuple[Any, ...], activation: str, slope: float, scale: float,
    shuffle: int, mode: str,
) -> Any:  # fmt: skip
    """Gather the arguments that all kernels share; `shape` is that of x [P, M, H, W, C]."""
    from faigfast.kernels.conv import Layer
    from faigfast.kernels.geometry import Geometry

    return Layer(
        w=(w0.movedim(1, -1).contiguous(), None if dw is None else dw.movedim(1, -1).contiguous()),
        s=(_contiguous(s0), _contiguous(ds)),
        alpha=alpha.float().contiguous(),
        geometry=Geometry.of(shape, w0.shape, *geometry[:3], shuffle),
        activation=activation,
        slope=slope,
        scale=scale,
        mode=mode,
    )


def _contiguous(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.contiguous()


@kernel("triton", "conv", lambda x, w0, *rest: _refuses(x, w0, rest[5], rest[10:16]), "triton")
def conv(
    x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, sum_w: Tensor | None,
    sum_b: Tensor | None, sum_s: Tensor | None, residual: Tensor | None,
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.operation.conv`."""
    from faigfast.kernels.conv import forward

    keeps = keeps_more(activation, scale, residual)
    fused = activation in FUSED  # else the kernel stops before the activation
    pixels = dense(x)
    layer = _kernel_layer(
        pixels.shape, w0, dw, s0 if fused else None, ds if fused else None, alpha,
        (stride, padding, dilation), FUSED[activation] if fused else "none", slope,
        scale if fused else 1.0, shuffle, mode(x),
    )  # fmt: skip
    g = layer.geometry
    y = x.new_empty(
        len(alpha), pixels.shape[1], g.out_height * shuffle, g.out_width * shuffle,
        g.outputs // shuffle**2,
    )  # fmt: skip
    saved = torch.empty_like(y) if fused and keeps else None
    rest = dense(residual) if fused and residual is not None else None
    saved_kind = "" if saved is None else "input" if ACTIVATIONS[activation] else "output"
    forward(layer, pixels, (_contiguous(b0), _contiguous(db)), rest, y, saved, saved_kind)
    y = y.movedim(-1, 2)
    if fused:
        return y, x.new_empty(0) if saved is None else saved.movedim(-1, 2)
    z = y.clone() if ACTIVATIONS[activation] else y
    y = activate(y.flatten(0, 1), activation, slope).view_as(y)
    kept = z if ACTIVATIONS[activation] else y
    if residual is not None:
        y = torch.add(residual, y, alpha=scale)
    elif scale != 1:
        y = y * scale
    return y, kept if keeps else x.new_empty(0)


@kernel(
    "triton", "conv_backward",
    lambda gy, x, saved, w0, *rest: _refuses(x, w0, rest[4], rest[7:13]), "triton",
)  # fmt: skip
def conv_backward(
    gy: Tensor, x: Tensor, saved: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, images: int,
    needs: list[bool],
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.operation.conv_backward`."""
    from faigfast.kernels.conv import input_gradient, weight_gradient

    if activation not in FUSED:
        gy = activation_backward(gy * scale, saved, activation, slope)
        activation, scale = "none", 1.0
    pixels, upstream = dense(x), every_point(dense(gy), len(alpha))
    dense_saved = None if activation == "none" else every_point(dense(saved), len(alpha))
    layer = _kernel_layer(
        pixels.shape, w0, dw, s0, ds, alpha, (stride, padding, dilation), FUSED[activation], slope,
        scale, shuffle, mode(x),
    )  # fmt: skip
    empty = x.new_empty(0)
    gx = gw = gb = gs = None
    if needs[0]:
        gx = x.new_empty(len(alpha), *pixels.shape[1:])
        input_gradient(layer, upstream, dense_saved, gx)
    if any(needs[1:]):
        wanted = (needs[1], needs[2], needs[3])
        gw, gb, gs = weight_gradient(layer, upstream, dense_saved, pixels, images, wanted)
    if gs is not None and s0 is not None:
        gs = (
            gs.sum(1, keepdim=True) if s0.numel() == 1 else gs.unflatten(1, (-1, shuffle**2)).sum(2)
        )
    return (
        empty if gx is None else gx.movedim(-1, 2),
        empty if gw is None else gw.movedim(-1, 2).contiguous(),
        empty if gb is None else gb,
        empty if gs is None else gs,
    )
