"""Path convolutions by kernels in C++: float32 on a CPU."""

from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.io.text_table import counted
from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.conv.cpu_queue import FUSED, FUSED_BACKWARD, Queue
from faigfast.ops.conv.cpu_weights import LEAST_CHANNELS, as_weights, taps_of
from faigfast.ops.conv.operation import SAME, Geometry, keeps_more
from faigfast.ops.path_values import dense, every_point, on_line, pitched
from faigfast.ops.registry import kernel

# Every thread holds the weights of a point and their gradient sums, except those cut into squares.
MOST_WEIGHTS = 1 << 20


def refuses(x: Tensor, w0: Tensor, geometry: Geometry = SAME, shuffle: int = 1) -> str:
    """Say why the kernels do not serve a convolution; "" if they do.

    Parameters
    ----------
    x, w0 : Tensor
        As in `faigfast.ops.conv.operation.conv`.
    geometry, shuffle
        As `faigfast.ops.conv.operation.conv` takes them one by one.
    """
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    if x.device.type != "cpu":
        return f"tensors are on {x.device}"
    for part in (x, w0):  # read through addresses, so neither may be anything else
        if part.dtype != torch.float32:
            return f"tensors are of {part.dtype}"
    kind, grid = taps_of(w0, geometry)
    size = "×".join(map(str, w0.shape[2:]))
    if len(grid) != 2:
        return f"the kernel is {size}, not of two dimensions"
    if kind != "squares" and shuffle > 1:
        return f"what a kernel of {size} gives is shuffled, which only 3×3 and larger ones do"
    if kind != "squares" and w0.numel() > MOST_WEIGHTS:
        return f"a kernel of {size} has {w0.numel()} weights, more than {MOST_WEIGHTS}"
    if kind == "direct" and w0.shape[1] < LEAST_CHANNELS:
        few = counted(w0.shape[1], "channel")
        return f"{few} to a group on one side are too few for this kernel of {size}, tap by tap"
    return "" if x.numel() else "there is nothing to compute"


@kernel("simd", "conv", lambda x, w0, *rest: refuses(x, w0, rest[10:16], rest[-1]), "cpu")
def conv(
    x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, sum_w: Tensor | None,
    sum_b: Tensor | None, sum_s: Tensor | None, residual: Tensor | None,
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.operation.conv`."""
    geometry = stride, padding, dilation, transposed, output_padding, groups
    keeps = keeps_more(activation, scale, residual)
    fused = activation in FUSED
    in_one_pass = fused and not keeps  # else backward needs a value from before the residual
    rest = dense(residual) if in_one_pass and residual is not None else None
    queue = Queue()
    pixels = queue.convolve(
        pitched(x), w0, dw, b0, db, alpha, rest, activation if fused else "none", slope,
        scale if in_one_pass else 1.0, shuffle, geometry,
    )  # fmt: skip
    queue.run()
    y = z = pixels.movedim(-1, 2)
    if not fused:
        y = torch.empty_like(z)
        for p, a in enumerate(alpha.unbind()):
            y[p] = activate(z[p], activation, slope if s0 is None else on_line(s0, ds, a))
    if not keeps:
        return y, x.new_empty(0)
    saved = z if ACTIVATIONS[activation] else y
    if residual is not None:
        y = torch.add(residual, y, alpha=scale)
    elif scale != 1:
        y = y * scale
    return y, saved


@kernel(
    "simd", "conv_backward", lambda gy, x, _, w0, *rest: refuses(x, w0, rest[7:13], rest[-1]),
    "cpu",
)  # fmt: skip
def conv_backward(
    gy: Tensor, x: Tensor, saved: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, images: int,
    needs: list[bool],
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.operation.conv_backward`."""
    geometry = stride, padding, dilation, transposed, output_padding, groups
    if activation not in FUSED_BACKWARD:
        gy = activation_backward(gy * scale, saved, activation, slope)
        activation, scale = "none", 1.0
    points = len(alpha)
    dense_saved = None if activation == "none" else every_point(dense(saved), points)
    queue = Queue()
    gx, gw, gb, gs = queue.convolve_backward(
        every_point(dense(gy), points), dense_saved, pitched(x), w0, dw, s0, ds, alpha, None,
        images, needs, activation, slope, scale, shuffle, geometry=geometry,
    )  # fmt: skip
    queue.run()
    if gw is not None:
        gw = as_weights(gw, w0, taps_of(w0, geometry))
    if gs is not None and s0 is not None and s0.numel() == 1:
        gs = gs.sum(1, keepdim=True)
    return (
        x.new_empty(0) if gx is None else gx.movedim(-1, 2),
        x.new_empty(0) if gw is None else gw,
        x.new_empty(0) if gb is None else gb,
        x.new_empty(0) if gs is None else gs,
    )
