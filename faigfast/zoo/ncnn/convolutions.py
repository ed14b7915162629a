"""Layers with weights: convolutions, transposed ones, inner products, factors and norms."""

import math
from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from faigfast.zoo.ncnn.activations import fused_activation
from faigfast.zoo.ncnn.bin_file import Stored
from faigfast.zoo.ncnn.steps import (
    UNKNOWN,
    Blueprint,
    Extent,
    Run,
    Step,
    chained,
    layer_type,
    module_of,
)

SIZE = 2**31 - 1  # of weights; the file's length limits them
SAME_UPPER, SAME_LOWER = -233, -234  # padding that keeps the size, the odd pixel after or before
Sides = tuple[int, int, int, int]  # left, right, top, bottom


def pad_sides(x: Tensor, sides: Sides, value: float = 0.0) -> Tensor:
    """Pad an image [N, C, H, W] by a constant on its sides."""
    return functional.pad(x, sides, value=value) if any(sides) else x


def sides_for_same_size(
    x: Tensor, extents: tuple[int, int], strides: tuple[int, int], is_lower: bool
) -> Sides:
    """Give the padding after which an image is as large as its input, divided by the stride."""
    pads = []
    for size, extent, stride in zip(x.shape[:1:-1], extents, strides, strict=True):
        total = max(0, extent + (size - 1) // stride * stride - size)
        pads += [total - total // 2, total // 2] if is_lower else [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


def read_sides(blueprint: Blueprint, numbers: tuple[int, int, int, int], low: int = 0) -> Sides:
    """Read paddings by number: right and top default to left, and bottom to top."""
    left_number, right_number, top_number, bottom_number = numbers
    read = partial(blueprint.parameters.integer, low=low)
    left = read(left_number, 0)
    top = read(top_number, left)
    return left, read(right_number, left), top, read(bottom_number, top)


def _pair(blueprint: Blueprint, width: int, height: int, default: int) -> tuple[int, int]:
    """Read a positive size (height, width) by the numbers of its parameters."""
    w = blueprint.parameters.integer(width, default, low=1)
    return blueprint.parameters.integer(height, w, low=1), w


def _refuse_int8(blueprint: Blueprint) -> None:
    if blueprint.parameters.integer(8, 0, low=-SIZE, high=SIZE):
        raise ValueError(
            f"{blueprint.layer.place} computes in int8 (parameter 8); expected the network before "
            "quantization"
        )


def _channels(blueprint: Blueprint, count: int, divisor: int, what: str) -> int:
    """Divide the number of weights by all that is known of their shape."""
    if count % divisor or not count:
        raise ValueError(
            f"{blueprint.layer.place} has {count} weights; expected a multiple of {divisor}, {what}"
        )
    return count // divisor


def _check_channels(blueprint: Blueprint, channels: int) -> None:
    known = blueprint.inputs[0].channels
    if known is not None and known != channels:
        raise ValueError(
            f"{blueprint.layer.place} takes {channels} channels; its input has {known}"
        )


def _with_bias(
    blueprint: Blueprint, weight: tuple[nn.Parameter, Stored], channels: int, has_bias: bool
) -> tuple[dict[str, Tensor | None], tuple[Stored, ...]]:
    """Read the bias, if there is one; give the tensors and list their arrays."""
    value, stored = weight
    if not has_bias:
        return {"weight": value}, (stored,)
    bias, stored_bias = blueprint.plain("bias", channels)
    return {"weight": value, "bias": bias}, (stored, stored_bias)


@layer_type("Convolution", "ConvolutionDepthWise")
def convolution(blueprint: Blueprint) -> Step:
    """Build a convolution with its padding and activation."""
    blueprint.expect()
    parameters = blueprint.parameters
    _refuse_int8(blueprint)
    outputs = parameters.integer(0, 0, low=1, high=SIZE)
    kernel, dilation = _pair(blueprint, 1, 11, 0), _pair(blueprint, 2, 12, 1)
    stride = _pair(blueprint, 3, 13, 1)
    sides = read_sides(blueprint, (4, 15, 14, 16), low=SAME_LOWER)
    groups = _groups(blueprint, outputs)
    has_bias = bool(parameters.integer(5, 0, high=1))
    count = parameters.integer(6, 0, low=1, high=SIZE)
    activation = fused_activation(parameters)
    value = parameters.real(18, 0.0)
    per_group = _channels(blueprint, count, outputs * math.prod(kernel), "outputs times kernel")
    inputs = per_group * groups
    _check_channels(blueprint, inputs)
    weight = blueprint.flagged("weight", (outputs, per_group, *kernel))

    is_same = sides in ((SAME_UPPER,) * 4, (SAME_LOWER,) * 4)
    if not is_same and min(sides) < 0:
        raise ValueError(f"{blueprint.layer.place} has the padding {sides}; expected 0 or more")
    own = (sides[2], sides[0])  # padding of the module itself
    if is_same or sides[0] != sides[1] or sides[2] != sides[3] or (value and any(sides)):
        own = (0, 0)
    tensors, arrays = _with_bias(blueprint, weight, outputs, has_bias)
    arguments = (inputs, outputs, kernel, stride, own, dilation, groups, has_bias)
    make_module = partial(module_of, nn.Conv2d, arguments, tensors)
    run: Run
    if is_same:
        extents = (dilation[1] * (kernel[1] - 1) + 1, dilation[0] * (kernel[0] - 1) + 1)
        run = partial(
            _convolve_same,
            extents=extents,
            strides=stride[::-1],
            is_lower=sides[0] == SAME_LOWER,
            value=value,
        )
    elif any(own) or not any(sides):
        run = _convolve
    else:
        run = partial(_convolve_padded, sides=sides, value=value)
    scale = blueprint.inputs[0].scale
    if scale is not None:
        scale = scale / stride[0] if stride[0] == stride[1] else None
    extent = Extent(outputs, scale)
    return Step(chained(run, activation), (extent,), make_module, arrays, inputs)


def _groups(blueprint: Blueprint, outputs: int) -> int:
    if not blueprint.layer.kind.endswith("DepthWise"):
        return 1
    groups = blueprint.parameters.integer(7, 1, low=1, high=SIZE)
    if outputs % groups:
        raise ValueError(
            f"{blueprint.layer.place} has {outputs} outputs in {groups} groups; expected a multiple"
        )
    return groups


def _convolve(module: nn.Module, x: Tensor) -> Tensor:
    if x.ndim == 2:  # a vector is an image of one pixel
        return module(x[:, :, None, None]).flatten(1)
    return module(x)


def _convolve_padded(module: nn.Module, x: Tensor, sides: Sides, value: float) -> Tensor:
    return module(pad_sides(x, sides, value))


def _convolve_same(
    module: nn.Module,
    x: Tensor,
    extents: tuple[int, int],
    strides: tuple[int, int],
    is_lower: bool,
    value: float,
) -> Tensor:
    return module(pad_sides(x, sides_for_same_size(x, extents, strides, is_lower), value))


@layer_type("Deconvolution", "DeconvolutionDepthWise")
def deconvolution(blueprint: Blueprint) -> Step:
    """Build a transposed convolution with its cut margins and activation."""
    blueprint.expect()
    parameters = blueprint.parameters
    outputs = parameters.integer(0, 0, low=1, high=SIZE)
    kernel, dilation = _pair(blueprint, 1, 11, 0), _pair(blueprint, 2, 12, 1)
    stride = _pair(blueprint, 3, 13, 1)
    sides = read_sides(blueprint, (4, 15, 14, 16))
    right = parameters.integer(18, 0)
    added = (parameters.integer(19, right), right)
    groups = _groups(blueprint, outputs)
    has_bias = bool(parameters.integer(5, 0, high=1))
    count = parameters.integer(6, 0, low=1, high=SIZE)
    activation = fused_activation(parameters)
    for size, step, distance in zip(added, stride, dilation, strict=True):
        if size >= max(step, distance):
            raise ValueError(
                f"{blueprint.layer.place} adds {size} pixels to its output; expected fewer than "
                f"its stride or dilation, {max(step, distance)}"
            )
    per_group = _channels(blueprint, count, outputs * math.prod(kernel), "outputs times kernel")
    inputs = per_group * groups
    _check_channels(blueprint, inputs)
    weight = blueprint.flagged(
        "weight",
        (groups, outputs // groups, per_group, *kernel),
        _inputs_first,
        partial(_outputs_first, groups=groups),
    )
    own = (sides[2], sides[0]) if sides[0] == sides[1] and sides[2] == sides[3] else (0, 0)
    tensors, arrays = _with_bias(blueprint, weight, outputs, has_bias)
    arguments = (inputs, outputs, kernel, stride, own, added, groups, has_bias, dilation, "zeros")
    make_module = partial(module_of, nn.ConvTranspose2d, arguments, tensors)
    run: Run = _convolve
    if any(sides) and not any(own):
        run = partial(_deconvolve_cut, sides=sides)
    scale = blueprint.inputs[0].scale
    if scale is not None:
        scale = scale * stride[0] if stride[0] == stride[1] else None
    extent = Extent(outputs, scale)
    return Step(chained(run, activation), (extent,), make_module, arrays, inputs)


def _inputs_first(value: Tensor) -> Tensor:
    """Reorder [groups, outputs, inputs, h, w] to torch's [groups * inputs, outputs, h, w]."""
    return value.transpose(1, 2).flatten(0, 1)


def _outputs_first(weight: Tensor, groups: int) -> Tensor:
    """Undo `_inputs_first`."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten()


def _deconvolve_cut(module: nn.Module, x: Tensor, sides: Sides) -> Tensor:
    y = module(x)
    left, right, top, bottom = sides
    return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]


@layer_type("InnerProduct")
def inner_product(blueprint: Blueprint) -> Step:
    """Build a linear layer, which flattens an image."""
    blueprint.expect()
    parameters = blueprint.parameters
    _refuse_int8(blueprint)
    outputs = parameters.integer(0, 0, low=1, high=SIZE)
    has_bias = bool(parameters.integer(1, 0, high=1))
    count = parameters.integer(2, 0, low=1, high=SIZE)
    activation = fused_activation(parameters)
    inputs = _channels(blueprint, count, outputs, "the outputs")
    weight = blueprint.flagged("weight", (outputs, inputs))
    tensors, arrays = _with_bias(blueprint, weight, outputs, has_bias)
    make_module = partial(module_of, nn.Linear, (inputs, outputs, has_bias), tensors)
    return Step(chained(_multiply, activation), (Extent(outputs),), make_module, arrays)


def _multiply(module: nn.Linear, x: Tensor) -> Tensor:
    if x.ndim == 2 or (x.ndim == 3 and x.shape[2] == module.in_features):
        return module(x)
    return module(x.flatten(1))


class Factor(nn.Module):
    """A factor for every channel, and perhaps a summand."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """Scale [N, C, ...]."""
        shape = (-1, *[1] * (x.ndim - 2))
        y = x * self.weight.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)


@layer_type("Scale")
def scale(blueprint: Blueprint) -> Step:
    """Build factors for the channels: weights, or the vector that is the second input."""
    parameters = blueprint.parameters
    count = parameters.integer(0, 0, low=-233, high=SIZE)
    has_bias = bool(parameters.integer(1, 0, high=1))
    if count == -233 and not has_bias:
        blueprint.expect(inputs=2)
        return Step(_scale_by, (replace(blueprint.inputs[0], is_input=False),))
    blueprint.expect()
    if count < 1:
        raise ValueError(f"{blueprint.layer.place} has {count} factors; expected at least one")
    _check_channels(blueprint, count)
    weight, stored = blueprint.plain("weight", count)
    bias, stored_bias = blueprint.plain("bias", count) if has_bias else (None, None)
    arrays = (stored,) if stored_bias is None else (stored, stored_bias)
    return Step(_apply, blueprint.inputs, partial(Factor, weight, bias), arrays)


def _scale_by(x: Tensor, factors: Tensor) -> Tensor:
    return x * factors.reshape(factors.shape[0], -1, *[1] * (x.ndim - 2))


def _apply(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


@layer_type("BatchNorm")
def batch_norm(blueprint: Blueprint) -> Step:
    """Build a batch norm with fixed statistics."""
    blueprint.expect()
    count = blueprint.parameters.integer(0, 0, low=1, high=SIZE)
    _check_channels(blueprint, count)
    epsilon = blueprint.parameters.real(1, 0.0)
    arrays = []
    tensors: dict[str, Tensor | None] = {"num_batches_tracked": None}
    for key in ("weight", "running_mean", "running_var", "bias"):
        value, stored = blueprint.plain(key, count)
        tensors[key] = value.data if key.startswith("running") else value
        arrays.append(stored)
    make_module = partial(module_of, nn.BatchNorm2d, (count, epsilon), tensors)
    return Step(_apply, blueprint.inputs, make_module, tuple(arrays))


class Constant(nn.Module):
    """A blob that the file holds, [1, ...]."""

    def __init__(self, value: nn.Parameter) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> Tensor:
        """Give the blob."""
        return self.value


@layer_type("MemoryData")
def memory_data(blueprint: Blueprint) -> Step:
    """Build a constant blob: a vector, a matrix or an image."""
    blueprint.expect(inputs=0)
    parameters = blueprint.parameters
    w, h, c = (parameters.integer(n, 0, high=SIZE) for n in (0, 1, 2))
    shape = tuple(size for size in (c, h, w) if size)
    if shape not in ((w,), (h, w), (c, h, w)) or 0 in shape:
        raise ValueError(
            f"{blueprint.layer.place} has the sizes {w}, {h}, {c}; expected a vector, matrix or "
            "image"
        )
    if parameters.integer(21, 1, high=1):
        value, stored = blueprint.plain("value", math.prod(shape))
    else:
        value, stored = blueprint.flagged("value", (math.prod(shape),))
    value.data = value.data.view(1, *shape)
    extent = Extent(shape[0]) if shape else UNKNOWN
    return Step(_make, (extent,), partial(Constant, value), (stored,))


def _make(module: nn.Module) -> Tensor:
    return module()
