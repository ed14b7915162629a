"""RCAN, residual channel attention, under BasicSR's state-dict keys."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from faigfast.zoo.blocks import RGB_MEAN, check_fits, conv3x3, count, shape_of, shuffle_scale
from faigfast.zoo.trunk import Trunk


class ChannelAttention(nn.Module):
    """Multiply every channel with a factor in (0, 1) made of all channels' means."""

    def __init__(self, width: int, squeeze: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width // squeeze, 1),
            nn.ReLU(),
            nn.Conv2d(width // squeeze, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x * self.attention(x)


class AttentionBlock(nn.Module):
    """x + res_scale · attention(conv(relu(conv(x))))."""

    def __init__(self, width: int, squeeze: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.rcab = nn.Sequential(
            conv3x3(width, width),
            nn.ReLU(),
            conv3x3(width, width),
            ChannelAttention(width, squeeze),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x + self.res_scale * self.rcab(x)


class AttentionGroup(nn.Module):
    """x + conv(blocks(x))."""

    def __init__(self, width: int, blocks: int, squeeze: int, res_scale: float) -> None:
        super().__init__()
        self.residual_group = nn.Sequential(
            *(AttentionBlock(width, squeeze, res_scale) for _ in range(blocks))
        )
        self.conv = conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x + self.conv(self.residual_group(x))


class RCAN(Trunk):
    """Super-resolution by groups of residual blocks with channel attention.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the images; as many as `rgb_mean` has.
    width : int
        Channels of the features.
    groups : int
        Number of residual groups.
    blocks : int
        Attention blocks of a group.
    scale : int
        Enlargement: 3 or a power of two, one pixel shuffle per factor.
    squeeze : int
        The attention passes through width // squeeze channels.
    res_scale : float
        Factor of every block's residual.
    img_range : float
        Factor of the images inside the network.
    rgb_mean : sequence of float
        Mean of every channel, subtracted inside; not part of the state dict.

    Raises
    ------
    ValueError
        If `scale` is another, a size is not positive, `squeeze` is above `width` or a channel has
        no mean.

    Notes
    -----
    Source: Zhang et al., ECCV 2018; keys as in BasicSR's RCAN. The published networks have
    10 groups of 20 blocks.

    Examples
    --------
    >>> import torch
    >>> net = RCAN(width=8, groups=2, blocks=1, squeeze=4, scale=2)
    >>> net(torch.rand(1, 3, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        groups: int = 10,
        blocks: int = 16,
        scale: int = 4,
        squeeze: int = 16,
        res_scale: float = 1.0,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = RGB_MEAN,
    ) -> None:
        if min(width, groups, blocks, squeeze) < 1 or squeeze > width:
            raise ValueError(
                f"width {width}, groups {groups}, blocks {blocks} and squeeze {squeeze} must be "
                "positive, and squeeze at most the width"
            )
        body = nn.Sequential(
            *(AttentionGroup(width, blocks, squeeze, res_scale) for _ in range(groups))
        )
        super().__init__(body, in_channels, out_channels, width, scale, img_range, rgb_mean)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "RCAN":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of BasicSR's RCAN.

        Returns
        -------
        RCAN
            Its sizes and the scale follow from the shapes. Nothing gives `res_scale`, `img_range`
            and `rgb_mean`, which are the defaults, as in the published networks.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit RCAN.
        """
        width, in_channels = shape_of("RCAN", state, "conv_first.weight")[:2]
        narrow = shape_of("RCAN", state, "body.0.residual_group.0.rcab.3.attention.1.weight")[0]
        out_channels = shape_of("RCAN", state, "conv_last.weight")[0]
        groups, blocks = count(state, "body."), count(state, "body.0.residual_group.")
        scale = shuffle_scale(state)
        squeeze = width // max(1, narrow)
        network = cls(in_channels, out_channels, width, groups, blocks, scale, squeeze)
        description = f"RCAN of width {width}, {groups} groups of {blocks} blocks and ×{scale}"
        check_fits(description, network, state)
        return network
