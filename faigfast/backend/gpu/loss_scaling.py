"""Powers of two that keep gradients of 16 bits in range, image by image, chosen on the device.

Each scale stays with its gradient: chosen as the loss gradient enters a network and again between
segments of layers, and removed from the gradients of weights, in float32.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

TOP = 8  # a gradient's largest magnitude becomes less than 2^8; fp16 ends near 2^16
STEP = 8  # an overflow lowers the exponent by this
MIN_LOWERING = -24  # below it only an infinity overflows
MAX_EXPONENT = 100  # largest exponent: 2^100 is a float32 number


class ScalingSegment:
    """Layers whose gradients share one exponent for each image.

    Attributes
    ----------
    exponents : Tensor or None
        [N], int; None before backward reaches the segment, and where nothing is scaled.
    """

    def __init__(self) -> None:
        self.exponents: Tensor | None = None


class GradientScale:
    """Scales the loss gradient as it enters a network, and again between segments.

    Attributes
    ----------
    lowered : int
        Change of all exponents after overflows, for the current images.
    least : int
        Smallest `lowered` of all images.
    last : ScalingSegment
        Segment before the loss, in the latest forward.
    """

    def __init__(self) -> None:
        self.lowered = self.least = 0
        self.last = ScalingSegment()

    def enter(self, output: Tensor, dtype: torch.dtype, images: int) -> Tensor:
        """Cast a network's output; backward scales its gradient.

        Parameters
        ----------
        output : Tensor
            [P, N, ...].
        dtype : torch.dtype
            Type of the result.
        images : int
            N; an output [P, 1, ...], shared by images, is not scaled.
        """
        if output.shape[1] != images or not output.requires_grad:
            return output.to(dtype)
        cast: Tensor = _Enter.apply(output, dtype, self)
        return cast

    def factor(self, largest: Tensor) -> Tensor:
        """Powers of two [N] for loss gradients of given magnitudes [N]; the first choice stays."""
        if self.last.exponents is None:
            self.last.exponents = self.towards_top(largest)
        return power_of_two(self.last.exponents).to(largest.dtype)

    def towards_top(self, largest: Tensor) -> Tensor:
        """Exponents [N] that bring magnitudes [N] below 2^TOP; 0 for zeros, infinities and NaN."""
        exponent = TOP - torch.frexp(largest.float()).exponent
        usable = (largest > 0) & largest.isfinite()
        return torch.where(usable, exponent, 0).clamp(-MAX_EXPONENT, MAX_EXPONENT) + self.lowered

    def overflowed(self, gradients: Mapping[str, Tensor]) -> bool:
        """Whether a gradient is not finite and a lower exponent may help; then lower it."""
        largest = torch.stack(torch._foreach_norm(list(gradients.values()), torch.inf))
        if bool(largest.isfinite().all()) or self.lowered <= MIN_LOWERING:
            return False
        self.lowered -= STEP
        self.least = min(self.least, self.lowered)
        return True

    def begin(self) -> None:
        """Reset for other images, whose gradients may not overflow."""
        self.lowered = 0


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float32, exactly, for exponents of -126 to 127."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def unscaled(gradient_sums: Tensor, segment: ScalingSegment) -> Tensor:
    """Pass gradient sums [G·N, ...] of a segment's weights; backward removes its scale."""
    view: Tensor = _Unscale.apply(gradient_sums, segment)
    return view


def rescaled(
    values: Sequence[Tensor], scale: GradientScale, before: ScalingSegment, after: ScalingSegment
) -> tuple[Tensor, ...]:
    """Pass values to the next segment; their gradients get the exponents of `before`.

    Parameters
    ----------
    values : sequence of Tensor
        [P, N, ...] or [1, N, ...]; the gradients of one image share one exponent.
    scale : GradientScale
        Chooses the exponents.
    before, after : ScalingSegment
        Layers that make the values, and layers that take them.
    """
    views: tuple[Tensor, ...] = _Rescale.apply(scale, before, after, *values)
    return views


def _by_image(factor: Tensor, like: Tensor) -> Tensor:
    """Shape a factor [N] so that it broadcasts over [P, N, ...]."""
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
    def forward(ctx: Any, gradient_sums: Tensor, segment: ScalingSegment) -> Tensor:
        ctx.segment = segment
        return gradient_sums.view_as(gradient_sums)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        exponents = ctx.segment.exponents
        if exponents is None:
            return gradient, None
        factor = power_of_two(-exponents).to(gradient.dtype)
        factor = factor.repeat(len(gradient) // len(factor))  # in each phase of the sums
        return gradient * factor.view(-1, *[1] * (gradient.ndim - 1)), None


class _Rescale(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        scale: GradientScale,
        before: ScalingSegment,
        after: ScalingSegment,
        *values: Tensor,
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
        ctx.before.exponents = (old + ctx.scale.towards_top(largest)).clamp(
            -MAX_EXPONENT, MAX_EXPONENT
        )
        factor = power_of_two(ctx.before.exponents - old)

        def scaled(part: Tensor | None) -> Tensor | None:
            if part is None:
                return None
            # `mul` computes in float32: the factor alone may exceed the gradient's type.
            return torch.mul(part, _by_image(factor, part), out=torch.empty_like(part))

        return (None, None, None, *map(scaled, gradients))


def _largest(gradient: Tensor) -> Tensor:
    """Largest magnitudes [N] of a gradient [P, N, ...]."""
    others = [d for d in range(gradient.ndim) if d != 1]
    return torch.linalg.vector_norm(gradient, torch.inf, others)
