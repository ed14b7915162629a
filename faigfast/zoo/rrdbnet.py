"""RRDBNet, the generator of ESRGAN, under BasicSR's state-dict keys."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import check_fits, conv3x3, count, residual_conv, shape_of

RESIDUAL_SCALE = 0.2
NEGATIVE_SLOPE = 0.2
UNSHUFFLE = {4: 1, 2: 2, 1: 4}  # scale -> factor that makes the input smaller beforehand
MAX_DOUBLINGS = 6


class DenseBlock(nn.Module):
    """x + 0.2 · conv5 of x and of the outputs of four convolutions, each fed with all before it."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(4):
            self.add_module(f"conv{i + 1}", residual_conv(width + i * growth, growth))
        self.conv5 = residual_conv(width + 4 * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        *growing, last = self.children()
        features = x
        for conv in growing:
            new = F.leaky_relu(conv(features), NEGATIVE_SLOPE)
            features = torch.cat((features, new), 1)
        return x + RESIDUAL_SCALE * last(features)


class RRDB(nn.Module):
    """x + 0.2 · three dense blocks of x."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(width, growth)
        self.rdb2 = DenseBlock(width, growth)
        self.rdb3 = DenseBlock(width, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, C, H, W] to the same shape."""
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """Super-resolution by residual-in-residual dense blocks and nearest enlargement.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the images.
    width : int
        Channels of the features.
    blocks : int
        Number of blocks of three dense blocks.
    scale : int
        Enlargement, a power of two.
    growth : int
        Channels that a dense block's convolution adds.
    unshuffle : int, optional
        Factor by which the input is pixel-unshuffled beforehand, of which the sides of the image
        must be multiples; the network doubles until scale · unshuffle. By default 4, 2 and 1 for
        the scales 1, 2 and 4, as in BasicSR. With 1 the network of scale 2 has one doubling, as
        BSRGAN's, and of scale 1 none, as some of ESRGAN's first form.

    Raises
    ------
    ValueError
        If `scale` is 3 or the like, or a size is not positive.

    Notes
    -----
    Source: Wang et al., ECCVW 2018, with the further scales of BasicSR; keys as in its
    RRDBNet. `load_model` reads files in the two older styles too, see `faigfast.zoo.esrgan_names`.

    Examples
    --------
    >>> net = RRDBNet(width=8, blocks=1, scale=2, growth=4)
    >>> net(torch.rand(1, 3, 6, 10)).shape
    torch.Size([1, 3, 12, 20])
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 64,
        blocks: int = 23,
        scale: int = 4,
        growth: int = 32,
        unshuffle: int | None = None,
    ) -> None:
        super().__init__()
        if unshuffle is None and scale not in UNSHUFFLE:
            raise ValueError(f"scale is {scale}; RRDBNet enlarges by 1, 2 or 4")
        factor = UNSHUFFLE[scale] if unshuffle is None else unshuffle
        enlarged = scale * factor
        if min(scale, factor) < 1 or enlarged not in [2**i for i in range(MAX_DOUBLINGS + 1)]:
            raise ValueError(
                f"scale {scale} times unshuffle {factor} must be a power of two, at most "
                f"{2**MAX_DOUBLINGS}"
            )
        if min(in_channels, out_channels, width, blocks, growth) < 1:
            raise ValueError(
                f"in_channels {in_channels}, out_channels {out_channels}, width {width}, blocks "
                f"{blocks} and growth {growth} must be positive"
            )
        self.scale, self.unshuffle, self.channels = scale, factor, in_channels
        self.conv_first = conv3x3(in_channels * factor**2, width)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.conv_body = conv3x3(width, width)
        self.doublings = enlarged.bit_length() - 1
        for i in range(self.doublings):
            self.add_module(f"conv_up{i + 1}", conv3x3(width, width))
        self.conv_hr = conv3x3(width, width)
        self.conv_last = conv3x3(width, out_channels)

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "RRDBNet":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict with the keys of BasicSR's RRDBNet.

        Returns
        -------
        RRDBNet
            Its sizes follow from keys and shapes, which leave open the channels of the input:
            where the first convolution takes 4 or 16 times the output's channels, the input is
            unshuffled by 2 or 4, as in the published networks; else not.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit RRDBNet.
        """
        width, taken = shape_of("RRDBNet", state, "conv_first.weight")[:2]
        growth = shape_of("RRDBNet", state, "body.0.rdb1.conv1.weight")[0]
        out_channels = shape_of("RRDBNet", state, "conv_last.weight")[0]
        enlarged = 2 ** sum(f"conv_up{i + 1}.weight" in state for i in range(MAX_DOUBLINGS))
        factor = {4 * out_channels: 2, 16 * out_channels: 4}.get(taken, 1)
        if enlarged % factor:
            factor = 1
        blocks, scale = count(state, "body."), enlarged // factor
        in_channels = taken // factor**2
        network = cls(in_channels, out_channels, width, blocks, scale, growth, factor)
        check_fits(f"RRDBNet of width {width} and {blocks} blocks", network, state)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x [N, C, H, W] to [N, out_channels, scale·H, scale·W]."""

        def activate(features: Tensor) -> Tensor:
            return F.leaky_relu(features, NEGATIVE_SLOPE)

        if self.unshuffle > 1:
            x = F.pixel_unshuffle(x, self.unshuffle)
        y = self.conv_first(x)
        y = y + self.conv_body(self.body(y))
        for i in range(self.doublings):
            conv = getattr(self, f"conv_up{i + 1}")
            y = activate(conv(F.interpolate(y, scale_factor=2, mode="nearest")))
        return self.conv_last(activate(self.conv_hr(y)))
