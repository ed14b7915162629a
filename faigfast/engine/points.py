"""Points of the line that a chunk evaluates, and tensors that move along the line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from faigfast.engine.samples import Samples
from faigfast.integration.cells import Cell, cells_of
from faigfast.ops.parameter import parameter
from faigfast.ops.path_values import on_device, wide
from faigfast.ops.registry import in_use


@dataclass(frozen=True, eq=False)
class Moving:
    """A tensor that moves along the line.

    Parameters
    ----------
    w0, dw : Tensor
        [*w], baseline and Δ; at a single point γ(α) and None.
    gradient_sums : Tensor
        [N, *w]; its gradient is the tensor's gradient of each image, summed over points.
    """

    w0: Tensor
    dw: Tensor | None
    gradient_sums: Tensor


@dataclass(frozen=True)
class Points:
    """Points of the line at which a chunk is evaluated, and its number of images.

    Parameters
    ----------
    nodes : tuple of float
        α_s, P of them.
    images : int
        N.
    alpha : Tensor
        [P], the nodes in the type, at least float32, and on the device of the images.
    cells : tuple of Cell, optional
        Of the nodes; kinks then have their mean slopes in backward.
    """

    nodes: tuple[float, ...]
    images: int
    alpha: Tensor
    cells: tuple[Cell, ...] | None = None

    @classmethod
    def at(
        cls,
        nodes: Iterable[float],
        x: Tensor,
        ends: Sequence[Sequence[float]] | None = None,
    ) -> "Points":
        """Points for images x [N, C, *spatial]; `ends` [P, 2] are those of the nodes' cells."""
        nodes = tuple(map(float, nodes))
        alpha = on_device(nodes, wide(x.dtype), x.device)
        cells = None if ends is None else tuple(cells_of(nodes, ends))
        return cls(nodes, len(x), alpha, cells)

    def raw(self, value: Any) -> Any:
        """Give a value to an operation without a rule; a moving tensor becomes `Samples`."""
        if not isinstance(value, Moving):
            return value
        at_points = parameter(value.w0, value.dw, self.alpha, value.gradient_sums)  # [P, N, *w]
        return Samples(to_activation_type(at_points))

    def every_image(self, x: Any) -> Tensor:
        """[P, N, *own] or [1, N, *own] of any value."""
        x = self.raw(x)
        if isinstance(x, Samples):
            return x.data.expand(-1, self.images, *x.own)
        return x.expand(1, self.images, *x.shape)


def to_activation_type(value: Tensor) -> Tensor:
    """Cast a value of the line to the type of activations, where that is narrower."""
    return value.to(in_use().values or value.dtype)


def parts_of(value: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """(w0, Δ, gradient sums) of a moving or fixed tensor."""
    if isinstance(value, Moving):
        return value.w0, value.dw, value.gradient_sums
    return value, None, None
