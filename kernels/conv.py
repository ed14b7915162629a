"""The path convolution: forms γ(α) and runs the kernels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from faigfast.kernels import (
    conv_forward,
    conv_input_gradient,
    conv_weight_gradient,
    path_weights,
)
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
    own = conv_forward.launch(
        x, w, b, layer.s, layer.alpha, rest, y, saved, keeps, layer.geometry, layer.activation,
        layer.slope, layer.scale, layer.mode,
    )  # fmt: skip
    return [*before, own]


def input_gradient_launches(layer: Layer, g: Tensor, gx: Tensor) -> list[Launch]:
    """All launches that fill gx; see `conv_input_gradient.launch`."""
    w, first = layer.weights()
    return [*first, conv_input_gradient.launch(g, w, gx, layer.geometry, layer.mode)]


def weight_gradient_launch(
    layer: Layer, g: Tensor, x: Tensor, images: int
) -> tuple[Launch, Tensor]:
    """Prepare the launch, and the shares [S, N, O, *k, C] that it fills."""
    size = layer.geometry
    programs = ON_CPU
    if x.device.type == "cuda":
        gpu = torch.cuda.get_device_properties(x.device)
        programs = PROGRAMS * gpu.multi_processor_count
    parts = conv_weight_gradient.shares(
        images, x.shape[1], len(layer.alpha), size, layer.mode, programs
    )
    shape = parts, images, size.outputs, *size.kernel, size.channels
    gw = x.new_empty(shape, dtype=torch.float32)
    return conv_weight_gradient.launch(g, x, gw, images, size, layer.mode), gw


def weight_gradient(layer: Layer, g: Tensor, x: Tensor, images: int) -> Tensor:
    """Gw [N, O, *k, C] in float32."""
    own, shares = weight_gradient_launch(layer, g, x, images)
    own.run()
    return shares[0] if len(shares) == 1 else shares.sum(0)


def run(launches: list[Launch]) -> None:
    """Run launches in order."""
    for launch in launches:
        launch.run()
