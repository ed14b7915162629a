"""Image metrics: a restored image against ground truth, or outputs of two networks compared."""

import torch
from torch import Tensor
from torch.nn import functional as F

from faigfast.data.degradations import round_to_8_bit
from faigfast.integration.image_range import exceeds_white

CHANNELS = ("rgb", "y")
FORMS = ("gray", "authors")
SSIM_WINDOW = 11  # pixels


def luma(x: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in [0, 1], as MATLAB's rgb2ycbcr: [N, 3, *spatial] to [N, 1, *spatial]."""
    weights = x.new_tensor([65.481, 128.553, 24.966]).view(1, 3, *[1] * (x.ndim - 2))
    return ((x * weights).sum(1, keepdim=True) + 16) / 255


def psnr(output: Tensor, gt: Tensor, *, border: int = 0, channel: str = "rgb") -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB, after rounding both images to 8 bit.

    Parameters
    ----------
    output, gt : Tensor
        [N, C, *spatial], range [0, 1]: images, and signals or volumes as well. Both are rounded to
        8 bit and clipped.
    border : int
        Pixels left out on every side of every spatial axis; usually the scale.
    channel : {"rgb", "y"}
        All three channels, or luma.

    Returns
    -------
    Tensor
        [N], float64; infinite for images that are equal in 8 bit.

    Raises
    ------
    ValueError
        If shapes differ, the border leaves nothing, the channel is unknown, or the ground truth
        exceeds 1, as an image of 0 to 255 does.

    Examples
    --------
    >>> psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2)).round(decimals=3)
    tensor([13.9790], dtype=torch.float64)
    """
    a, b = _compared(output, gt, border, channel)
    return -10 * torch.log10((a - b).square().flatten(1).mean(1))


def ssim(output: Tensor, gt: Tensor, *, border: int = 0, channel: str = "rgb") -> Tensor:
    """Structural similarity of each image, after rounding both images to 8 bit.

    Parameters
    ----------
    output, gt, border, channel
        As in `psnr`, for images [N, C, H, W]; the border must leave at least 11 pixels.

    Returns
    -------
    Tensor
        [N], float64, 1 for equal images; for RGB the mean of the three channels.

    Raises
    ------
    ImportError
        If torchmetrics is not installed.
    ValueError
        As `psnr`.

    Notes
    -----
    Source: Wang et al., IEEE TIP 2004, with a Gaussian window of 11×11, σ = 1.5, by torchmetrics.
    As in MATLAB and BasicSR, only windows that lie within the image count; torchmetrics'
    own mean includes mirrored pixels.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise ImportError("SSIM needs torchmetrics: pip install 'faigfast[report]'") from None
    a, b = _compared(output, gt, border, channel)
    if a.ndim != 4:
        raise ValueError(f"gt is {list(gt.shape)}; SSIM expects images [N, C, H, W]")
    if min(a.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(
            f"border {border} leaves {list(a.shape[-2:])} of an image {list(gt.shape[-2:])}; SSIM "
            f"needs {SSIM_WINDOW} pixels a side"
        )
    _, values = structural_similarity_index_measure(
        a.float().contiguous(), b.float().contiguous(), data_range=1.0, reduction="none",
        return_full_image=True,
    )  # fmt: skip
    edge = SSIM_WINDOW // 2
    return values[..., edge:-edge, edge:-edge].double().flatten(1).mean(1)


def gradient_map(x: Tensor, form: str = "gray") -> Tensor:
    """Size of the spatial gradient of an image, after rounding the image to 8 bit.

    Parameters
    ----------
    x : Tensor
        [N, 3, H, W] in [0, 1].
    form : {"gray", "authors"}
        Gradient of the gray image (0.299 R + 0.587 G + 0.114 B), or of the blue channel. The
        authors' script takes blue for gray: it passes a colour conversion as the reading mode, so
        that three channels arrive, triples them, and takes the first three.

    Returns
    -------
    Tensor
        [N, 1, H, W], √(v² + h² + 1e-6) with central differences v and h that are not halved, and
        zeros beyond the image.

    Raises
    ------
    ValueError
        If the form is unknown or x is not [N, 3, H, W].
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; expected one of {FORMS}")
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x is {list(x.shape)}; expected [N, 3, H, W] or [N, 1, H, W]")
    x = round_to_8_bit(x)
    if x.shape[1] == 1:
        pass
    elif form == "gray":
        x = (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    else:
        x = x[:, 2:]
    wide = F.pad(x, (1, 1, 1, 1))
    v = wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    h = wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]
    return (v.square() + h.square() + 1e-6).sqrt()


def output_difference(one: Tensor, other: Tensor, *, form: str = "gray") -> Tensor:
    """Mean squared difference of the gradient maps of two networks' outputs, times 1000.

    Parameters
    ----------
    one, other : Tensor
        [N, 3, H, W] in [0, 1], outputs of the target and of a masked network.
    form : {"gray", "authors"}
        As in `gradient_map`.

    Returns
    -------
    Tensor
        [N], float64.

    Raises
    ------
    ValueError
        If shapes differ, or as `gradient_map`.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021, with their factor.
    """
    if one.shape != other.shape:
        raise ValueError(f"outputs are {list(one.shape)} and {list(other.shape)}; expected one")
    a, b = (gradient_map(x.double(), form) for x in (one, other))
    return 1000 * (a - b).square().flatten(1).mean(1)


def _compared(output: Tensor, gt: Tensor, border: int, channel: str) -> tuple[Tensor, Tensor]:
    """Check output and ground truth; crop and convert both for comparison, in float64."""
    if output.shape != gt.shape or output.ndim < 3:
        raise ValueError(
            f"output is {list(output.shape)} and gt {list(gt.shape)}; expected one [N, C, *spatial]"
        )
    if channel not in CHANNELS:
        raise ValueError(f"channel is {channel!r}; expected one of {CHANNELS}")
    if channel == "y" and gt.shape[1] not in (1, 3):
        raise ValueError(f"channel is 'y' of images {list(gt.shape)}; expected one or three")
    if border < 0 or 2 * border >= min(gt.shape[2:]):
        raise ValueError(f"border {border} leaves nothing of an image {list(gt.shape[2:])}")
    if exceeds_white(gt):
        raise ValueError(
            f"gt reaches {float(gt.max()):g}; expected values in [0, 1]: divide images of 0 to 255 "
            "by 255"
        )
    inner = (..., *[slice(border, -border if border else None)] * (gt.ndim - 2))
    pair = (round_to_8_bit(output.double()), round_to_8_bit(gt.double()))
    colour = channel == "y" and gt.shape[1] == 3  # gray images are their own luma
    a, b = (x[inner] for x in (map(luma, pair) if colour else pair))
    return a, b
