"""Path convolutions by kernels in C++: float32 on a CPU."""

import math
from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from faigfast import _extension
from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.conv import SAME, Geometry, keeps_more
from faigfast.ops.line import address, dense, every_point, on_line, pitched
from faigfast.ops.table import in_use, kernel
from faigfast.tables import counted

# Activations that the kernels apply, forward and backward.
FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky"}
_GATES = {**FUSED, "prelu": "leaky"}  # and those whose gradients they take
# A square of 3×3 taps takes 36 multiplications for 16 results, however few of them there are: with
# fewer than this to a square, products tap by tap were as fast.
LEAST_TAPS = 4
# Vectors are of channels: with fewer than this in the weights' second dimension, torch's own were
# faster, but for one square, 1×1 and depthwise.
LEAST_CHANNELS = 5
# Every thread holds the weights of a point, and sums of their gradients, that are not in squares.
MOST_WEIGHTS = 1 << 20


def refuses(x: Tensor, w0: Tensor, geometry: Geometry = SAME, shuffle: int = 1) -> str:
    """Why the kernels do not serve a convolution; "" where they do.

    Parameters
    ----------
    x, w0 : Tensor
        As in `faigfast.ops.conv.conv`.
    geometry, shuffle
        As `faigfast.ops.conv.conv` takes them one by one.
    """
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    if x.device.type != "cpu":
        return f"tensors are on {x.device}"
    for part in (x, w0):  # read through addresses, so neither may be anything else
        if part.dtype != torch.float32:
            return f"tensors are of {part.dtype}"
    kind, parts = _kernel(w0, geometry)
    size = "×".join(map(str, w0.shape[2:]))
    if len(parts) != 2:
        return f"the kernel is {size}, not of two dimensions"
    if kind != "squares" and shuffle > 1:
        return f"what a kernel of {size} gives is shuffled, which only 3×3 and larger ones do"
    if kind != "squares" and w0.numel() > MOST_WEIGHTS:
        return f"a kernel of {size} has {w0.numel()} weights, more than {MOST_WEIGHTS}"
    if kind == "direct" and w0.shape[1] < LEAST_CHANNELS:
        few = counted(w0.shape[1], "channel")
        return f"{few} to a group on one side are too few for this kernel of {size}, tap by tap"
    return "" if x.numel() else "there is nothing to compute"


_Taps = tuple[str, tuple[int, ...]]  # as `_kernel` finds them


def _kernel(w0: Tensor, geometry: Geometry) -> _Taps:
    """Kind of a kernel as the extension takes it, and its squares, or taps, down and across."""
    stride, padding, dilation, transposed, _, groups = geometry
    size = tuple(w0.shape[2:])
    if transposed or (*stride, *dilation) != (1, 1, 1, 1):
        return "direct", size
    if groups > 1:
        return "depthwise" if w0.shape[:2] == (groups, 1) else "direct", size
    if size == (1, 1) and not any(padding):
        return "point", size
    squares = tuple(math.ceil(side / 3) for side in size)
    enough = math.prod(size) >= LEAST_TAPS * math.prod(squares)
    if enough and (w0.shape[1] >= LEAST_CHANNELS or squares == (1, 1)):
        return "squares", squares
    return "direct", size


def empty(*shape: int) -> Tensor:
    """Uninitialised, in memory that was used before: new pages take longer than a convolution."""
    return torch.from_dlpack(_extension.module.new_tensor(shape))  # type: ignore[union-attr]


def free_cached(kept: int = 0) -> None:
    """Give memory that nobody uses back to the system where it is more than `kept` bytes."""
    if _extension.module is not None and _extension.module.cached() > kept:
        _extension.module.free_cached()


def _outputs(w0: Tensor, geometry: Geometry) -> int:
    """Channels of y, before a shuffle."""
    transposed, groups = geometry[3], geometry[5]
    return w0.shape[1] * groups if transposed else w0.shape[0]


def _point(part: Tensor) -> int:
    """Elements from one point to the next; 0 where all share one."""
    return part.stride(0) if part.shape[0] > 1 else 0


def _pixel(part: Tensor) -> int:
    """Elements from one pixel to the next, of what `pitched` gives."""
    return part.stride(3) if part.shape[3] > 1 else part.shape[4]


_packs = Lock()  # several threads come to a layer at the same time


def _packed(
    w0: Tensor, dw: Tensor | None, taps: _Taps, shuffle: int, turned: bool
) -> tuple[Tensor, Tensor | None]:
    """Weights in the order of the kernels; of those on the line it is done once."""
    if dw is None:  # they may be those of one point, made anew for the next
        return _pack(w0, taps, shuffle, turned), None
    turned = turned and taps[0] == "squares"
    kept = in_use().kept
    key = w0.data_ptr(), dw.data_ptr(), w0.shape, w0.stride(), taps[0], shuffle, turned
    with _packs:
        if key not in kept:
            found = _pack(w0, taps, shuffle, turned), _pack(dw, taps, shuffle, turned)
            kept[key] = found, w0, dw  # while they are held, their addresses are no others'
        return kept[key][0]


def _pack(w: Tensor, taps: _Taps, shuffle: int, turned: bool) -> Tensor:
    kind, (down, across) = taps
    if kind == "direct":
        return w.movedim((0, 1), (2, 3)).contiguous()
    if kind != "squares":
        plain = w.flatten(1)
        return (plain.T if kind == "depthwise" else plain).contiguous()
    rest = 3 * across - w.shape[3], 3 * down - w.shape[2]
    if any(rest):
        w = F.pad(w, (0, rest[0], 0, rest[1]))
    # [squares, O, 3, 3, C]
    plain = w.unflatten(3, (-1, 3)).unflatten(2, (-1, 3)).permute(2, 4, 0, 3, 5, 1).contiguous()
    packing = _extension.module.Packing(  # type: ignore[union-attr]
        outputs=w.shape[0], inputs=w.shape[1], squares=down * across, shuffle=shuffle, turned=turned
    )
    size = packing.size()
    if not size:  # read as they are
        return plain
    packed = empty(size)
    _extension.module.pack(  # type: ignore[union-attr]
        packing, w=address(plain), packed=address(packed), threads=torch.get_num_threads()
    )
    return packed


class _Layer:
    """A layer as the extension takes it; holds on to what it has the addresses of."""

    def __init__(
        self, x: Tensor, size: Sequence[int], outputs: int, taps: _Taps, geometry: Geometry,
        weights: tuple[Tensor | None, Tensor | None], alpha: Tensor, shuffle: int,
        activation: str, slope: float, scale: float,
        b0: Tensor | None = None, db: Tensor | None = None,
        s0: Tensor | None = None, ds: Tensor | None = None,
    ) -> None:  # fmt: skip
        b0, db, s0, ds = (None if part is None else part.contiguous() for part in (b0, db, s0, ds))
        self.alpha = alpha.contiguous()
        self.parts = weights, b0, db, s0, ds
        kind, parts = taps
        stride, padding, dilation, transposed, _, groups = geometry
        kernel = _extension.module.Kernel(  # type: ignore[union-attr]
            kind=kind, size=parts, padding=padding, stride=stride, dilation=dilation,
            groups=groups, transposed=transposed,
        )  # fmt: skip
        self.given = _extension.module.PathConvolution(  # type: ignore[union-attr]
            sizes=[alpha.shape[0], x.shape[1], *size, x.shape[4], outputs],
            x_size=x.shape[2:4],
            kernel=kernel,
            shuffle=shuffle,
            alpha=address(self.alpha),
            w0=address(weights[0]),
            dw=address(weights[1]),
            b0=address(b0),
            db=address(db),
            s0=address(s0),
            ds=address(ds),
            shared_slope=s0 is not None and s0.numel() == 1,
            activation=activation,
            slope=slope,
            scale=scale,
            threads=torch.get_num_threads(),
        )  # fmt: skip


def convolve(
    pixels: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
    alpha: Tensor, residual: Tensor | None, activation: str, slope: float, scale: float,
    shuffle: int, geometry: Geometry = SAME,
) -> Tensor:  # fmt: skip
    """Compute y [P, M, H, W, O] of `faigfast.ops.conv.conv`, by an activation of `FUSED`.

    Parameters
    ----------
    pixels : Tensor
        x as `pitched` gives it, [P, M, H, W, C].
    residual : Tensor, optional
        As `dense` gives it.
    """
    outputs, taps = _outputs(w0, geometry), _kernel(w0, geometry)
    stride, padding, dilation, transposed, extra, _ = geometry
    reach = [d * (k - 1) for d, k in zip(dilation, w0.shape[2:], strict=True)]
    sides = zip(pixels.shape[2:4], padding, reach, stride, extra, strict=True)
    height, width = (
        (n - 1) * s - 2 * p + r + e + 1 if transposed else (n + 2 * p - r - 1) // s + 1
        for n, p, r, s, e in sides
    )
    layer = _Layer(
        pixels, (height, width), outputs, taps, geometry,
        _packed(w0, dw, taps, shuffle, turned=False), alpha, shuffle, _GATES[activation], slope,
        scale, b0, db,
    )  # fmt: skip
    y = empty(len(alpha), pixels.shape[1], height * shuffle, width * shuffle, outputs // shuffle**2)
    _extension.module.convolve(  # type: ignore[union-attr]
        layer.given, x=address(pixels), x_point=_point(pixels), x_pixel=_pixel(pixels),
        residual=address(residual), residual_point=0 if residual is None else _point(residual),
        y=address(y),
    )  # fmt: skip
    return y


def convolve_backward(
    gy: Tensor, saved: Tensor | None, pixels: Tensor, w0: Tensor, dw: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, more: Tensor | None, images: int,
    needs: Sequence[bool], activation: str, slope: float, scale: float, shuffle: int,
    before: tuple[str, float] = ("none", 0.0), geometry: Geometry = SAME,
) -> list[Tensor | None]:  # fmt: skip
    """Compute gx [P, M, H, W, C], gw, gb and gs [N, O], each where it is needed.

    Parameters
    ----------
    gy, saved : Tensor
        [P, M, H, W, O], dense; of the activation's input or output, None without one.
    pixels, more : Tensor
        As `pitched` gives x, and what is added to gx.
    before : (str, float)
        Activation of `FUSED` and slope that gave x: gx is the gradient at its input.
    """
    kind, parts = taps = _kernel(w0, geometry)
    weights = _packed(w0, dw, taps, shuffle, turned=True) if needs[0] else (None, None)
    size, outputs = [n // shuffle for n in gy.shape[2:4]], _outputs(w0, geometry)
    layer = _Layer(
        pixels, size, outputs, taps, geometry, weights, alpha, shuffle, _GATES[activation], slope,
        scale, s0=s0, ds=ds,
    )  # fmt: skip
    whole = w0.shape
    larger = kind == "squares" and whole[2:] != (3, 3)
    if larger:
        whole = torch.Size((*parts, *w0.shape[:2], 3, 3))
    elif kind == "direct":
        whole = torch.Size((*parts, *w0.shape[:2]))
    shapes = (
        (len(alpha), *pixels.shape[1:]), (images, *whole), (images, outputs), (images, outputs)
    )  # fmt: skip
    found = [empty(*shape) if need else None for shape, need in zip(shapes, needs, strict=True)]
    gx, gw, gb, gs = found
    _extension.module.convolve_backward(  # type: ignore[union-attr]
        layer.given, gy=address(gy), saved=address(saved), x=address(pixels),
        x_point=_point(pixels), x_pixel=_pixel(pixels), images=images, more=address(more),
        more_pixel=0 if more is None else _pixel(more), before=FUSED[before[0]],
        before_slope=before[1], gx=address(gx), gw=address(gw), gb=address(gb), gs=address(gs),
    )  # fmt: skip
    if gw is not None and larger:
        beside = gw.permute(0, 3, 4, 1, 5, 2, 6).flatten(5, 6).flatten(3, 4)
        found[1] = beside[..., : w0.shape[2], : w0.shape[3]].contiguous()
    elif gw is not None and kind == "direct":
        found[1] = gw.movedim((1, 2), (3, 4)).contiguous()
    return found


@kernel("simd", "conv", lambda x, w0, *rest: refuses(x, w0, rest[10:16], rest[-1]), "cpu")
def conv(
    x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, sum_w: Tensor | None,
    sum_b: Tensor | None, sum_s: Tensor | None, residual: Tensor | None,
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.conv`."""
    geometry = stride, padding, dilation, transposed, output_padding, groups
    keeps = keeps_more(activation, scale, residual)
    fused = activation in FUSED
    whole = fused and not keeps  # else what backward needs stands before the end
    rest = dense(residual) if whole and residual is not None else None
    y = z = convolve(
        pitched(x), w0, dw, b0, db, alpha, rest, activation if fused else "none", slope,
        scale if whole else 1.0, shuffle, geometry,
    ).movedim(-1, 2)  # fmt: skip
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
    "simd", "conv_backward", lambda gy, x, _, w0, *rest: refuses(x, w0, rest[8:14], rest[-1]),
    "cpu",
)  # fmt: skip
def conv_backward(
    gy: Tensor, x: Tensor, saved: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None,
    s0: Tensor | None, ds: Tensor | None, alpha: Tensor, more: Tensor | None, images: int,
    needs: list[bool],
    stride: Any, padding: Any, dilation: Any, transposed: Any, output_padding: Any, groups: Any,
    activation: str, slope: float, scale: float, shuffle: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.conv.conv_backward`."""
    geometry = stride, padding, dilation, transposed, output_padding, groups
    if activation not in _GATES:
        gy = activation_backward(gy * scale, saved, activation, slope)
        activation, scale = "none", 1.0
    points = len(alpha)
    gate = None if activation == "none" else every_point(dense(saved), points)
    more = None if more is None else every_point(pitched(more), points)
    gx, gw, gb, gs = convolve_backward(
        every_point(dense(gy), points), gate, pitched(x), w0, dw, s0, ds, alpha, more, images,
        needs, activation, slope, scale, shuffle, geometry=geometry,
    )  # fmt: skip
    if gs is not None and s0 is not None and s0.numel() == 1:
        gs = gs.sum(1, keepdim=True)
    return (
        x.new_empty(0) if gx is None else gx.movedim(-1, 2),
        x.new_empty(0) if gw is None else gw,
        x.new_empty(0) if gb is None else gb,
        x.new_empty(0) if gs is None else gs,
    )
