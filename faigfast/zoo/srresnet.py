"""SRResNet without batch norm, under BasicSR's state-dict keys (MSRResNet)."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import residual_conv


class ResidualBlock(nn.Module):
    """x + conv2(relu(conv1(x))), both convolutions 3×3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = residual_conv(width, width)
        self.conv2 = residual_conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x + self.conv2(F.relu(self.conv1(x)))


class SRResNet(nn.Module):
    """Super-resolution by residual blocks, pixel shuffle and a bilinear skip.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the image; equal, since the enlarged input is added to the output.
    width : int
        Channels of the features.
    blocks : int
        Number of residual blocks.
    scale : {2, 3, 4}
        Enlargement.

    Raises
    ------
    ValueError
        If `scale` is another, the channels differ or a size is not positive.

    Notes
    -----
    Source: Ledig et al., CVPR 2017, as modified in BasicSR; keys as in its MSRResNet.

    Examples
    --------
    >>> import torch
    >>> net = SRResNet(width=8, blocks=2, scale=2)
    >>> net(torch.rand(1, 3, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        blocks: int = 16,
        scale: int = 4,
    ) -> None:
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale is {scale}; SRResNet enlarges by 2, 3 or 4")
        if in_channels != out_channels:
            raise ValueError(
                f"in_channels {in_channels} and out_channels {out_channels} differ; "
                "SRResNet adds its enlarged input to its output"
            )
        if min(in_channels, width) < 1 or blocks < 0:
            raise ValueError(
                f"in_channels {in_channels} and width {width} must be positive and "
                f"blocks {blocks} not negative"
            )
        self.scale = scale
        step = 2 if scale == 4 else scale
        self.conv_first = residual_conv(in_channels, width)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.upconv1 = residual_conv(width, width * step * step)
        if scale == 4:
            self.upconv2 = residual_conv(width, width * step * step)
        self.pixel_shuffle = nn.PixelShuffle(step)
        self.conv_hr = residual_conv(width, width)
        self.conv_last = residual_conv(width, out_channels)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "SRResNet":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with MSRResNet's keys.

        Returns
        -------
        SRResNet
            Its width, depth and scale follow from the shapes.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit SRResNet.
        """
        wanted = ("conv_first.weight", "upconv1.weight", "conv_hr.weight", "conv_last.weight")
        missing = [key for key in wanted if key not in state or state[key].ndim != 4]
        if missing:
            raise ValueError(f"SRResNet needs a 4-D tensor {missing[0]!r}")
        width, in_channels = state["conv_first.weight"].shape[:2]
        grown = state["upconv1.weight"].shape[0]
        scales = {4 * width: 4 if "upconv2.weight" in state else 2, 9 * width: 3}
        if grown not in scales:
            raise ValueError(
                f"SRResNet of width {width} needs 'upconv1.weight' with {4 * width} or "
                f"{9 * width} output channels, found {grown}"
            )
        blocks = len({key.split(".")[1] for key in state if key.startswith("body.")})
        return cls(in_channels, state["conv_last.weight"].shape[0], width, blocks, scales[grown])

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x [N, C, H, W] to [N, C, scale·H, scale·W]."""

        def activate(features: Tensor) -> Tensor:
            return F.leaky_relu(features, 0.1)

        y = self.body(activate(self.conv_first(x)))
        y = activate(self.pixel_shuffle(self.upconv1(y)))
        if self.scale == 4:
            y = activate(self.pixel_shuffle(self.upconv2(y)))
        y = self.conv_last(activate(self.conv_hr(y)))
        return y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
