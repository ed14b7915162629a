"""Common part of EDSR and RCAN: everything around the body."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from faigfast.zoo.blocks import RGB_MEAN, Upsample, conv3x3


class Trunk(nn.Module):
    """Subtract the mean, extract features, add the body to them, enlarge and put the mean back.

    Parameters
    ----------
    body : nn.Module
        Maps features [N, width, H, W] to the same shape.
    in_channels, out_channels : int
        Channels of the images.
    width : int
        Channels of the features.
    scale : int
        Enlargement: 3 or a power of two, one pixel shuffle per factor.
    img_range : float
        Factor of the images inside the network.
    rgb_mean : sequence of float
        Mean of every channel; not part of the state dict.

    Raises
    ------
    ValueError
        If `scale` is another, `img_range` not positive or a channel without a mean.
    """

    mean: Tensor

    def __init__(
        self,
        body: nn.Module,
        in_channels: int,
        out_channels: int,
        width: int,
        scale: int,
        img_range: float,
        rgb_mean: Sequence[float] = RGB_MEAN,
    ) -> None:
        super().__init__()
        if not in_channels == out_channels == len(rgb_mean):
            raise ValueError(
                f"in_channels {in_channels} and out_channels {out_channels} must be as many as "
                f"rgb_mean has values, {len(rgb_mean)}"
            )
        if not img_range > 0:
            raise ValueError(f"img_range {img_range} must be positive")
        self.scale, self.img_range = scale, img_range
        self.register_buffer("mean", torch.tensor(rgb_mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = conv3x3(in_channels, width)
        self.body = body
        self.conv_after_body = conv3x3(width, width)
        self.upsample = Upsample(scale, width)
        self.conv_last = conv3x3(width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x [N, C, H, W] to [N, C, scale·H, scale·W]."""
        mean = self.mean.to(x)
        first = self.conv_first((x - mean) * self.img_range)
        y = self.conv_after_body(self.body(first)) + first
        return self.conv_last(self.upsample(y)) / self.img_range + mean
