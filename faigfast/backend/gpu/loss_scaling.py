"""Powers of two that keep gradients of 16 bits in range, image by image, chosen on the device.

They travel with the gradient: chosen as the loss gradient enters a network and again between its
stretches of layers, and taken off the gradients of weights, in float32, as those leave.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TOP = 8  # a gradient's largest magnitude is brought below 2^8, with as much room above
STEP = 8  # by which an overflow lowers the exponent
LEAST = -24  # below which nothing but an infinity overflows
MOST = 100  # of an exponent, so that it is a number of float32


class Stretch:
    """Layers whose gradients have one exponent for each image.

    Attributes
    ----------
    exponents : Tensor or None
        [N], int; None before backward has come here, and where nothing is scaled.
    """

    def __init__(self) -> None:
        self.exponents: Tensor | None = None


class GradientScale:
    """Scales the loss gradient as it enters a network, and again on its way.

    Attributes
    ----------
    lowered : int
        By how much overflows have lowered all exponents, of the images that are computed.
    least : int
        The lowest that it was, of all images.
    last : Stretch
        That of the layers before the loss, in the forward that ran last.
    """

    def __init__(self) -> None:
        self.lowered = self.least = 0
        self.last = Stretch()

    def enter(self, output: Tensor, dtype: torch.dtype, images: int) -> Tensor:
        """Give a network's output in another type; gradients are scaled on their way back.

        Parameters
        ----------
        output : Tensor
            [P, N, ...].
        dtype : torch.dtype
            Of the result.
        images : int
            N; what is [P, 1, ...], for all images together, is not scaled.
        """
        if output.shape[1] != images or not output.requires_grad:
            return output.to(dtype)
        found: Tensor = _Enter.apply(output, dtype, self)
        return found

    def factor(self, largest: Tensor) -> Tensor:
        """Give powers of two [N] for loss gradients of such magnitudes [N]; those chosen stay."""
        if self.last.exponents is None:
            self.last.exponents = self.towards_top(largest)
        return power_of_two(self.last.exponents).to(largest.dtype)

    def towards_top(self, largest: Tensor) -> Tensor:
        """Exponents [N] that bring magnitudes [N] where they should be; 0 where none can."""
        exponent = TOP - torch.frexp(largest.float()).exponent
        usable = (largest > 0) & largest.isfinite()
        return torch.where(usable, exponent, 0).clamp(-MOST, MOST) + self.lowered

    def overflowed(self, sums: Mapping[str, Tensor]) -> bool:
        """Whether a sum is not finite and a lower exponent may help; then it is lowered."""
        finite = torch.stack([value.isfinite().all() for value in sums.values()]).all()
        if bool(finite) or self.lowered <= LEAST:
            return False
        self.lowered -= STEP
        self.least = min(self.least, self.lowered)
        return True

    def begin(self) -> None:
        """Go on to other images: what overflowed before may be small there."""
        self.lowered = 0


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float32, exactly, for exponents of -126 to 127."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def unscaled(sums: Tensor, stretch: Stretch) -> Tensor:
    """Give where gradients [N, ...] of a stretch's weights are collected; they lose its scale."""
    found: Tensor = _Unscale.apply(sums, stretch)
    return found


def rescaled(
    values: Sequence[Tensor], scale: GradientScale, before: Stretch, after: Stretch
) -> tuple[Tensor, ...]:
    """Give the values that pass to the next stretch; gradients get the exponents of `before`.

    Parameters
    ----------
    values : sequence of Tensor
        [P, N, ...] or [1, N, ...]; their gradients of one image have one exponent in common.
    scale : GradientScale
        Says where the largest of them belongs.
    before, after : Stretch
        The layers that made the values, and those that take them.
    """
    found: tuple[Tensor, ...] = _Rescale.apply(scale, before, after, *values)
    return found


def _by_image(factor: Tensor, like: Tensor) -> Tensor:
    """[N] beside [P, N, ...]."""
    return factor.view(1, -1, *[1] * (like.ndim - 2))


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, dtype: torch.dtype, scale: GradientScale) -> Tensor:
        ctx.scale, ctx.dtype = scale, output.dtype
        return output.to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        factor = ctx.scale.factor(_largest(gradient))
        return (gradient * _by_image(factor, gradient)).to(ctx.dtype), None, None


class _Unscale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, stretch: Stretch) -> Tensor:
        ctx.stretch = stretch
        return sums.view_as(sums)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        exponents = ctx.stretch.exponents
        if exponents is None:
            return gradient, None
        factor = power_of_two(-exponents).to(gradient.dtype)
        return gradient * factor.view(-1, *[1] * (gradient.ndim - 1)), None


class _Rescale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scale: GradientScale, before: Stretch, after: Stretch, *values: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.scale, ctx.before, ctx.after = scale, before, after
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        given = [part for part in gradients if part is not None]
        if not given:
            return (None, None, None, *gradients)
        largest = torch.stack([_largest(part) for part in given]).amax(0)
        old = ctx.after.exponents
        old = torch.zeros_like(largest, dtype=torch.int32) if old is None else old
        ctx.before.exponents = (old + ctx.scale.towards_top(largest)).clamp(-MOST, MOST)
        factor = power_of_two(ctx.before.exponents - old)

        def moved(part: Tensor | None) -> Tensor | None:
            if part is None:
                return None
            # In float32 inside: the factor alone may be out of range.
            return torch.mul(part, _by_image(factor, part), out=torch.empty_like(part))

        return (None, None, None, *map(moved, gradients))


def _largest(gradient: Tensor) -> Tensor:
    """Magnitudes [N] of a gradient [P, N, ...]."""
    others = [d for d in range(gradient.ndim) if d != 1]
    return torch.linalg.vector_norm(gradient, torch.inf, others)
