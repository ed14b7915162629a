"""Degradations: recipes of blur, noise, codecs and resizing, and the steps they are made of."""

from faigfast.data.degradations.blur import KERNEL_SIZE, gaussian_blur, gaussian_kernel
from faigfast.data.degradations.codecs import round_to_8_bit
from faigfast.data.degradations.noise import add_noise
from faigfast.data.degradations.real_esrgan import RealESRGAN
from faigfast.data.degradations.recipe import Degradation
from faigfast.data.degradations.resampling import DOWNSAMPLINGS, downsample
from faigfast.data.degradations.steps import (
    Anisotropic,
    Blur,
    Defocus,
    Down,
    GrayNoise,
    Jpeg,
    Motion,
    Noise,
    Poisson,
    Resize,
    SaltAndPepper,
    Sinc,
    Speckle,
    Step,
    Webp,
)

__all__ = [
    "DOWNSAMPLINGS",
    "KERNEL_SIZE",
    "Anisotropic",
    "Blur",
    "Defocus",
    "Degradation",
    "Down",
    "GrayNoise",
    "Jpeg",
    "Motion",
    "Noise",
    "Poisson",
    "RealESRGAN",
    "Resize",
    "SaltAndPepper",
    "Sinc",
    "Speckle",
    "Step",
    "Webp",
    "add_noise",
    "downsample",
    "gaussian_blur",
    "gaussian_kernel",
    "round_to_8_bit",
]
