"""EDSR under BasicSR's state-dict keys."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import RGB_MEAN, check_fits, conv3x3, count, shape_of, shuffle_scale
from faigfast.zoo.trunk import Trunk


class ScaledBlock(nn.Module):
    """x + res_scale · conv2(relu(conv1(x))), both convolutions 3×3."""

    def __init__(self, width: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = conv3x3(width, width)
        self.conv2 = conv3x3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x + self.res_scale * self.conv2(F.relu(self.conv1(x)))


class EDSR(Trunk):
    """Super-resolution by residual blocks, one long skip and pixel shuffle.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the images; as many as `rgb_mean` has.
    width : int
        Channels of the features.
    blocks : int
        Number of residual blocks.
    scale : int
        Enlargement: 3 or a power of two, one pixel shuffle per factor.
    res_scale : float
        Factor of every block's residual.
    img_range : float
        Factor of the images inside the network.
    rgb_mean : sequence of float
        Mean of every channel, subtracted inside; not part of the state dict.

    Raises
    ------
    ValueError
        If `scale` is another, a size is not positive or a channel has no mean.

    Notes
    -----
    Source: Lim et al., CVPRW 2017; keys as in BasicSR's EDSR. Published are M (64 wide,
    16 blocks, residuals as they are) and L (256 wide, 32 blocks, residuals times 0.1).

    Examples
    --------
    >>> import torch
    >>> net = EDSR(width=8, blocks=2, scale=2)
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
        res_scale: float = 1.0,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = RGB_MEAN,
    ) -> None:
        if min(width, blocks) < 1:
            raise ValueError(f"width {width} and blocks {blocks} must be positive")
        body = nn.Sequential(*(ScaledBlock(width, res_scale) for _ in range(blocks)))
        super().__init__(body, in_channels, out_channels, width, scale, img_range, rgb_mean)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "EDSR":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of BasicSR's EDSR.

        Returns
        -------
        EDSR
            Its width, depth and scale follow from the shapes. Nothing gives the rest: `res_scale`
            is 0.1 for the published size L (256 wide, 32 blocks) and 1 for all others, `img_range`
            and `rgb_mean` are the defaults.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit EDSR.
        """
        width, in_channels = shape_of("EDSR", state, "conv_first.weight")[:2]
        shape_of("EDSR", state, "body.0.conv1.weight")
        out_channels = shape_of("EDSR", state, "conv_last.weight")[0]
        blocks, scale = count(state, "body."), shuffle_scale(state)
        res_scale = 0.1 if (width, blocks) == (256, 32) else 1.0
        network = cls(in_channels, out_channels, width, blocks, scale, res_scale)
        check_fits(f"EDSR of width {width}, {blocks} blocks and ×{scale}", network, state)
        return network
