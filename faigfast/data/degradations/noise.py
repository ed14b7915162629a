"""Noise: Gaussian, gray, Poisson, speckle, salt and pepper.

Random numbers are drawn on the CPU in float32, so that they depend neither on the device nor on
the type of the image. No function clips its result.
"""

import torch
from torch import Tensor

POISSON_LEVELS = 256  # photons at the brightest value
GRAY_WEIGHTS = (0.2989, 0.587, 0.114)  # of R, G, B


def add_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise, not clipped.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W], any device; the noise is drawn on the CPU in float32, and so does not
        depend on the device.
    sigma : float
        Standard deviation in units of the image's range [0, 1].
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Tensor
        [N, C, H, W].
    """
    return x + sigma * torch.randn(x.shape, generator=generator).to(x)


def add_gray_noise(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise with one value for all channels of a pixel.

    Parameters
    ----------
    x : Tensor
        [C, H, W].
    sigma : float
        Standard deviation in units of the range [0, 1].
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Tensor
        [C, H, W].
    """
    return x + sigma * torch.randn(x.shape[-2:], generator=generator).to(x)


def add_poisson_noise(
    x: Tensor, scale: float, generator: torch.Generator, levels: int = POISSON_LEVELS
) -> Tensor:
    """Add the noise of counted photons: x + scale · (Poisson(levels · x) / levels - x).

    Parameters
    ----------
    x : Tensor
        [C, H, W] in [0, 1]; values outside count as 0 and 1.
    scale : float
        Factor of the noise. Its standard deviation is scale · √(x / levels); 1 is the noise of
        256 photons at white.
    generator : torch.Generator
        A CPU generator.
    levels : int
        Photons at white.

    Returns
    -------
    Tensor
        [C, H, W].
    """
    return x + scale * photon_noise(x, levels, generator)


def photon_noise(x: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Noise [C, H, W] of counted photons, `levels` of them at white, of an image [C, H, W]."""
    rate = x.detach().cpu().float().clamp(0, 1) * levels
    return ((torch.poisson(rate, generator) - rate) / levels).to(x)


def add_speckle(x: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Multiply by 1 plus Gaussian noise: x + x · sigma · n.

    Parameters
    ----------
    x : Tensor
        [C, H, W].
    sigma : float
        Standard deviation of the factor.
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Tensor
        [C, H, W].
    """
    return x + x * sigma * torch.randn(x.shape, generator=generator).to(x)


def salt_and_pepper(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Replace values by 0 or 1, both as likely, every channel on its own.

    Parameters
    ----------
    x : Tensor
        [C, H, W].
    share : float
        Expected share of the values that are replaced, in [0, 1].
    generator : torch.Generator
        A CPU generator.

    Returns
    -------
    Tensor
        [C, H, W].
    """
    draw = torch.rand(x.shape, generator=generator).to(x.device)
    x = torch.where(draw < share / 2, torch.zeros_like(x), x)
    return torch.where(draw > 1 - share / 2, torch.ones_like(x), x)


def to_gray(x: Tensor) -> Tensor:
    """Gray image [1, H, W] of [C, H, W]: weights of BT.601 for three channels, or else the mean."""
    if x.shape[0] != 3:
        return x.mean(0, keepdim=True)
    return (x * x.new_tensor(GRAY_WEIGHTS).view(3, 1, 1)).sum(0, keepdim=True)
