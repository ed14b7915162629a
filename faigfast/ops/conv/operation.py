"""Path convolution: many points of the line at once, with bias, activation and residual."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from faigfast.ops.activation import ACTIVATIONS, activate, activation_backward
from faigfast.ops.conv.spec import ConvSpec
from faigfast.ops.path_values import (
    arranged,
    empty_at_points,
    in_phases,
    needed_gradients,
    on_line,
    one_batch,
    wide,
)
from faigfast.ops.registry import in_use, operation

aten = torch.ops.aten


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
    shuffle: int,
) -> tuple[Tensor, Tensor]:
    """Compute y = scale · act(shuffled conv(x, γ(α)) + γ_b(α)) + residual, at every point.

    Parameters
    ----------
    x : Tensor
        [P, M, C, *spatial] with M = N·b samples of N images; [1, M, ...] where all points share it.
    w0, dw : Tensor
        [O, C/groups, *k] ([C, O/groups, *k] transposed), baseline and Δ; dw None: it does not move.
    b0, db : Tensor, optional
        [O], bias.
    s0, ds : Tensor, optional
        [O] or [1], slope of prelu.
    alpha : Tensor
        [P], points.
    sum_w, sum_b, sum_s : Tensor, optional
        [N, *shape] from `new_gradient_sums`: their gradients are the parameters', for each image,
        summed over the points.
    residual : Tensor, optional
        As y, or [1, M, ...], added last.
    stride, padding, dilation, transposed, output_padding, groups
        As in `torch.convolution`.
    activation : str
        One of `faigfast.ops.activation.ACTIVATIONS`.
    slope : float
        Of leaky_relu.
    scale : float
        Factor before the residual.
    shuffle : int
        r of `torch.pixel_shuffle`, after the bias; 1: none.

    Returns
    -------
    y : Tensor
        [P, M, O, *spatial]; [P, M, O/r², r·H, r·W] shuffled.
    saved : Tensor
        The activation's input or output if its gradient needs more than y; else empty.
    """
    spec = ConvSpec(
        stride, padding, dilation, transposed, output_padding, groups,
        activation, slope, scale, shuffle,
    )  # fmt: skip
    points = alpha.unbind()
    parameters = (
        (
            on_line(w0, dw, a, x.dtype),
            None if b0 is None else on_line(b0, db, a, x.dtype),
            slope if s0 is None else on_line(s0, ds, a, x.dtype),
        )
        for a in points
    )
    return at_points(x, parameters, len(points), residual, spec)


def at_points(
    x: Tensor,
    parameters: Iterable[tuple[Tensor, Tensor | None, Tensor | float]],
    points: int,
    residual: Tensor | None,
    spec: ConvSpec,
) -> tuple[Tensor, Tensor]:
    """Compute `conv` with weight, bias and slope of every point, one after the other."""
    activation, scale, keeps = spec.activation, spec.scale, spec.keeps_more(residual)
    y, saved = x.new_empty(0), x.new_empty(0)
    for p, (w, b, s) in enumerate(parameters):
        z = aten.convolution(one_batch(x[p % len(x)]), w, b, *spec.geometry)
        if spec.shuffle > 1:
            z = arranged(aten.pixel_shuffle(z, spec.shuffle))
        out = activate(z, activation, s)
        kept = z if ACTIVATIONS[activation] else out
        if keeps:
            saved = _placed(saved, kept, p, points)
        # The next operations may overwrite every tensor but `kept`.
        destination = torch.empty_like(out) if keeps and out is kept else out
        if residual is not None:
            out = torch.add(residual[p % len(residual)], out, alpha=scale, out=destination)
        elif scale != 1:
            out = torch.mul(out, scale, out=destination)
        y = _placed(y, out, p, points)
    return y, saved


def _placed(all_points: Tensor, part: Tensor, p: int, points: int) -> Tensor:
    """Copy the part of point p into the tensor of all points; one point needs no copy."""
    if points == 1:
        return part.unsqueeze(0)
    if p == 0:
        all_points = empty_at_points(part.unsqueeze(0), points)
    all_points[p].copy_(part)
    return all_points


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
    scale: float,
    shuffle: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `conv`, from gy = ∂L/∂y.

    Parameters
    ----------
    gy : Tensor
        As y.
    saved : Tensor
        The activation's input or output, as gy; empty where there is no activation.
    images : int
        N, of M = N·b samples.
    needs : list of bool
        Which of gx, gw, gb, gs to compute; the others are empty.

    Returns
    -------
    gx : Tensor
        [P, M, C, *spatial], of every point even where points share x.
    gw, gb, gs : Tensor
        [N, *shape], summed over the points in at least float32.
    """
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    points = alpha.unbind()
    slopes: Tensor | None = None

    def conv_gradients() -> Iterator[tuple[Tensor, Tensor]]:
        """Gradients of the convolution's own result, with the weights, point by point."""
        nonlocal slopes
        for p, a in enumerate(points):
            g = one_batch(gy[p])
            if scale != 1:
                g = g * scale
            if activation != "none":
                if needs[3]:
                    slopes = _added(slopes, _slope_sums(g, saved[p], s0, images))
                s = slope if s0 is None else on_line(s0, ds, a, x.dtype)
                g = activation_backward(g, saved[p], activation, s)
            if shuffle > 1:
                g = one_batch(arranged(aten.pixel_unshuffle(g, shuffle)))
            yield g, on_line(w0, dw, a, x.dtype)

    gx, gw, gb = backward_at_points(conv_gradients(), x, len(points), images, needs[:3], geometry)
    return gx, gw, gb, x.new_empty(0) if slopes is None else slopes


def backward_at_points(
    gradients_and_weights: Iterable[tuple[Tensor, Tensor]],
    x: Tensor,
    points: int,
    images: int,
    needs: list[bool],
    geometry: tuple[Any, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute gx, gw and gb from the convolution's own gradient and weight at every point."""
    gx = x.new_empty(0)
    sums: dict[int, Tensor] = {}  # by position in `needs`

    def backward(g: Tensor, x_p: Tensor, w: Tensor, mask: list[bool]) -> list[Tensor]:
        biases = [g.shape[1]] if mask[2] else None
        return aten.convolution_backward(g, x_p, w, biases, *geometry, mask)

    for p, (g, w) in enumerate(gradients_and_weights):
        x_p = one_batch(x[p % len(x)])
        together = images == 1 or not (needs[1] or needs[2])
        mask = needs if together else [needs[0], False, False]
        parts: list[Any] = [None, None]
        if any(mask):
            gx_p, *parts = backward(g, x_p, w, mask)
            if needs[0]:
                gx = _placed(gx, gx_p, p, points)
        each = [parts]
        if not together:
            rows = zip(g.chunk(images), x_p.chunk(images), strict=True)
            each = [backward(*row, w, [False, *needs[1:]])[1:] for row in rows]
        for i, column in enumerate(zip(*each, strict=True), start=1):
            if needs[i]:
                part = column[0].unsqueeze(0) if images == 1 else torch.stack(column)
                sums[i] = _added(sums.get(i), part)
    gw, gb = (sums.get(i, x.new_empty(0)) for i in (1, 2))
    return gx, gw.contiguous(), gb  # contiguous, so that autograd keeps it without a copy


def _added(total: Tensor | None, part: Tensor) -> Tensor:
    """Sum in at least float32."""
    return part.to(wide(part.dtype)) if total is None else total.add_(part)


def _slope_sums(g: Tensor, z: Tensor, s0: Tensor | None, images: int) -> Tensor:
    assert s0 is not None
    products = torch.where(z > 0, 0, g * z).unflatten(0, (images, -1))  # [N, b, O, *spatial]
    kind = wide(g.dtype)
    if s0.numel() == 1:
        return products.flatten(1).sum(1, keepdim=True, dtype=kind)
    return products.sum([1, *range(3, products.ndim)], dtype=kind)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w0, dw, b0, _, s0, ds, alpha, sum_w, sum_b, sum_s, residual, *spec = inputs
    ctx.spec = ConvSpec(*spec)
    y, saved = output
    if ctx.spec.activation != "none" and not ctx.spec.keeps_more(residual):
        saved = y
    ctx.save_for_backward(x, saved, w0, dw, b0, s0, ds, alpha)
    sums = (part for part in (sum_w, sum_b, sum_s) if part is not None)
    ctx.images = next(map(len, sums), 1)  # in each of its phases
    ctx.residual = None if residual is None else residual.shape
    # Otherwise autograd makes zeros for a missing gradient.
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, gy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if gy is None:
        return (None,) * 22
    x, saved, w0, dw, b0, s0, ds, alpha = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 8, 9, 10)]
    line, points, phases = (w0, dw, b0, s0, ds), len(alpha), in_use().phases
    if phases == 1:
        gradients = conv_backward(gy, x, saved, *line, alpha, ctx.images, needs, *ctx.spec)
    else:
        of_x = [needs[0], False, False, False]
        gx, *_ = conv_backward(gy, x, saved, *line, alpha, 1, of_x, *ctx.spec)
        if saved.numel():
            saved = in_phases(saved, points, phases)
        x_in_phases, gy_in_phases = (in_phases(part, points, phases) for part in (x, gy))
        _, *sums = conv_backward(
            gy_in_phases, x_in_phases, saved, *line, alpha[: points // phases], ctx.images,
            [False, *needs[1:]], *ctx.spec,
        )  # fmt: skip
        gradients = gx, *sums
    gx, gw, gb, gs = needed_gradients(gradients, needs, x)
    gr = gy.sum_to_size(ctx.residual) if ctx.needs_input_grad[11] else None
    return gx, *[None] * 7, gw, gb, gs, gr, *[None] * 10


conv.register_autograd(_backward, setup_context=_setup_context)
