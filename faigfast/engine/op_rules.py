"""Rules of ATen operations that have a parameter on the line among their arguments."""

import operator
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from faigfast.backend.gpu import (  # noqa: F401  they register their kernels
    cuda_hopper,
    triton_channels,
    triton_conv,
    triton_score_reduction,
    triton_squared_error,
)
from faigfast.engine.points import Moving, Points, parts_of, to_activation_type
from faigfast.engine.samples import Samples, apply, sample_by_sample, takes_batches
from faigfast.integration.cells import mean_slope
from faigfast.ops.affine import affine
from faigfast.ops.attention import cpu as cpu_attention  # noqa: F401  they register their kernels
from faigfast.ops.averaged_activation import (  # noqa: F401  they register their kernels
    cpu as cpu_averaged_activation,
)
from faigfast.ops.averaged_activation.operation import averaged_activation, flattened
from faigfast.ops.conv import cpu as cpu_conv  # noqa: F401  they register their kernels
from faigfast.ops.conv.operation import conv
from faigfast.ops.conv.spec import ConvSpec, PathParameters
from faigfast.ops.embedding import embedding
from faigfast.ops.linear import by_conv as linear_by_conv  # noqa: F401  they register their kernels
from faigfast.ops.linear.operation import linear
from faigfast.ops.prelu import prelu
from faigfast.ops.squared_error import cpu as cpu_squared_error  # noqa: F401  they register their kernels

aten = torch.ops.aten


OperationRule = Callable[..., Any]
OPERATION_RULES: dict[Any, OperationRule] = {}


def evaluate(op: Any, points: Points, args: Any, kwargs: Any) -> tuple[Any, str]:
    """Evaluate one operation on values that may be `Samples` or `Moving`.

    Returns
    -------
    value
        Result of the operation.
    note : str
        What ran slowly, and why; empty otherwise.
    """
    if op is operator.getitem:
        return op(*args, **kwargs), ""
    operation_rule = OPERATION_RULES.get(op)
    if operation_rule is not None:
        given = {**dict(zip(argument_names(op), args, strict=False)), **kwargs}
        value = operation_rule(points, **given)
        if value is not None:
            return value, ""
    cause = "computed weights"
    if op in CONVOLUTIONS and isinstance(args[1], Moving):
        cause = "an input without a batch dimension"
    args, kwargs = tree_map(points.raw, (args, kwargs))
    if op in CONVOLUTIONS and isinstance(args[1], Samples):
        # Under vmap it would become a grouped convolution, which is slower than a loop.
        return sample_by_sample(op, args, kwargs), f"{op} runs sample by sample: {cause}"
    return apply(op, args, kwargs)


def needs_vmap(op: Any) -> bool:
    """Whether many samples of an operation run under `torch.func.vmap`, or one by one."""
    return not (op is operator.getitem or op in OPERATION_RULES or takes_batches(op))


@cache
def argument_names(op: Any) -> list[str]:
    """Names of an operation's arguments."""
    return [argument.name for argument in op._schema.arguments]


def rule_of(*operations: Any) -> Callable[[OperationRule], OperationRule]:
    """Register a rule: it takes points and arguments by name, and gives None to decline."""

    def register(function: OperationRule) -> OperationRule:
        OPERATION_RULES.update(dict.fromkeys(operations, function))
        return function

    return register


def _moves(*values: Any) -> bool:
    """Whether one of some parameters moves, and all are placeholders."""
    if any(isinstance(value, Samples) for value in values):
        return False
    return any(isinstance(value, Moving) for value in values)


_CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
    aten.convolution.default,
)
_TRANSPOSED = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)
CONVOLUTIONS = {*_CONVOLUTIONS, *_TRANSPOSED}


@rule_of(*_CONVOLUTIONS)
def convolve(
    points: Points,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    transposed: bool = False,
    output_padding: Any = 0,
    groups: int = 1,
    activation: str = "none",
    slope: Any = 0.0,
    scale: float = 1.0,
    residual: Any = None,
    shuffle: int = 1,
) -> Any:
    """Y = scale · act(conv(x)) + residual by one path operation; None to decline."""
    if points.cells is not None and activation in KINKED:
        z = convolve(
            points, input, weight, bias, stride, padding, dilation, transposed, output_padding,
            groups, shuffle=shuffle,
        )  # fmt: skip
        if z is None:
            return None
        y = rectify(points, z, 0.0 if activation == "relu" else slope)
        y = Samples(y.data * scale) if scale != 1 else y
        return y if residual is None else Samples(y.data + points.every_image(residual))
    slopes: tuple[Any, Any, Any] = (None, None, None)
    if not isinstance(slope, float):
        slopes, slope = parts_of(slope), 0.0
    if isinstance(slopes[0], Samples) or not _moves(weight, bias):
        return None
    w, b = parts_of(weight), parts_of(bias)
    assert w[0] is not None
    kernel = w[0].shape[2:]
    rank = len(kernel)
    if isinstance(padding, str):
        reach = zip(spatial(dilation, rank), kernel, strict=True)
        total = [d * (k - 1) if padding == "same" else 0 for d, k in reach]
        if any(t % 2 for t in total):
            # The odd pixel is added at the end.
            sides = [side for t in reversed(total) for side in (0, t % 2)]
            input = apply(aten.pad.default, (points.raw(input), sides), {})[0]
        padding = [t // 2 for t in total]
    x = points.every_image(input)  # [P, N, b, C, *spatial]
    if x.ndim != w[0].ndim + 2:
        return None
    if residual is not None:
        residual = points.every_image(residual).flatten(1, 2)
    spec = ConvSpec(
        spatial(stride, rank), spatial(padding, rank), spatial(dilation, rank), transposed,
        spatial(output_padding, rank), groups, activation, slope, scale, shuffle,
    )  # fmt: skip
    parameters = PathParameters(w[0], w[1], b[0], b[1], slopes[0], slopes[1], points.alpha)
    sums = w[2], b[2], slopes[2]
    y, _ = conv(x.flatten(1, 2), *parameters, *sums, residual, *spec)
    return as_samples(y, points)


rule_of(*_TRANSPOSED)(partial(convolve, transposed=True))


KINKED = {"relu", "leaky_relu", "prelu"}  # fused activations whose slopes can be averaged
KINKS = {aten.relu.default, aten.leaky_relu.default, aten.prelu.default}


def is_kinked(node: fx.Node) -> bool:
    """Whether slopes of a node's activation can be averaged."""
    return node.target in KINKS or node.kwargs.get("activation") in KINKED


def rectify(points: Points, z: Samples, slope: Any) -> Samples:
    """Give z where it is positive and slope · z elsewhere, with mean slopes in backward."""
    assert points.cells is not None
    if not isinstance(slope, Moving | Tensor):
        y, _ = averaged_activation(z.data, *flattened(points.cells), float(slope))
        return Samples(y)
    detached = Samples(z.data.detach())
    activated = evaluate(aten.prelu.default, replace(points, cells=None), (detached, slope), {})[0]
    slopes = points.raw(slope).data.detach() if isinstance(slope, Moving) else slope[None, None]
    slopes = slopes.reshape(*slopes.shape[:2], 1, -1, *[1] * (z.data.ndim - 4))
    slopes = slopes.expand(len(z.data), *slopes.shape[1:])
    with torch.no_grad():
        means = [
            mean_slope(z.data[p], z.data[cell.before], z.data[cell.after], cell, slopes[p])
            for p, cell in enumerate(points.cells)
        ]
    through = z.data * torch.stack(means)
    return Samples(activated.data + (through - through.detach()))


def _rectified(points: Points, z: Any, slope: Any) -> Samples | None:
    """Rectify a value of all points, where slopes are averaged; None to decline."""
    if points.cells is None or not isinstance(z, Samples) or len(z.data) != len(points.cells):
        return None
    return rectify(points, z, slope)


@rule_of(aten.relu.default)
def _(points: Points, self: Any) -> Any:
    return _rectified(points, self, 0.0)


@rule_of(aten.leaky_relu.default)
def _(points: Points, self: Any, negative_slope: Any = 0.01) -> Any:
    return _rectified(points, self, negative_slope)


def as_samples(y: Tensor, points: Points) -> Samples:
    """Split the samples of a result [P, N·b, *own] into images and their own shape."""
    if y.shape[1] == points.images:
        # A dimension inserted in this way has the stride of a batch, not of channels.
        return Samples(y.unsqueeze(1).transpose(1, 2))
    return Samples(y.unflatten(1, (points.images, -1)))


def spatial(value: Any, rank: int) -> list[int]:
    """One number for each spatial dimension."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * rank if len(numbers) == 1 else numbers


@rule_of(aten.linear.default)
def _(points: Points, input: Any, weight: Any, bias: Any = None) -> Any:
    if not _moves(weight, bias):
        return None
    x = points.every_image(input)  # [P, N, ..., I]
    w, b = parts_of(weight), parts_of(bias)
    rows = x.reshape(*x.shape[:2], -1, x.shape[-1])
    y = linear(rows, w[0], w[1], b[0], b[1], points.alpha, w[2], b[2])
    return Samples(y.view(len(y), *x.shape[1:-1], -1))


def _channels(points: Points, x: Tensor, weight: Any, bias: Any) -> Tensor:
    """X [P, N, L, C, S] · γ + γ_b."""
    w, b = parts_of(weight), parts_of(bias)
    assert w[0] is not None
    if b[0] is None:
        b = (torch.zeros_like(w[0]), None, None)
    flat = [
        None if t is None else t.flatten(i) for t, i in zip((*w, *b), (0, 0, 1) * 2, strict=True)
    ]
    return affine(x, flat[0], flat[1], flat[3], flat[4], points.alpha, flat[2], flat[5])


@rule_of(aten.layer_norm.default)
def _(points: Points, input: Any, normalized_shape: list[int], weight: Any = None,
      bias: Any = None, eps: float = 1e-5, cudnn_enable: bool = True) -> Any:  # fmt: skip
    if weight is None or not _moves(weight, bias):
        return None
    x = F.layer_norm(points.every_image(input), normalized_shape, eps=eps)
    channels = torch.Size(normalized_shape).numel()
    y = _channels(points, x.reshape(*x.shape[:2], -1, channels, 1), weight, bias)
    return Samples(y.view(len(y), *x.shape[1:]))


def _norm(points: Points, input: Any, weight: Any, bias: Any, function: Any) -> Any:
    """Normalise [b, C, *spatial] by a function of a batch, then move the affine map."""
    if weight is None or not _moves(weight, bias):
        return None
    x = points.every_image(input)  # [P, N, b, C, *spatial]
    if x.ndim < 4:
        return None
    normal = function(x.flatten(0, 2)).view_as(x)
    y = _channels(points, normal.reshape(*x.shape[:4], -1), weight, bias)
    return Samples(y.view(len(y), *x.shape[1:]))


@rule_of(aten.group_norm.default)
def _(points: Points, input: Any, num_groups: int, weight: Any = None, bias: Any = None,
      eps: float = 1e-5, cudnn_enabled: bool = True) -> Any:  # fmt: skip
    return _norm(points, input, weight, bias, lambda x: F.group_norm(x, num_groups, eps=eps))


@rule_of(aten.batch_norm.default)
def _(points: Points, input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any,
      training: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Any:  # fmt: skip
    # Moving statistics make no batch_norm node: the graph has their arithmetic.
    if training or not isinstance(running_mean, Tensor):
        return None
    return _norm(
        points, input, weight, bias, lambda x: F.batch_norm(x, running_mean, running_var, eps=eps)
    )


@rule_of(aten.prelu.default)
def _(points: Points, self: Any, weight: Any) -> Any:
    if not isinstance(weight, Samples):
        averaged = _rectified(points, self, weight)
        if averaged is not None:
            return averaged
    if not _moves(weight):
        return None
    x = points.every_image(self)  # [P, N, b, C, *spatial]
    if x.ndim < 4:
        return None
    y = prelu(x.reshape(*x.shape[:4], -1), weight.w0, weight.dw, points.alpha, weight.gradient_sums)
    return Samples(y.view(len(y), *x.shape[1:]))


@rule_of(aten.embedding.default)
def _(points: Points, weight: Any, indices: Any, padding_idx: int = -1,
      scale_grad_by_freq: bool = False, sparse: bool = False) -> Any:  # fmt: skip
    if not _moves(weight) or scale_grad_by_freq or sparse:
        return None
    rows = points.every_image(indices)
    y = embedding(rows.flatten(2), weight.w0, weight.dw, points.alpha, weight.gradient_sums)
    y = to_activation_type(y.view(len(y), *rows.shape[1:], -1))
    # The padding row has no gradient; -1 is the schema's default, no padding.
    return Samples(
        y if padding_idx < 0 else torch.where(rows[..., None] == padding_idx, y.detach(), y)
    )


@rule_of(aten.scaled_dot_product_attention.default)
def _(points: Points, query: Any, key: Any, value: Any, attn_mask: Any = None,
      dropout_p: float = 0.0, is_causal: bool = False, **options: Any) -> Any:  # fmt: skip
    parts = [points.raw(part) for part in (query, key, value, attn_mask)]
    if not all(isinstance(part, Samples) and len(part.own) == 4 for part in parts[:3]):
        return None
    lead = torch.broadcast_shapes(*(part.data.shape[:3] for part in parts[:3]))
    q, k, v, mask = (_leading(p, lead) if isinstance(p, Samples) else p for p in parts)
    output = F.scaled_dot_product_attention(q, k, v, mask, 0.0, is_causal, **options)
    return Samples(output.unflatten(0, lead))


def _leading(part: Samples, lead: torch.Size) -> Tensor:
    """[P, N, ..., *own] as [P·N·b, heads, L, E]."""
    data = part.data
    missing = [1] * (6 - data.ndim)
    data = data.reshape(*data.shape[:2], *missing, *data.shape[2:])
    return data.expand(*lead, *data.shape[3:]).flatten(0, 2)


@rule_of(aten._weight_norm.default)
def _(points: Points, v: Any, g: Any, dim: int = 0) -> Any:
    def normalised(v: Tensor, g: Tensor) -> Tensor:
        return v * (g / torch.norm_except_dim(v, 2, dim))

    return apply(normalised, (points.raw(v), points.raw(g)), {})[0]
