"""Steps of a recipe: each takes an image [C, H, W] and a random generator, and gives an image.

Units: widths, lengths and radii in pixels of the image that a step receives; angles in degrees,
anticlockwise from the direction of rows; noise in units of the range [0, 1].
"""

import math
import sys
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from faigfast.data.degradations import noise
from faigfast.data.degradations.blur import filter_image, gaussian_blur
from faigfast.data.degradations.codecs import jpeg, webp
from faigfast.data.degradations.kernels import (
    anisotropic_kernel,
    disk_kernel,
    motion_kernel,
    sinc_kernel,
)
from faigfast.data.degradations.resampling import RESIZE_METHODS, down_and_up

WIDEST = 50.0  # pixels: standard deviation of a blur
LONGEST = 200.0  # pixels: length and radius of a blur
LARGEST_KERNEL = 401  # pixels: side of the kernel of a low-pass filter


@dataclass(frozen=True)
class Step:
    """Common part of all steps; equal steps compare equal, and `str` gives a step's recipe."""

    name: ClassVar[str]  # in recipes
    form: ClassVar[str] = ""  # of the values in recipes
    # Whether a recipe without `down` takes the step before the down-sampling.
    before_downsampling: ClassVar[bool] = False

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Give the degraded image."""
        raise NotImplementedError

    def __str__(self) -> str:
        values = ":".join(_written(getattr(self, field.name)) for field in fields(self))
        return f"{self.name}={values}" if values else self.name

    def _check(
        self, field: str, low: float, high: float = math.inf, *, above: bool = False
    ) -> None:
        """Refuse a value that is no number from `low` (with `above`: above it) to `high`."""
        value = getattr(self, field)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number and low <= value <= min(high, sys.float_info.max)
        if not fits or (above and value == low):
            start = f"above {low:g}" if above else f"from {low:g}"
            end = f" up to {high:g}" if math.isfinite(high) else ("" if above else " up")
            raise ValueError(f"{self._of(field)}; expected a finite number {start}{end}")

    def _check_integer(self, field: str, low: int, high: int, odd: bool = False) -> None:
        value = getattr(self, field)
        integer = isinstance(value, int) and not isinstance(value, bool)
        if not integer or not low <= value <= high or (odd and value % 2 == 0):
            kind = "odd integer" if odd else "integer"
            raise ValueError(f"{self._of(field)}; expected an {kind} from {low} to {high}")

    def _of(self, field: str) -> str:
        several = len(fields(self)) > 1
        return f"{f'{field} of ' if several else ''}{self.name} is {getattr(self, field)!r}"


@dataclass(frozen=True)
class Blur(Step):
    """Isotropic Gaussian over 21×21 pixels, as the paper's; `sigma` in pixels, 0 for none."""

    sigma: float
    name, form, before_downsampling = "blur", "SIGMA", True

    def __post_init__(self) -> None:
        """Check the width."""
        self._check("sigma", 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Blur."""
        return gaussian_blur(x[None], self.sigma)[0]


@dataclass(frozen=True)
class Anisotropic(Step):
    """Gaussian of the width `sigma_x` along the direction `angle`, and `sigma_y` across it."""

    sigma_x: float
    sigma_y: float
    angle: float = 0.0
    name, form, before_downsampling = "anisotropic", "SIGMA_X:SIGMA_Y[:ANGLE]", True

    def __post_init__(self) -> None:
        """Check the widths and the angle."""
        self._check("sigma_x", 0, WIDEST, above=True)
        self._check("sigma_y", 0, WIDEST, above=True)
        self._check("angle", -360, 360)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Blur."""
        return filter_image(x, anisotropic_kernel(self.sigma_x, self.sigma_y, self.angle))


@dataclass(frozen=True)
class Motion(Step):
    """Mean along a segment of `length` pixels in the direction `angle`; 1 for none."""

    length: float
    angle: float = 0.0
    name, form, before_downsampling = "motion", "LENGTH[:ANGLE]", True

    def __post_init__(self) -> None:
        """Check the length and the angle."""
        self._check("length", 1, LONGEST)
        self._check("angle", -360, 360)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Blur."""
        return filter_image(x, motion_kernel(self.length, self.angle))


@dataclass(frozen=True)
class Defocus(Step):
    """Mean over a disk of the given radius in pixels."""

    radius: float
    name, form, before_downsampling = "defocus", "RADIUS", True

    def __post_init__(self) -> None:
        """Check the radius."""
        self._check("radius", 0, LONGEST, above=True)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Blur."""
        return filter_image(x, disk_kernel(self.radius))


@dataclass(frozen=True)
class Sinc(Step):
    """Ideal low-pass filter: `cutoff` in radians a pixel, at most π; `size` of the kernel."""

    cutoff: float
    size: int = 21
    name, form, before_downsampling = "sinc", "CUTOFF[:SIZE]", True

    def __post_init__(self) -> None:
        """Check the frequency and the size."""
        self._check("cutoff", 0, math.pi, above=True)
        self._check_integer("size", 3, LARGEST_KERNEL, odd=True)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Filter."""
        return filter_image(x, sinc_kernel(self.cutoff, self.size))


@dataclass(frozen=True)
class Resize(Step):
    """Shrink by `factor` and enlarge to the old size, both by `method`."""

    factor: float
    method: str = "bicubic"
    name, form, before_downsampling = "resize", "FACTOR[:METHOD]", True

    def __post_init__(self) -> None:
        """Check the factor and the method."""
        self._check("factor", 1)
        if self.method not in RESIZE_METHODS:
            raise ValueError(f"{self._of('method')}; expected one of {', '.join(RESIZE_METHODS)}")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Shrink and enlarge."""
        return down_and_up(x, self.factor, self.method)


@dataclass(frozen=True)
class Noise(Step):
    """White Gaussian noise of standard deviation `sigma`, each channel with its own values."""

    sigma: float
    name, form = "noise", "SIGMA"

    def __post_init__(self) -> None:
        """Check the strength."""
        self._check("sigma", 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise."""
        return noise.add_noise(x, self.sigma, generator)


@dataclass(frozen=True)
class GrayNoise(Step):
    """White Gaussian noise of standard deviation `sigma`, one value for all channels."""

    sigma: float
    name, form = "gray-noise", "SIGMA"

    def __post_init__(self) -> None:
        """Check the strength."""
        self._check("sigma", 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise."""
        return noise.add_gray_noise(x, self.sigma, generator)


@dataclass(frozen=True)
class Poisson(Step):
    """Noise of counted photons, of standard deviation scale · √(x/256)."""

    scale: float
    name, form = "poisson", "SCALE"

    def __post_init__(self) -> None:
        """Check the scale."""
        self._check("scale", 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise."""
        return noise.add_poisson_noise(x, self.scale, generator)


@dataclass(frozen=True)
class Speckle(Step):
    """Noise proportional to the image: x + x · sigma · n."""

    sigma: float
    name, form = "speckle", "SIGMA"

    def __post_init__(self) -> None:
        """Check the strength."""
        self._check("sigma", 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Multiply by noise."""
        return noise.add_speckle(x, self.sigma, generator)


@dataclass(frozen=True)
class SaltAndPepper(Step):
    """A share of the values becomes 0 or 1, both as likely."""

    share: float
    name, form = "salt-and-pepper", "SHARE"

    def __post_init__(self) -> None:
        """Check the share."""
        self._check("share", 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Replace values."""
        return noise.salt_and_pepper(x, self.share, generator)


@dataclass(frozen=True)
class Jpeg(Step):
    """Pillow's JPEG of the given quality, 1 to 100."""

    quality: int
    name, form = "jpeg", "QUALITY"

    def __post_init__(self) -> None:
        """Check the quality."""
        self._check_integer("quality", 1, 100)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Encode and decode."""
        return jpeg(x, self.quality)


@dataclass(frozen=True)
class Webp(Step):
    """Pillow's lossy WebP of the given quality, 0 to 100."""

    quality: int
    name, form = "webp", "QUALITY"

    def __post_init__(self) -> None:
        """Check the quality."""
        self._check_integer("quality", 0, 100)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Encode and decode."""
        return webp(x, self.quality)


@dataclass(frozen=True)
class Down(Step):
    """The down-sampling to low resolution, where a recipe wants it elsewhere than by default."""

    name = "down"


def _written(value: Any) -> str:
    """Write a value as in a recipe, without loss."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else repr(value)
