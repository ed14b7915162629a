"""Path convolution: many points of the line at once, with bias, activation and residual."""

from typing import Any

import torch
from torch import Tensor

from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.line import on_line, wide
from faigfast.ops.table import operation

aten = torch.ops.aten


def _conv(x: Tensor, w: Tensor, b: Tensor | None, geometry: tuple[Any, ...]) -> Tensor:
    return aten.convolution(x, w, b, *geometry)


@operation
def conv(
    x: Tensor,
    w0: Tensor,
    dw: Tensor | None,
    b0: Tensor | None,
    db: Tensor | None,
    s0: Tensor | None,
    ds: Tensor | None,
    alpha: Tensor,
    sum_w: Tensor | None,
    sum_b: Tensor | None,
    sum_s: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    activation: str,
    slope: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Compute y = scale · act(conv(x, γ(α)) + γ_b(α)) + residual, at every point of the line.

    Parameters
    ----------
    x : Tensor
        [P, M, C, *spatial] with M = N·b samples of N images; [1, M, ...] where all points share it.
    w0, dw : Tensor
        [O, C/groups, *k] ([C, O/groups, *k] transposed), baseline and Δ; dw None: it stands still.
    b0, db : Tensor, optional
        [O], bias.
    s0, ds : Tensor, optional
        [O] or [1], slope of prelu.
    alpha : Tensor
        [P], points.
    sum_w, sum_b, sum_s : Tensor, optional
        [N, *shape] from `no_sums`: their gradients are the parameters', for each image, summed
        over the points.
    residual : Tensor, optional
        [P, M, O, *spatial] or [1, M, ...], added last.
    stride, padding, dilation, transposed, output_padding, groups
        As in `torch.convolution`.
    activation : str
        One of `faigfast.ops.activation.ACTIVATIONS`.
    slope : float
        Of leaky_relu.
    scale : float
        Factor before the residual.

    Returns
    -------
    y : Tensor
        [P, M, O, *spatial].
    saved : Tensor
        What the activation's gradient needs and y does not tell; empty where it needs nothing.
    """
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    keeps = _keeps(activation, scale, residual)
    y = saved = x.new_empty(0)
    for p, a in enumerate(alpha.unbind()):
        z = _conv(x[p % len(x)], on_line(w0, dw, a), _line(b0, db, a), geometry)
        # The input of an activation that overwrites it must be copied where its output is not kept.
        by_input = ACTIVATIONS[activation]
        out = activate(z, activation, slope if s0 is None else on_line(s0, ds, a))
        kept = z if by_input else out
        if scale != 1:
            out = out * scale if keeps else out.mul_(scale)
        if residual is not None:
            r = residual[p % len(residual)]
            out = out + r if out is kept and keeps else out.add_(r)
        y = _place(y, out, p, len(alpha))
        if keeps:
            saved = _place(saved, kept, p, len(alpha))
    return y, saved


def _keeps(activation: str, scale: float, residual: Tensor | None) -> bool:
    """Whether the gradient of the activation needs more than y."""
    changed = scale != 1 or residual is not None
    return activation != "none" and (ACTIVATIONS[activation] or changed)


def _line(b0: Tensor | None, db: Tensor | None, a: Tensor) -> Tensor | None:
    return None if b0 is None else on_line(b0, db, a)


def _place(whole: Tensor, part: Tensor, p: int, points: int) -> Tensor:
    """Put the part of point p where it belongs; one point needs no copy."""
    if points == 1:
        return part.unsqueeze(0)
    if p == 0:
        whole = _room(part, points)
    whole[p].copy_(part)
    return whole


def _room(part: Tensor, points: int) -> Tensor:
    """Room for so many parts, each laid out as this one is, channels-last or not."""
    strides = (part.numel(), *torch.empty_like(part).stride())
    return part.new_empty_strided((points, *part.shape), strides)


@conv.register_fake
def _(
    x: Tensor,
    w0: Tensor,
    dw: Tensor | None,
    b0: Tensor | None,
    db: Tensor | None,
    s0: Tensor | None,
    ds: Tensor | None,
    alpha: Tensor,
    sum_w: Tensor | None,
    sum_b: Tensor | None,
    sum_s: Tensor | None,
    residual: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    activation: str,
    slope: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    one = _conv(x[0], w0, b0, (stride, padding, dilation, transposed, output_padding, groups))
    y = _room(one, len(alpha))
    return y, torch.empty_like(y) if _keeps(activation, scale, residual) else x.new_empty(0)


@operation
def conv_backward(
    gy: Tensor,
    x: Tensor,
    saved: Tensor,
    w0: Tensor,
    dw: Tensor | None,
    b0: Tensor | None,
    s0: Tensor | None,
    ds: Tensor | None,
    alpha: Tensor,
    images: int,
    needs: list[bool],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `conv`, from gy = ∂L/∂y · scale.

    Parameters
    ----------
    gy : Tensor
        [P, M, O, *spatial].
    saved : Tensor
        The activation's input or output, as gy; empty where there is no activation.
    images : int
        N, of M = N·b samples.
    needs : list of bool
        Which of gx, gw, gb, gs are wanted; the others are empty.

    Returns
    -------
    gx : Tensor
        [P, M, C, *spatial] (or [1, M, ...], summed over points, where x is shared).
    gw, gb, gs : Tensor
        [N, *shape], summed over the points.
    """
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    gx = x.new_empty(0)
    sums: list[Tensor | None] = [None, None, None]
    biases = [gy.shape[2]] if needs[2] else None
    for p, a in enumerate(alpha.unbind()):
        one, g = x[p % len(x)], gy[p]
        if activation != "none":
            s = slope if s0 is None else on_line(s0, ds, a)
            if needs[3]:
                sums[2] = _added(sums[2], _slope_sums(g, saved[p], s0, images))
            g = activation_backward(g, saved[p], activation, s)
        w = on_line(w0, dw, a)

        def backward(g: Tensor, one: Tensor, w: Tensor, mask: list[bool]) -> list[Tensor]:
            return aten.convolution_backward(g, one, w, biases, *geometry, mask)

        if images == 1 or not (needs[1] or needs[2]):
            found, gw, gb = backward(g, one, w, needs[:3])
            parts = [None if t is None else t.unsqueeze(0) for t in (gw, gb)]
        else:
            found = backward(g, one, w, [True, False, False])[0] if needs[0] else None
            rows = zip(g.chunk(images), one.chunk(images), strict=True)
            each = [backward(*row, w, [False, *needs[1:3]])[1:] for row in rows]
            parts = [
                torch.stack(list(column)) if needed else None
                for column, needed in zip(zip(*each, strict=True), needs[1:3], strict=True)
            ]
        for i, (part, needed) in enumerate(zip(parts, needs[1:3], strict=True)):
            if needed and part is not None:
                sums[i] = _added(sums[i], part)
        if needs[0] and found is not None:
            if len(x) == len(alpha):
                gx = _place(gx, found, p, len(alpha))
            else:
                gx = found.unsqueeze(0) if p == 0 else gx.add_(found)
    return gx, *(x.new_empty(0) if part is None else part for part in sums)


def _added(total: Tensor | None, part: Tensor) -> Tensor:
    """Sum in at least float32."""
    return part.to(wide(part.dtype)) if total is None else total.add_(part)


def _slope_sums(g: Tensor, z: Tensor, s0: Tensor | None, images: int) -> Tensor:
    assert s0 is not None
    found = torch.where(z > 0, 0, g * z).unflatten(0, (images, -1))  # [N, b, O, *spatial]
    dims = [1, *range(3, found.ndim)]
    return found.sum(dims) if s0.numel() > 1 else found.flatten(1).sum(1, keepdim=True)


@conv_backward.register_fake
def _(
    gy: Tensor,
    x: Tensor,
    saved: Tensor,
    w0: Tensor,
    dw: Tensor | None,
    b0: Tensor | None,
    s0: Tensor | None,
    ds: Tensor | None,
    alpha: Tensor,
    images: int,
    needs: list[bool],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def sums(like: Tensor | None, needed: bool) -> Tensor:
        if like is None or not needed:
            return x.new_empty(0)
        return like.new_empty(images, *like.shape, dtype=wide(like.dtype))

    gx = torch.empty_like(x) if needs[0] else x.new_empty(0)
    return gx, sums(w0, needs[1]), sums(b0, needs[2]), sums(s0, needs[3])


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w0, dw, b0, _, s0, ds, alpha, sum_w, sum_b, sum_s, residual, *geometry = inputs
    *geometry, activation, slope, scale = geometry
    saved = output[1] if _keeps(activation, scale, residual) else output[0]
    ctx.save_for_backward(
        x, saved if activation != "none" else x.new_empty(0), w0, dw, b0, s0, ds, alpha
    )
    held = [part for part in (sum_w, sum_b, sum_s) if part is not None]
    ctx.images = len(held[0]) if held else 1
    ctx.geometry, ctx.activation, ctx.slope, ctx.scale = geometry, activation, slope, scale
    ctx.shared_residual = residual is not None and len(residual) < len(alpha)


def _backward(ctx: Any, gy: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, saved, w0, dw, b0, s0, ds, alpha = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 8, 9, 10)]
    g = gy * ctx.scale if ctx.scale != 1 else gy
    found = conv_backward(
        g, x, saved, w0, dw, b0, s0, ds, alpha, ctx.images, needs, *ctx.geometry,
        ctx.activation, ctx.slope,
    )  # fmt: skip
    gx, gw, gb, gs = (part if need else None for part, need in zip(found, needs, strict=True))
    gr = None
    if ctx.needs_input_grad[11]:
        gr = gy.sum(0, keepdim=True) if ctx.shared_residual else gy
    return gx, *[None] * 7, gw, gb, gs, gr, *[None] * 9


conv.register_autograd(_backward, setup_context=_setup_context)
