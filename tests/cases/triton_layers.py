"""Representative launches: every kernel in every mode, on layers of common networks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from faigfast.kernels import (
    channels,
    conv,
    mask_gradient,
    path_weights,
    score_reduction,
    squared_error,
)
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch
from faigfast.kernels.modes import STORED

POINTS, IMAGES, SIDE, SHARES = 4, 2, 48, 3


@dataclass(frozen=True)
class Shape:
    """A convolution that keeps the size of its images, except for its stride.

    Parameters
    ----------
    name : str
        Description of the layer.
    channels, outputs : int
        C and O.
    activation : str
        none, relu, leaky.
    shuffle : int
        r of the pixel shuffle.
    residual : bool
        Whether a residual is added, with a factor, so that the activation's output is kept too.
    learned : bool
        Whether the slope is a parameter on the line (PReLU).
    one_slope : bool
        Whether all channels share the slope.
    kernel, stride, dilation : int
        k of k×k, stride and dilation in both dimensions.
    biased : bool
        Whether it has a bias.
    still : bool
        Whether both networks have the same weights.
    """

    name: str
    channels: int
    outputs: int
    activation: str = "relu"
    shuffle: int = 1
    residual: bool = False
    learned: bool = False
    one_slope: bool = False
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    biased: bool = True
    still: bool = False


BODY = Shape("64 → 64, relu", 64, 64)
SHAPES = (
    BODY,
    Shape("64 → 64, prelu, scaled residual", 64, 64, "leaky", residual=True, learned=True),
    Shape("3 → 64, leaky", 3, 64, "leaky"),
    Shape("64 → 256, shuffled by 2, leaky", 64, 256, "leaky", shuffle=2),
    Shape("64 → 3", 64, 3, "none"),
    Shape("128 → 128, relu", 128, 128),
)
# Other properties that change the code of a kernel.
VARIANTS = (
    Shape("64 → 64, prelu of one slope, no bias", 64, 64, "leaky", 1, False, True, True,
          biased=False),
    Shape("64 → 64, 5×5, stride 2, dilation 2, relu", 64, 64, kernel=5, stride=2, dilation=2),
    Shape("64 → 3, 1×1, weights stand still", 64, 3, "none", kernel=1, still=True),
    Shape("48 → 40, shuffled by 2, leaky, scaled residual", 48, 40, "leaky", 2, residual=True),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One launch with its mode and the name of its layer."""

    mode: str
    shape: str
    launch: Launch


def every_tile(mode: str, shape: Shape) -> Iterator[Case]:
    """All launches of a layer with every candidate tile; the default tiles come first."""
    layer, x, y, b = _layer(mode, shape)
    size = layer.geometry
    g = _empty(POINTS, IMAGES, size.out_height, size.out_width, size.outputs, mode=mode)
    keeps = ("input" if shape.learned else "output") if shape.residual or shape.learned else ""
    rest = y if shape.residual else None
    kept = y if keeps else None
    *_, forward = conv.forward_launches(layer, x, b, rest, y, kept, keeps)
    *_, input_gradient = conv.input_gradient_launches(layer, g, x)
    weight_gradient, _ = conv.weight_gradient_launch(layer, g, x, IMAGES)
    for launch in (forward, input_gradient, weight_gradient):
        for tile in launch.tiles:
            yield Case(mode, shape.name, replace(launch, tiles=(tile,)))


def first_tiles(mode: str, shape: Shape) -> list[Case]:
    """Give the launches with the default tiles."""
    first_cases: dict[str, Case] = {}
    for case in every_tile(mode, shape):
        first_cases.setdefault(case.launch.name, case)
    return list(first_cases.values())


def others() -> list[Case]:
    """Give launches of the kernels without matrix products."""
    w0, w, alpha = _empty(64, 3, 3, 64), _empty(64), _empty(POINTS)
    cases = []
    for mode in ("fp16", "tf32"):
        formed = _empty(POINTS, *w0.shape, mode=mode)
        image = _empty(POINTS, IMAGES, 1, 64, SIDE**2, mode=mode)
        rows = _empty(POINTS, IMAGES, SIDE**2, 64, 1, mode=mode)
        gradients = _empty(POINTS, IMAGES, 64)
        y, gt = image.flatten(2), _empty(IMAGES, 64 * SIDE**2)
        parts = _empty(POINTS, IMAGES, squared_error.blocks_of(y.shape[2]))
        weight, no_bias = (w, w), (None, None)
        cases += [
            (mode, "64 → 64", path_weights.launch(w0, w0, alpha, formed)),
            (mode, "affine", channels.forward_launch(rows, weight, weight, alpha, rows)),
            (mode, "affine", channels.backward_launch(
                rows, rows, weight, alpha, rows, gradients, gradients, False)),
            (mode, "prelu", channels.forward_launch(image, weight, no_bias, alpha, image)),
            (mode, "prelu", channels.backward_launch(
                image, image, weight, alpha, image, gradients, None, True)),
            (mode, "loss", squared_error.loss_launch(y, gt, parts, parts)),
            (mode, "loss", squared_error.gradient_launch(y, gt, _empty(POINTS, IMAGES), y)),
        ]  # fmt: skip
        for shuffle, s, activation in ((1, w, "leaky"), (2, None, "relu")):
            gy = _empty(POINTS, IMAGES, SIDE * shuffle, SIDE * shuffle, 64 // shuffle**2, mode=mode)
            sums = _empty(SHARES, IMAGES, 64)
            launch = mask_gradient.launch(
                gy, gy, (s, s), alpha, gy, sums, sums if s is not None else None, IMAGES, SHARES,
                (SIDE, SIDE), 64, shuffle, activation, 0.1, 0.2,
            )  # fmt: skip
            cases.append((mode, f"mask, shuffle {shuffle}", launch))
    total, scores = _empty(IMAGES, *w0.shape), _empty(IMAGES, 64 * 3)
    cases.append(("tf32", "scores", score_reduction.launch(total, w0, scores)))
    return [Case(*case) for case in cases]


def _empty(*shape: int, mode: str = "tf32") -> Tensor:
    return torch.empty(shape, dtype=STORED[mode], device="meta")


def _layer(
    mode: str, shape: Shape
) -> tuple[conv.Layer, Tensor, Tensor, tuple[Tensor | None, Tensor | None]]:
    c, o, r = shape.channels, shape.outputs, shape.shuffle
    k, s, d = shape.kernel, shape.stride, shape.dilation
    w = _empty(o, k, k, c)
    slope = _empty(1 if shape.one_slope else o // r**2) if shape.learned else None
    x = _empty(POINTS, IMAGES, SIDE, SIDE, c, mode=mode)
    geometry = Geometry.of(x.shape, (o, c, k, k), (s, s), (d * (k // 2),) * 2, (d, d), shuffle=r)
    layer = conv.Layer(
        w=(w, None if shape.still else w), s=(slope, slope), alpha=_empty(POINTS),
        geometry=geometry, activation=shape.activation,
        slope=0.1, scale=0.2 if shape.residual else 1.0, mode=mode,
    )  # fmt: skip
    high, wide = geometry.out_height * r, geometry.out_width * r
    y = _empty(POINTS, IMAGES, high, wide, o // r**2, mode=mode)
    b = _empty(o) if shape.biased else None
    return layer, x, y, (b, b)
