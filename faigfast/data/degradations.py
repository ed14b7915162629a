"""The degradations of the paper: blur, down-sampling, noise, rounding to 8 bit."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

KERNEL_SIZE = 21
DOWNSAMPLINGS = ("bilinear", "bicubic")


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


def downsample(x: Tensor, scale: int, method: str = "bilinear") -> Tensor:
    """Shrink an image by an integer factor.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W], H and W multiples of `scale`.
    scale : int
        Factor, at least 1.
    method : {"bilinear", "bicubic"}
        "bilinear" interpolates at the new pixels' centres without a low-pass filter. The authors'
        images are bilinear, since their call for bicubic passes its flag as another argument.
        "bicubic" is the anti-aliased cubic (a = -0.5) of Pillow and MATLAB.

    Returns
    -------
    Tensor
        [N, C, H/scale, W/scale].

    Raises
    ------
    ValueError
        If the sizes do not divide or the method is unknown.
    """
    if method not in DOWNSAMPLINGS:
        raise ValueError(f"downsampling is {method!r}; expected one of {DOWNSAMPLINGS}")
    height, width = x.shape[-2:]
    if height % scale or width % scale or not height or not width:
        raise ValueError(
            f"an image of {height}×{width} does not divide by the scale {scale}; crop it first"
        )
    if scale == 1:
        return x
    size = (height // scale, width // scale)
    return F.interpolate(
        x, size=size, mode=method, align_corners=False, antialias=method == "bicubic"
    )


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


def round_to_8_bit(x: Tensor) -> Tensor:
    """Round to multiples of 1/255 and clip to [0, 1], as saving a PNG does."""
    return (x * 255).round().clamp(0, 255) / 255


@dataclass(frozen=True)
class Degradation:
    """A recipe: blur, then down-sampling, then noise, then rounding to 8 bit.

    Parameters
    ----------
    blur : float
        Standard deviation of the Gaussian blur in pixels of the ground truth; 0 for none.
    noise : float
        Standard deviation of the noise in units of the range [0, 1]; 0 for none.
    scale : int
        Down-sampling factor.
    downsampling : {"bilinear", "bicubic"}
        See `downsample`.

    Raises
    ------
    ValueError
        If a strength is negative or not finite, or the scale or the method is unknown.

    Notes
    -----
    Source: the recipe of Xie et al., NeurIPS 2021 (blur σ = 2 with a 21×21 kernel, noise 0.1, ×2).

    Examples
    --------
    >>> blur = Degradation.parse("blur=2", scale=2)
    >>> blur(torch.rand(1, 3, 24, 24), seed=0).shape
    torch.Size([1, 3, 12, 12])
    """

    blur: float = 0.0
    noise: float = 0.0
    scale: int = 2
    downsampling: str = "bilinear"

    def __post_init__(self) -> None:
        """Check every field once."""
        for name in ("blur", "noise"):
            strength = getattr(self, name)
            number = isinstance(strength, int | float) and not isinstance(strength, bool)
            if not (number and 0 <= strength < math.inf):
                raise ValueError(f"{name} is {strength!r}; expected a finite number from 0 up")
        if isinstance(self.scale, bool) or not isinstance(self.scale, int) or self.scale < 1:
            raise ValueError(f"scale is {self.scale!r}; expected a positive integer")
        if self.downsampling not in DOWNSAMPLINGS:
            raise ValueError(
                f"downsampling is {self.downsampling!r}; expected one of {DOWNSAMPLINGS}"
            )

    @classmethod
    def parse(cls, text: str, scale: int = 2, downsampling: str = "bilinear") -> "Degradation":
        """Read "blur=2", "noise=0.1", "blur=2+noise=0.1" or "clean".

        Raises
        ------
        ValueError
            If the text is of another form.
        """
        strengths: dict[str, float] = {}
        for part in () if text == "clean" else text.split("+"):
            name, _, value = part.strip().partition("=")
            if name not in ("blur", "noise") or name in strengths:
                raise ValueError(
                    f"degradation {text!r} is unknown; expected 'clean', 'blur=SIGMA', "
                    "'noise=SIGMA' or 'blur=SIGMA+noise=SIGMA'"
                )
            try:
                strengths[name] = float(value)
            except ValueError:
                raise ValueError(
                    f"degradation {text!r} has the strength {value!r}; expected a number"
                ) from None
        return cls(scale=scale, downsampling=downsampling, **strengths)

    def __call__(self, gt: Tensor, seed: int = 0) -> Tensor:
        """Degrade images.

        Parameters
        ----------
        gt : Tensor
            [N, C, H, W] in [0, 1], H and W multiples of the scale.
        seed : int
            Seed of the noise; the same seed gives the same noise.

        Returns
        -------
        Tensor
            [N, C, H/scale, W/scale], multiples of 1/255 in [0, 1].

        Raises
        ------
        TypeError
            If `gt` is not a floating-point tensor.
        ValueError
            If its shape does not fit or a value is not finite.
        """
        if not (isinstance(gt, Tensor) and gt.is_floating_point()):
            kind = gt.dtype if isinstance(gt, Tensor) else type(gt).__name__
            raise TypeError(f"gt is {kind}; expected a floating-point tensor in [0, 1]")
        if gt.ndim != 4 or not gt.isfinite().all():
            raise ValueError(f"gt is {list(gt.shape)}; expected [N, C, H, W] of finite values")
        generator = torch.Generator().manual_seed(seed)
        x = downsample(gaussian_blur(gt, self.blur), self.scale, self.downsampling)
        if self.noise:
            x = add_noise(x, self.noise, generator)
        return round_to_8_bit(x)
