"""SRVGGNetCompact, Real-ESRGAN's small network, under BasicSR's state-dict keys."""

import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import check_fits, conv3x3, count, shape_of


class SRVGGNetCompact(nn.Module):
    """Super-resolution by a plain stack of convolutions, added to the nearest enlargement.

    Parameters
    ----------
    channels : int
        Channels of the images.
    width : int
        Channels of the features.
    depth : int
        Convolutions between the first and the last, each with a PReLU.
    scale : int
        Enlargement, by one pixel shuffle.

    Raises
    ------
    ValueError
        If a size is not positive.

    Notes
    -----
    Source: Wang et al., ICCVW 2021; keys as in BasicSR's SRVGGNetCompact with PReLU. The published
    realesr-general-x4v3 has a depth of 32, realesr-animevideov3 of 16.

    Examples
    --------
    >>> import torch
    >>> net = SRVGGNetCompact(width=8, depth=2, scale=2)
    >>> net(torch.rand(1, 3, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    def __init__(self, channels: int = 3, width: int = 64, depth: int = 32, scale: int = 4) -> None:
        super().__init__()
        if min(channels, width, scale) < 1 or depth < 0:
            raise ValueError(
                f"channels {channels}, width {width} and scale {scale} must be positive, and depth "
                f"{depth} not negative"
            )
        self.channels, self.scale = channels, scale
        layers: list[nn.Module] = [conv3x3(channels, width), nn.PReLU(width)]
        for _ in range(depth):
            layers += [conv3x3(width, width), nn.PReLU(width)]
        self.body = nn.Sequential(*layers, conv3x3(width, scale**2 * channels))

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "SRVGGNetCompact":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of BasicSR's SRVGGNetCompact.

        Returns
        -------
        SRVGGNetCompact
            Its sizes and the scale follow from keys and shapes.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit SRVGGNetCompact.
        """
        family = cls.__name__
        width, channels = shape_of(family, state, "body.0.weight")[:2]
        shape_of(family, state, "body.1.weight", 1)
        last = count(state, "body.") - 1
        shuffled = shape_of(family, state, f"body.{last}.weight")[0]
        scale, depth = math.isqrt(shuffled // max(1, channels)), last // 2 - 1
        network = cls(channels, width, depth, scale)
        check_fits(f"{family} of width {width}, depth {depth} and ×{scale}", network, state)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x [N, C, H, W] to [N, C, scale·H, scale·W]."""
        y = F.pixel_shuffle(self.body(x), self.scale)
        return y + F.interpolate(x, scale_factor=self.scale, mode="nearest")
