"""Layers that act on every value alone, and the activations that other layers carry."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from faigfast.zoo.ncnn.param_file import Parameters
from faigfast.zoo.ncnn.steps import Blueprint, Run, Step, layer_type, module_of, pointwise

LARGEST = torch.finfo(torch.float32).max
SQRT_2_OVER_PI = 0.79788452  # as rounded in ncnn
UNARY = (
    torch.abs,
    torch.neg,
    torch.floor,
    torch.ceil,
    torch.square,
    torch.sqrt,
    torch.rsqrt,
    torch.exp,
    torch.log,
    torch.sin,
    torch.cos,
    torch.tan,
    torch.asin,
    torch.acos,
    torch.atan,
    torch.reciprocal,
    torch.tanh,
    torch.log10,
    torch.round,
    torch.trunc,
)


def fused_activation(parameters: Parameters) -> Run | None:
    """Give the activation in parameters 9 and 10 of a convolution or inner product."""
    kind = parameters.integer(9, 0, high=6)
    values = parameters.reals(10)
    needed = {2: 1, 3: 2, 6: 2}.get(kind, 0)
    if len(values) < needed:
        raise ValueError(
            f"{parameters.place} has {len(values)} values for its activation {kind} in parameter "
            f"10; expected {needed}"
        )
    if kind == 1:
        return functional.relu
    if kind == 2:
        return partial(functional.leaky_relu, negative_slope=values[0])
    if kind == 3:
        return partial(torch.clamp, min=values[0], max=values[1])
    if kind == 4:
        return torch.sigmoid
    if kind == 5:
        return functional.mish
    return partial(hard_swish, alpha=values[0], beta=values[1]) if kind == 6 else None


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Give alpha x + beta, between 0 and 1."""
    return (alpha * x + beta).clamp(0, 1)


def hard_swish(x: Tensor, alpha: float, beta: float) -> Tensor:
    """Give x times its hard sigmoid."""
    return x * hard_sigmoid(x, alpha, beta)


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)))


@layer_type("ReLU")
def relu(blueprint: Blueprint) -> Step:
    """Build a rectifier; a slope other than 0 makes it leaky."""
    slope = blueprint.parameters.real(0, 0.0)
    leaky = partial(functional.leaky_relu, negative_slope=slope)
    return pointwise(blueprint, leaky if slope else functional.relu)


@layer_type("PReLU")
def prelu(blueprint: Blueprint) -> Step:
    """Build a rectifier with a learnt slope for every channel, or one for all."""
    blueprint.expect()
    count = blueprint.parameters.integer(0, 0, low=1, high=2**31 - 1)
    channels = blueprint.inputs[0].channels
    if channels is not None and count not in (1, channels):
        raise ValueError(
            f"{blueprint.layer.place} has {count} slopes for {channels} channels; expected one for "
            "each or one"
        )
    weight, stored = blueprint.plain("weight", count)
    make_module = partial(module_of, nn.PReLU, (count,), {"weight": weight})
    return Step(_call, blueprint.inputs, make_module, (stored,))


def _call(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)


@layer_type("Clip")
def clip(blueprint: Blueprint) -> Step:
    """Build a limit on both sides."""
    low = blueprint.parameters.real(0, -LARGEST)
    high = blueprint.parameters.real(1, LARGEST)
    return pointwise(blueprint, partial(torch.clamp, min=low, max=high))


@layer_type("Sigmoid", "TanH", "Mish", "Swish", "AbsVal")
def plain_function(blueprint: Blueprint) -> Step:
    """Build a function without parameters."""
    functions: dict[str, Run] = {
        "Sigmoid": torch.sigmoid,
        "TanH": torch.tanh,
        "Mish": functional.mish,
        "Swish": functional.silu,
        "AbsVal": torch.abs,
    }
    return pointwise(blueprint, functions[blueprint.layer.kind])


@layer_type("HardSigmoid", "HardSwish")
def hard_function(blueprint: Blueprint) -> Step:
    """Build a piecewise linear sigmoid, or x times it."""
    alpha, beta = blueprint.parameters.real(0, 0.2), blueprint.parameters.real(1, 0.5)
    function = hard_sigmoid if blueprint.layer.kind == "HardSigmoid" else hard_swish
    return pointwise(blueprint, partial(function, alpha=alpha, beta=beta))


@layer_type("ELU")
def elu(blueprint: Blueprint) -> Step:
    """Build x above 0 and alpha (exp(x) - 1) below."""
    return pointwise(blueprint, partial(functional.elu, alpha=blueprint.parameters.real(0, 0.1)))


@layer_type("GELU")
def gelu(blueprint: Blueprint) -> Step:
    """Build GELU, exact or with ncnn's approximation by tanh."""
    is_fast = blueprint.parameters.integer(0, 0, high=1)
    return pointwise(blueprint, _gelu if is_fast else functional.gelu)


@layer_type("UnaryOp")
def unary(blueprint: Blueprint) -> Step:
    """Build one of ncnn's functions of one value."""
    return pointwise(blueprint, UNARY[blueprint.parameters.integer(0, 0, high=len(UNARY) - 1)])


@layer_type("Dropout")
def dropout(blueprint: Blueprint) -> Step:
    """Build dropout in evaluation: a constant factor."""
    factor = blueprint.parameters.real(0, 1.0)
    return pointwise(blueprint, _same if factor == 1 else partial(torch.mul, other=factor))


def _same(x: Tensor) -> Tensor:
    return x


@layer_type("Noop")
def noop(blueprint: Blueprint) -> Step:
    """Build a layer that does nothing."""
    return pointwise(blueprint, _same)


@layer_type("Split")
def split(blueprint: Blueprint) -> Step:
    """Build copies of a blob for several layers."""
    blueprint.expect(outputs=None)
    count = len(blueprint.layer.outputs)
    if count == 1:
        return pointwise(blueprint, _same)
    return Step(partial(_copies, count=count), blueprint.inputs * count)


def _copies(x: Tensor, count: int) -> tuple[Tensor, ...]:
    return (x,) * count
