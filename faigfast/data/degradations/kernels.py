"""Kernels of blur: Gaussians of two widths, motion, defocus, and the ideal low-pass filter.

Angles are in degrees, anticlockwise on the screen from the direction of rows; lengths in pixels.
Every kernel is [k, k] with k odd, float64, of sum 1.
"""

import math

import torch
from torch import Tensor

GRID = 16  # samples of a pixel along one axis, for the area of a disk
DEVIATIONS = 4  # extent of a Gaussian's kernel, in standard deviations
SHAPES = ("gaussian", "generalized", "plateau")


def anisotropic_kernel(
    sigma_x: float,
    sigma_y: float,
    angle: float = 0.0,
    *,
    size: int | None = None,
    shape: str = "gaussian",
    beta: float = 1.0,
) -> Tensor:
    """Bell with two widths.

    Parameters
    ----------
    sigma_x, sigma_y : float
        Standard deviations along the direction of `angle`, and across it; positive.
    angle : float
        Direction of `sigma_x`.
    size : int, optional
        Side k, odd; by default four standard deviations on every side of the middle.
    shape : {"gaussian", "generalized", "plateau"}
        exp(-q/2), exp(-q^β/2) or 1/(1 + q^β), where q is the squared distance in standard
        deviations.
    beta : float
        β, positive.

    Returns
    -------
    Tensor
        [k, k].

    Notes
    -----
    Source: Wang et al., "Real-ESRGAN", ICCV workshops 2021, section 3.1; Liu et al., "Estimating
    generalized Gaussian blur kernels", 2020.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape is {shape!r}; expected one of {SHAPES}")
    if size is None:
        size = 2 * math.ceil(DEVIATIONS * max(sigma_x, sigma_y)) + 1
    along, across = _turned(size, angle)
    q = (along / sigma_x) ** 2 + (across / sigma_y) ** 2
    if shape == "plateau":
        kernel = 1 / (1 + q**beta)
    else:
        kernel = torch.exp(-(q**beta if shape == "generalized" else q) / 2)
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float = 0.0) -> Tensor:
    """Mean along a straight segment: a camera that moves at constant speed.

    Parameters
    ----------
    length : float
        Number of pixels of the trace, at least 1; a trace of 5 along the rows is five taps of 1/5.
    angle : float
        Direction of the segment.

    Returns
    -------
    Tensor
        [k, k]: ⌈length⌉ samples at equal distances of at most one pixel, from end to end of a
        segment of length - 1 between pixel centres, each with bilinear weights.
    """
    count = math.ceil(length)
    along = torch.linspace(-(length - 1) / 2, (length - 1) / 2, count, dtype=torch.float64)
    x = along * math.cos(math.radians(angle))
    y = -along * math.sin(math.radians(angle))  # rows go down
    margin = math.ceil((length - 1) / 2)
    offset = torch.arange(-margin, margin + 1, dtype=torch.float64)
    weights_x, weights_y = (
        (1 - (position[:, None] - offset).abs()).clamp(min=0) for position in (x, y)
    )  # [count, k]
    kernel = weights_y.T @ weights_x
    return kernel / kernel.sum()


def disk_kernel(radius: float) -> Tensor:
    """Disk of a lens out of focus: every pixel has the area of the disk inside it.

    Parameters
    ----------
    radius : float
        Radius of the disk, positive; up to 1/2 it lies within one pixel and blurs nothing.

    Returns
    -------
    Tensor
        [k, k]; areas from 16×16 samples of a pixel.
    """
    margin = max(0, math.ceil(radius - 0.5))
    samples = (torch.arange(GRID * (2 * margin + 1), dtype=torch.float64) + 0.5) / GRID
    samples = samples - (margin + 0.5)
    inside = samples[:, None] ** 2 + samples**2 <= radius**2
    side = 2 * margin + 1
    kernel = inside.double().view(side, GRID, side, GRID).mean((1, 3))
    if not kernel.any():
        kernel[margin, margin] = 1
    return kernel / kernel.sum()


def sinc_kernel(cutoff: float, size: int = 21) -> Tensor:
    """Ideal circular low-pass filter, cut to a square: it rings along edges.

    Parameters
    ----------
    cutoff : float
        ω in radians a pixel, in (0, π]; π is the highest frequency along an axis.
    size : int
        Side k, odd.

    Returns
    -------
    Tensor
        [k, k]: ω J₁(ω r) / (2π r), normalised.

    Notes
    -----
    Source: Wang et al., "Real-ESRGAN", ICCV workshops 2021, section 3.3.
    """
    x, y = _turned(size, 0.0)
    r = (x**2 + y**2).sqrt()
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def padded_kernel(kernel: Tensor, size: int) -> Tensor:
    """Kernel [k, k] in the middle of zeros [size, size]."""
    margin = (size - kernel.shape[0]) // 2
    return torch.nn.functional.pad(kernel, (margin,) * 4)


def _turned(size: int, angle: float) -> tuple[Tensor, Tensor]:
    """Coordinates [size, size] along a direction and across it, from the middle."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    down, right = offset[:, None], offset[None, :]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return right * cos - down * sin, right * sin + down * cos
