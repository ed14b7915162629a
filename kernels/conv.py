"""The path convolution: chooses tiles, forms γ(α) if the tile asks for it, runs the kernels."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from faigfast.backend.gpu.timed_choices import rounded
from faigfast.kernels import (
    conv_forward,
    conv_input_gradient,
    conv_weight_gradient,
    path_weights,
    tiles,
    tuning,
)
from faigfast.kernels.geometry import Geometry
from faigfast.kernels.launch import Launch, Tile
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

    def weights(self, tile: Tile) -> tuple[tuple[Tensor, Tensor | None], list[Launch]]:
        """Give the weights that the kernel reads, and the launch that forms them."""
        w0, dw = self.w
        if dw is None or not tile.formed:
            return self.w, []
        w = w0.new_empty(len(self.alpha), *w0.shape, dtype=STORED[self.mode])
        return (w, None), [path_weights.launch(w0, dw, self.alpha, w)]

    def key(self, kernel: str, pixels: int, **others: object) -> str:
        """Key of this layer's shape among the timed choices."""
        g = self.geometry
        return tuning.shape_key(
            kernel, self.mode, channels=f"{g.channels}-{g.outputs}", taps=f"{g.kernel}",
            stride=f"{g.stride}", dilation=f"{g.dilation}", pixels=rounded(pixels),
            points=rounded(len(self.alpha)), activation=self.activation, shuffle=g.shuffle,
            **others,
        )  # fmt: skip


def forward_launches(
    layer: Layer, x: Tensor, b: OnLine, rest: Tensor | None, y: Tensor, saved: Tensor | None,
    keeps: str, tile: Tile,
) -> list[Launch]:  # fmt: skip
    """All launches of the forward pass, in order."""
    w, before = layer.weights(tile)
    own = conv_forward.launch(
        x=x, w=w, b=b, rest=rest, y=y, saved=saved, keeps=keeps, tile=tile, **layer.same
    )
    return [*before, own]


def forward(
    layer: Layer, x: Tensor, b: OnLine, rest: Tensor | None, y: Tensor, saved: Tensor | None,
    keeps: str,
) -> None:  # fmt: skip
    """Fill y, and `saved` according to `keeps`; see `conv_forward.launch`."""
    g = layer.geometry

    def attempt(tile: Tile) -> None:
        run(forward_launches(layer, x, b, rest, y, saved, keeps, tile))

    tile = tuning.chosen(
        layer.key("conv_forward", y[0, ..., 0].numel(), keeps=keeps, residual=rest is not None),
        x.device, tiles.forward(layer.mode, g.outputs, g.channels, g.shuffle), attempt,
    )  # fmt: skip
    attempt(tile)


def input_gradient_launches(
    layer: Layer, gy: Tensor, saved: Tensor | None, gx: Tensor, tile: Tile
) -> list[Launch]:
    """All launches of the input gradient, in order."""
    w, before = layer.weights(tile)
    own = conv_input_gradient.launch(gy=gy, saved=saved, w=w, gx=gx, tile=tile, **layer.same)
    return [*before, own]


def input_gradient(layer: Layer, gy: Tensor, saved: Tensor | None, gx: Tensor) -> None:
    """Fill gx; see `conv_input_gradient.launch`."""
    g = layer.geometry

    def attempt(tile: Tile) -> None:
        run(input_gradient_launches(layer, gy, saved, gx, tile))

    tile = tuning.chosen(
        layer.key("conv_input_gradient", gx[0, ..., 0].numel()), gx.device,
        tiles.input_gradient(layer.mode, g.channels, g.outputs), attempt,
    )  # fmt: skip
    attempt(tile)


WeightGradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def weight_gradient_launch(
    layer: Layer, gy: Tensor, saved: Tensor | None, x: Tensor, images: int,
    needs: tuple[bool, bool, bool], tile: Tile,
) -> tuple[Launch, WeightGradients]:  # fmt: skip
    """Prepare the launch, and the shares [S, N, ...] of gw, gb, gs that it fills."""
    g = layer.geometry
    programs = ON_CPU
    if x.device.type == "cuda":
        gpu = torch.cuda.get_device_properties(x.device)
        programs = PROGRAMS * gpu.multi_processor_count
    parts = conv_weight_gradient.shares(
        images, x.shape[1], len(layer.alpha), g, tile, programs, needs[0]
    )
    shapes = ((g.outputs, *g.kernel, g.channels), (g.outputs,), (g.outputs,))
    gw, gb, gs = (
        x.new_empty(parts, images, *shape, dtype=torch.float32) if need else None
        for shape, need in zip(shapes, needs, strict=True)
    )
    own = conv_weight_gradient.launch(
        gy=gy, saved=saved, x=x, gw=gw, gb=gb, gs=gs, images=images, tile=tile, **layer.same
    )
    return own, (gw, gb, gs)


def weight_gradient(
    layer: Layer, gy: Tensor, saved: Tensor | None, x: Tensor, images: int,
    needs: tuple[bool, bool, bool],
) -> WeightGradients:  # fmt: skip
    """Gw [N, O, *k, C], gb [N, O] and gs [N, O] in float32; None for gradients not needed."""
    g = layer.geometry

    def attempt(tile: Tile) -> WeightGradients:
        own, shares = weight_gradient_launch(layer, gy, saved, x, images, needs, tile)
        own.run()
        gw, gb, gs = (p if p is None else p[0] if len(p) == 1 else p.sum(0) for p in shares)
        return gw, gb, gs

    tile = tuning.chosen(
        layer.key(
            "conv_weight_gradient", gy[0, ..., 0].numel(), images=rounded(images),
            needs="".join("wbs"[i] for i in range(3) if needs[i]),
        ),
        x.device, tiles.weight_gradient(layer.mode, g.outputs, g.channels), attempt,
    )  # fmt: skip
    return attempt(tile)


def run(launches: list[Launch]) -> None:
    """Run launches in order."""
    for launch in launches:
        launch.run()
