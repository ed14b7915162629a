"""The path convolution: forms γ(α) and runs the kernels."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from faigfast.kernels import (
    conv_forward,
    conv_input_gradient,
    conv_weight_gradient,
    path_weights,
)
from faigfast.kernels.conv_input_gradient import Before
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch
from faigfast.kernels.modes import STORED

OnLine = tuple[Tensor | None, Tensor | None]
PROGRAMS = 4  # programs of the weight gradient per multiprocessor
ON_CPU = 4  # programs of the weight gradient in the interpreter


@dataclass(frozen=True)
class Layer:
    """Arguments that all passes of a convolution share.

    Parameters
    ----------
    w : tuple of Tensor
        w0 and Δ [O, *k, C], contiguous; Δ None if both networks have the same weights.
    s : tuple of Tensor
        Slope [O/r²] or [1] and its Δ; (None, None) without PReLU.
    alpha : Tensor
        [P], float32.
    geometry : Geometry
        Sizes of the convolution.
    activation : str
        none, relu, leaky.
    slope, scale : float
        Slope of leaky without `s`; factor after the activation.
    mode : str
        One of `faigfast.kernels.modes.KINDS`.
    """

    w: tuple[Tensor, Tensor | None]
    s: OnLine
    alpha: Tensor
    geometry: Geometry
    activation: str
    slope: float
    scale: float
    mode: str

    @property
    def same(self) -> dict[str, Any]:
        """Arguments of every launch."""
        return {
            "s": self.s,
            "alpha": self.alpha,
            "geometry": self.geometry,
            "activation": self.activation,
            "slope": self.slope,
            "scale": self.scale,
            "mode": self.mode,
        }

    def weights(self) -> tuple[Tensor, list[Launch]]:
        """Give γ [P, O, *k, C], or [1, ...] where nothing moves, and the launch that forms it."""
        w0, dw = self.w
        if dw is None:
            return w0.to(STORED[self.mode])[None], []
        w = w0.new_empty(len(self.alpha), *w0.shape, dtype=STORED[self.mode])
        return w, [path_weights.launch(w0, dw, self.alpha, w)]


def forward_launches(
    layer: Layer, x: Tensor, b: OnLine, rest: Tensor | None, y: Tensor, saved: Tensor | None,
    keeps: str,
) -> list[Launch]:  # fmt: skip
    """All launches that fill y, and `saved` according to `keeps`; see `conv_forward.launch`."""
    w, before = layer.weights()
    own = conv_forward.launch(x=x, w=w, b=b, rest=rest, y=y, saved=saved, keeps=keeps, **layer.same)
    return [*before, own]


def input_gradient_launches(
    layer: Layer, gy: Tensor, saved: Tensor | None, gx: Tensor, before: Before | None = None
) -> list[Launch]:
    """All launches that fill gx; see `conv_input_gradient.launch`."""
    w, first = layer.weights()
    own = conv_input_gradient.launch(
        gy=gy, saved=saved, w=w, gx=gx, before=before or Before(), **layer.same
    )
    return [*first, own]


WeightGradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def weight_gradient_launch(
    layer: Layer, gy: Tensor, saved: Tensor | None, x: Tensor, images: int,
    needs: tuple[bool, bool, bool],
) -> tuple[Launch, WeightGradients]:  # fmt: skip
    """Prepare the launch, and the shares [S, N, ...] of gw, gb, gs that it fills."""
    g = layer.geometry
    programs = ON_CPU
    if x.device.type == "cuda":
        gpu = torch.cuda.get_device_properties(x.device)
        programs = PROGRAMS * gpu.multi_processor_count
    parts = conv_weight_gradient.shares(
        images, x.shape[1], len(layer.alpha), g, layer.mode, programs, needs[0]
    )
    shapes = ((g.outputs, *g.kernel, g.channels), (g.outputs,), (g.outputs,))
    gw, gb, gs = (
        x.new_empty(parts, images, *shape, dtype=torch.float32) if need else None
        for shape, need in zip(shapes, needs, strict=True)
    )
    own = conv_weight_gradient.launch(
        gy=gy, saved=saved, x=x, gw=gw, gb=gb, gs=gs, images=images, **layer.same
    )
    return own, (gw, gb, gs)


def weight_gradient(
    layer: Layer, gy: Tensor, saved: Tensor | None, x: Tensor, images: int,
    needs: tuple[bool, bool, bool],
) -> WeightGradients:  # fmt: skip
    """Gw [N, O, *k, C], gb [N, O] and gs [N, O] in float32; None for gradients not needed."""
    own, shares = weight_gradient_launch(layer, gy, saved, x, images, needs)
    own.run()
    gw, gb, gs = (p if p is None else p[0] if len(p) == 1 else p.sum(0) for p in shares)
    return gw, gb, gs


def run(launches: list[Launch]) -> None:
    """Run launches in order."""
    for launch in launches:
        launch.run()
