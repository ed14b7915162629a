"""SPAN, attention without parameters, with the branches of its convolutions merged."""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.zoo.blocks import RGB_MEAN, check_fits, conv3x3, shape_of

BLOCKS = 6


def _merged(in_channels: int, out_channels: int) -> nn.Sequential:
    """Make a convolution under the name that its merged form has in a checkpoint."""
    return nn.Sequential(OrderedDict(eval_conv=conv3x3(in_channels, out_channels)))


class AttentionBlock(nn.Module):
    """Three convolutions, the last of which is its own attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c1_r = _merged(width, width)
        self.c2_r = _merged(width, width)
        self.c3_r = _merged(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [N, C, H, W] to the same shape; the first activation comes second."""
        first = F.silu(self.c1_r(x))
        last = self.c3_r(F.silu(self.c2_r(first)))
        return (last + x) * (last.sigmoid() - 0.5), first


class SPAN(nn.Module):
    """Super-resolution by six blocks of parameter-free attention.

    Its authors train each convolution as four branches and merge them into one kernel before every
    evaluation. This network holds the merged kernels, one for every convolution.

    Parameters
    ----------
    channels : int
        Channels of the images.
    width : int
        Channels of the features.
    scale : int
        Enlargement, by one pixel shuffle.
    norm : bool
        Subtract `rgb_mean` from the images and multiply them by `img_range`.
    img_range : float
        Factor of the images inside the network.
    rgb_mean : sequence of float
        Mean of every channel; not part of the state dict.

    Raises
    ------
    ValueError
        If a size is not positive, or a channel has no mean.

    Notes
    -----
    Source: Wan et al., CVPRW 2024; keys as in the authors' SPAN, without the branches
    (`sk`, `conv`). `load_model` merges the branches of a file; see `faigfast.zoo.span_branches`.
    As theirs, the network does not divide its output by `img_range`.

    Examples
    --------
    >>> net = SPAN(width=8, scale=2)
    >>> net(torch.rand(1, 3, 5, 7)).shape
    torch.Size([1, 3, 10, 14])
    """

    mean: Tensor

    def __init__(
        self,
        channels: int = 3,
        width: int = 48,
        scale: int = 4,
        norm: bool = True,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = RGB_MEAN,
    ) -> None:
        super().__init__()
        if min(channels, width, scale) < 1:
            raise ValueError(
                f"channels {channels}, width {width} and scale {scale} must be positive"
            )
        if norm and channels != len(rgb_mean):
            raise ValueError(
                f"channels {channels} must be as many as rgb_mean has values, {len(rgb_mean)}"
            )
        self.channels, self.scale, self.img_range, self.norm = channels, scale, img_range, norm
        self.register_buffer("mean", torch.tensor(rgb_mean).view(1, -1, 1, 1), persistent=False)
        if not norm:
            self.register_buffer("no_norm", torch.zeros(1))
        self.conv_1 = _merged(channels, width)
        for i in range(BLOCKS):
            self.add_module(f"block_{i + 1}", AttentionBlock(width))
        self.conv_cat = nn.Conv2d(4 * width, width, 1)
        self.conv_2 = _merged(width, width)
        self.upsampler = nn.Sequential(conv3x3(width, scale**2 * channels), nn.PixelShuffle(scale))

    @classmethod
    def infer(cls, state: Mapping[str, Tensor]) -> "SPAN":
        """Build the network, with fresh weights, that a state dict belongs to.

        Parameters
        ----------
        state : mapping of str to Tensor
            A state dict of merged kernels, `conv_1.eval_conv.weight` and so on.

        Returns
        -------
        SPAN
            Its sizes and the scale follow from the shapes, `norm` from the key "no_norm".
            `img_range` and `rgb_mean` are the defaults.

        Raises
        ------
        ValueError
            If the keys or the shapes do not fit SPAN.
        """
        width, channels = shape_of("SPAN", state, "conv_1.eval_conv.weight")[:2]
        shuffled = shape_of("SPAN", state, "upsampler.0.weight")[0]
        scale = math.isqrt(shuffled // max(1, channels))
        network = cls(channels, width, scale, norm="no_norm" not in state)
        check_fits(f"SPAN of width {width} and ×{scale}", network, state)
        return network

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge x [N, C, H, W] to [N, C, scale·H, scale·W]."""
        if self.norm:
            x = (x - self.mean.to(x)) * self.img_range
        first = y = self.conv_1(x)
        after = []
        for i in range(BLOCKS):
            y, inner = getattr(self, f"block_{i + 1}")(y)
            after.append(y)
        y = torch.cat((first, self.conv_2(y), after[0], inner), 1)
        return self.upsampler(self.conv_cat(y))
