"""Powers of two that keep gradients of 16 bits in range, image by image, chosen on the device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

TOP = 8  # the loss gradient's largest magnitude is brought below 2^8, with as much room above
STEP = 8  # by which an overflow lowers the exponent
LEAST = -24  # below which nothing but an infinity overflows


class GradientScale:
    """Scales the loss gradient as it enters a network, and sums of gradients back.

    The exponent of an image follows from the first loss gradient since sums were last taken out,
    without asking the device for it; all sums until then have it in common.
    """

    def __init__(self) -> None:
        self.lowered = 0
        self.exponents: Tensor | None = None

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
        if self.exponents is None:
            exponent = TOP - torch.frexp(largest.float()).exponent
            usable = (largest > 0) & largest.isfinite()
            self.exponents = torch.where(usable, exponent, 0).clamp(-60, 60) + self.lowered
        return power_of_two(self.exponents).to(largest.dtype)

    def leave(self, sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scale sums of gradients [N, ...] back; the next exponents are new."""
        if self.exponents is None:
            return dict(sums)
        factor = power_of_two(-self.exponents)
        self.exponents = None
        return {
            key: value * factor.to(value.dtype).view(-1, *[1] * (value.ndim - 1))
            for key, value in sums.items()
        }

    def overflowed(self, sums: Mapping[str, Tensor]) -> bool:
        """Whether a sum is not finite and a lower exponent may help; then it is lowered."""
        finite = torch.stack([value.isfinite().all() for value in sums.values()]).all()
        if bool(finite) or self.lowered <= LEAST:
            return False
        self.lowered -= STEP
        return True


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float32, exactly, for exponents of -126 to 127."""
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, dtype: torch.dtype, scale: GradientScale) -> Tensor:
        ctx.scale, ctx.dtype = scale, output.dtype
        return output.to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        factor = ctx.scale.factor(gradient.abs().transpose(0, 1).flatten(1).amax(1))
        scaled = gradient * factor.view(1, -1, *[1] * (gradient.ndim - 2))
        return scaled.to(ctx.dtype), None, None
