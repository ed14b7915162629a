"""Distances between restored images and their ground truth."""

import torch
from torch import Tensor

from faigfast.data.degradations import round_to_8_bit

CHANNELS = ("rgb", "y")


def luma(x: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in [0, 1], as MATLAB's rgb2ycbcr: [N, 3, H, W] to [N, 1, H, W]."""
    weights = x.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return ((x * weights).sum(1, keepdim=True) + 16) / 255


def psnr(output: Tensor, gt: Tensor, *, border: int = 0, channel: str = "rgb") -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB, after rounding the output to 8 bit.

    Parameters
    ----------
    output, gt : Tensor
        [N, 3, H, W], range [0, 1].
    border : int
        Pixels left out on every side; the field's custom is the scale.
    channel : {"rgb", "y"}
        All three channels, or luma.

    Returns
    -------
    Tensor
        [N], float64; infinite for equal images.

    Raises
    ------
    ValueError
        If shapes differ, the border leaves nothing, or the channel is unknown.

    Examples
    --------
    >>> psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).round(decimals=3)
    tensor([20.], dtype=torch.float64)
    """
    if output.shape != gt.shape or output.ndim != 4:
        raise ValueError(
            f"output is {list(output.shape)} and gt {list(gt.shape)}; expected one [N, C, H, W]"
        )
    if channel not in CHANNELS:
        raise ValueError(f"channel is {channel!r}; expected one of {CHANNELS}")
    if border < 0 or 2 * border >= min(gt.shape[-2:]):
        raise ValueError(f"border {border} leaves nothing of an image {list(gt.shape[-2:])}")
    inner = slice(border, -border if border else None)
    pair = (round_to_8_bit(output.double()), gt.double())
    a, b = (x[..., inner, inner] for x in (map(luma, pair) if channel == "y" else pair))
    return -10 * torch.log10((a - b).square().flatten(1).mean(1))
