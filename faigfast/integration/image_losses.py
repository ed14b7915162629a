"""Losses of an image against its ground truth, each [B, C, *spatial] to [B].

They keep nothing between calls and write on nothing, so that several threads may call them.
"""

from typing import Any

import torch
from torch import Tensor

CHARBONNIER_EPSILON = 1e-3  # in pixel values, as published
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
SSIM_CONSTANTS = 0.01**2, 0.03**2  # for pixel values in [0, 1]


def squared_error(output: Tensor, gt: Tensor) -> Tensor:
    """‖output − gt‖², summed over channels and pixels: [B, C, *spatial] to [B].

    In squared pixel values.
    """
    return _difference(output, gt).flatten(1).square().sum(1)


def absolute_error(output: Tensor, gt: Tensor) -> Tensor:
    """|output − gt|, summed over channels and pixels: [B, C, *spatial] to [B].

    The L1 loss, in pixel values.
    """
    return _difference(output, gt).flatten(1).abs().sum(1)


def charbonnier(output: Tensor, gt: Tensor) -> Tensor:
    """√((output − gt)² + ε²), summed over channels and pixels: [B, C, *spatial] to [B].

    Parameters
    ----------
    output, gt : Tensor
        [B, C, *spatial], in [0, 1].

    Returns
    -------
    Tensor
        [B], in pixel values. Equal images have the loss ε·C·pixels, with ε = 0.001.

    Raises
    ------
    ValueError
        If shapes differ.

    Notes
    -----
    A smooth absolute error. Source: Charbonnier et al., ICIP 1994; ε from Lai et al., CVPR 2017.
    """
    difference = _difference(output, gt).flatten(1)
    return (difference.square() + CHARBONNIER_EPSILON**2).sqrt().sum(1)


def gradient(output: Tensor, gt: Tensor) -> Tensor:
    """|∇(output − gt)| by forward differences, summed: [B, C, *spatial] to [B].

    Parameters
    ----------
    output, gt : Tensor
        [B, C, *spatial], with one to three spatial axes or more.

    Returns
    -------
    Tensor
        [B], in pixel values: the sum over channels, axes and pairs of neighbours. It does not see a
        constant that is added to an image.

    Raises
    ------
    ValueError
        If shapes differ, or no axis has two pixels.

    Notes
    -----
    Source: the gradient matching term of Li and Snavely, CVPR 2018, on one scale and unscaled.
    """
    difference = _difference(output, gt)
    if difference.ndim < 3 or max(difference.shape[2:]) < 2:
        raise ValueError(
            f"objective 'gradient' gets images {list(gt.shape)}; expected [B, C, *spatial] with "
            "two pixels along one axis"
        )
    axes = range(2, difference.ndim)
    parts = [difference.diff(dim=axis) for axis in axes if difference.shape[axis] > 1]
    return torch.stack([part.flatten(1).abs().sum(1) for part in parts]).sum(0)


def laplacian(output: Tensor, gt: Tensor) -> Tensor:
    """|∇²(output − gt)| by second differences, summed: [B, C, *spatial] to [B].

    Parameters
    ----------
    output, gt : Tensor
        [B, C, *spatial], with sides of three pixels or more.

    Returns
    -------
    Tensor
        [B], in pixel values: the sum over channels and the pixels that do not touch the border. The
        Laplacian is the sum over axes of x[i − 1] − 2 x[i] + x[i + 1]. It does not see a constant
        or a linear ramp that is added to an image.

    Raises
    ------
    ValueError
        If shapes differ, or a side is below three pixels.

    Notes
    -----
    The absolute error of the images' Laplacians, in which Marr and Hildreth, Proc. R. Soc. B 1980,
    look for edges; here without their Gaussian.
    """
    difference = _difference(output, gt)
    if difference.ndim < 3 or min(difference.shape[2:]) < 3:
        raise ValueError(
            f"objective 'laplacian' gets images {list(gt.shape)}; expected [B, C, *spatial] with "
            "sides of three pixels or more"
        )
    axes = range(2, difference.ndim)
    parts = []
    for axis in axes:
        part = difference.diff(n=2, dim=axis)
        for other in axes:
            if other != axis:
                part = part.narrow(other, 1, part.shape[other] - 2)
        parts.append(part)
    return torch.stack(parts).sum(0).flatten(1).abs().sum(1)


def ssim(output: Tensor, gt: Tensor) -> Tensor:
    """1 − SSIM(output, gt): [B, C, H, W] to [B].

    Parameters
    ----------
    output, gt : Tensor
        [B, C, H, W] in [0, 1], with sides of 11 pixels or more.

    Returns
    -------
    Tensor
        [B], without unit, in [0, 2]: 0 for equal images. SSIM is the mean over channels and over
        the windows that lie within the image, so that large images count as much as small ones.

    Raises
    ------
    ValueError
        If shapes differ, the images are not two-dimensional, or a side is below 11 pixels.

    Notes
    -----
    Source: Wang et al., IEEE TIP 2004, with a Gaussian window of 11×11 pixels, σ = 1.5, K₁ = 0.01,
    K₂ = 0.03 and values in [0, 1]. Images are not rounded, unlike in the metric.
    """
    _difference(output, gt)  # checks the shapes
    if gt.ndim != 4 or min(gt.shape[2:]) < SSIM_WINDOW:
        raise ValueError(
            f"objective 'ssim' gets images {list(gt.shape)}; expected [B, C, H, W] with sides of "
            f"{SSIM_WINDOW} pixels or more"
        )
    # Matrices, since a GPU may round the factors of a convolution to 10 bits.
    rows, columns = (_windows(side, output) for side in output.shape[2:])

    def local_mean(x: Tensor) -> Tensor:
        return rows @ x @ columns.mT  # [B, C, H - 10, W - 10]

    first, second = SSIM_CONSTANTS
    mean, mean_gt = local_mean(output), local_mean(gt)
    variance = local_mean(output.square()) - mean.square()
    variance_gt = local_mean(gt.square()) - mean_gt.square()
    covariance = local_mean(output * gt) - mean * mean_gt
    luminance = (2 * mean * mean_gt + first) / (mean.square() + mean_gt.square() + first)
    structure = (2 * covariance + second) / (variance + variance_gt + second)
    return 1 - (luminance * structure).flatten(1).mean(1)


def _windows(side: int, like: Tensor) -> Tensor:
    """Weights [side − 10, side] of every Gaussian window along one axis."""
    starts = torch.arange(side - SSIM_WINDOW + 1, device=like.device)[:, None]
    places = torch.arange(side, device=like.device) - starts  # within the window
    weights = torch.exp(-((places - SSIM_WINDOW // 2).double() / SSIM_SIGMA).square() / 2)
    weights = torch.where((places >= 0) & (places < SSIM_WINDOW), weights, 0)
    return (weights / weights.sum(1, keepdim=True)).to(like.dtype)


def _difference(output: Any, gt: Tensor) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"the network returns a {type(output).__name__}; expected a tensor (wrap it to choose "
            "one, or pass an objective of your own)"
        )
    if output.shape != gt.shape:
        smaller = output.ndim == gt.ndim and all(
            a < b for a, b in zip(output.shape[2:], gt.shape[2:], strict=True)
        )
        raise ValueError(
            f"gt does not fit: one image's is {list(gt.shape)} and the network's output is "
            f"{list(output.shape)}; expected equal shapes"
            f"{', or pad= for a network that loses pixels' if smaller else ''}"
        )
    return output - gt
