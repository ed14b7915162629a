"""Blur: the paper's Gaussian, and any kernel over mirrored borders."""

import torch
from torch import Tensor
from torch.nn import functional as F

KERNEL_SIZE = 21
LARGEST_DIRECT = 5  # side of a kernel; larger ones are faster by Fourier transforms


def gaussian_kernel(sigma: float, size: int = KERNEL_SIZE) -> Tensor:
    """One dimension of the isotropic Gaussian, normalised over its support.

    Parameters
    ----------
    sigma : float
        Standard deviation in pixels, positive.
    size : int
        Number of taps, odd.

    Returns
    -------
    Tensor
        [size], float64, of sum 1; the two-dimensional kernel is its outer product.
    """
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    kernel = torch.exp(-((offset / sigma) ** 2) / 2)
    return kernel / kernel.sum()


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur by a 21×21 Gaussian, borders mirrored without repeating the edge pixel.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W], both sides longer than 10 pixels.
    sigma : float
        Standard deviation in pixels; 0 returns x.

    Returns
    -------
    Tensor
        [N, C, H, W].

    Raises
    ------
    ValueError
        If the image is too small to mirror ten pixels.
    """
    if sigma == 0:
        return x
    margin = KERNEL_SIZE // 2
    if min(x.shape[-2:]) <= margin:
        raise ValueError(
            f"an image of {x.shape[-2]}×{x.shape[-1]} is too small to blur: a {KERNEL_SIZE}×"
            f"{KERNEL_SIZE} kernel needs both sides above {margin}"
        )
    taps = gaussian_kernel(sigma).to(x)
    channels = x.shape[1]
    x = F.pad(x, (margin,) * 4, mode="reflect")
    x = F.conv2d(x, taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def filter_image(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every channel with a kernel, borders mirrored without repeating the edge pixel.

    Parameters
    ----------
    x : Tensor
        [C, H, W], of any size: an image smaller than the kernel is mirrored several times.
    kernel : Tensor
        [k, k], k odd.

    Returns
    -------
    Tensor
        [C, H, W], as `scipy.ndimage.correlate` with the mode "mirror".
    """
    margin, (height, width) = kernel.shape[0] // 2, x.shape[-2:]
    rows, columns = (_mirrored(side, margin).to(x.device) for side in x.shape[-2:])
    padded = x[:, rows][:, :, columns].to(torch.promote_types(x.dtype, torch.float32))
    if kernel.shape[0] <= LARGEST_DIRECT:
        return F.conv2d(padded[:, None], kernel.to(padded)[None, None])[:, 0].to(x)
    size = padded.shape[-2:]  # a circular correlation, right where it does not wrap around
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel.to(padded), size).conj()
    return torch.fft.irfft2(spectrum, size)[:, :height, :width].to(x)


def _mirrored(side: int, margin: int) -> Tensor:
    """Positions [side + 2·margin] of the pixels of a mirrored axis."""
    period = max(1, 2 * (side - 1))
    position = torch.arange(-margin, side + margin) % period
    return torch.minimum(position, period - position) if side > 1 else position
