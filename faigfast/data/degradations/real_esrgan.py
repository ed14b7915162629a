"""Real-ESRGAN's degradation: two random stages of blur, resizing, noise and JPEG, then sinc.

Parameters are drawn first and applied after, so that a test can apply them in another way.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from faigfast.data.degradations.blur import KERNEL_SIZE, filter_image
from faigfast.data.degradations.codecs import jpeg, round_to_8_bit
from faigfast.data.degradations.kernels import anisotropic_kernel, padded_kernel, sinc_kernel
from faigfast.data.degradations.noise import add_gray_noise, add_noise, photon_noise, to_gray
from faigfast.data.degradations.steps import Step

KERNEL_SIZES = tuple(range(7, KERNEL_SIZE + 1, 2))
# Shape and whether both widths are equal, with the probability.
BELLS = (
    (("gaussian", True), 0.45),
    (("gaussian", False), 0.25),
    (("generalized", True), 0.12),
    (("generalized", False), 0.03),
    (("plateau", True), 0.12),
    (("plateau", False), 0.03),
)
BETAS = {"gaussian": (1.0, 1.0), "generalized": (0.5, 4.0), "plateau": (1.0, 2.0)}
RESIZINGS = ("up", "down", "keep")
METHODS = ("area", "bilinear", "bicubic")
SINC_PROBABILITY = 0.1  # that a stage's blur is a sinc filter
FINAL_SINC_PROBABILITY = 0.8
GAUSSIAN_PROBABILITY = 0.5  # against Poisson noise
GRAY_PROBABILITY = 0.4
QUALITIES = (30.0, 95.0)  # of JPEG
SMALL_KERNEL = 13  # below it the cutoff of a stage's sinc filter starts at π/3, else at π/5

Range = tuple[float, float]
T = TypeVar("T")


@dataclass(frozen=True)
class Ranges:
    """Published ranges of one stage.

    Parameters
    ----------
    blurred : float
        Probability of the blur.
    sigma : (float, float)
        Standard deviation of the blur in pixels.
    resizings : (float, float, float)
        Probabilities to enlarge, shrink and keep the size.
    factor : (float, float)
        Least and greatest factor of the size.
    noise : (float, float)
        Standard deviation of the Gaussian noise in units of 1/255.
    poisson : (float, float)
        Scale of the Poisson noise.
    """

    blurred: float
    sigma: Range
    resizings: tuple[float, float, float]
    factor: Range
    noise: Range
    poisson: Range


FIRST = Ranges(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1.0, 30.0), (0.05, 3.0))
SECOND = Ranges(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1.0, 25.0), (0.05, 2.5))


@dataclass(frozen=True)
class StageDraw:
    """Parameters of one stage for one image; `kernel` [21, 21], or None for no blur."""

    kernel: Tensor | None
    factor: float
    method: str
    poisson: bool
    gray: bool
    strength: float  # σ in units of [0, 1], or the scale of the Poisson noise
    quality: int


@dataclass(frozen=True)
class Draw:
    """Parameters of both stages, the last filter [21, 21] or None, and whether JPEG is last."""

    first: StageDraw
    second: StageDraw
    final: Tensor | None
    final_method: str
    jpeg_last: bool


class _Random:
    """Draws from one generator."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def uniform(self, low: float, high: float) -> float:
        draw = torch.rand((), generator=self.generator, dtype=torch.float64)
        return low + (high - low) * float(draw)

    def chance(self, probability: float) -> bool:
        return self.uniform(0, 1) < probability

    def one_of(self, values: Sequence[T], weights: Sequence[float] | None = None) -> T:
        shares = torch.tensor(weights or [1.0] * len(values), dtype=torch.float64)
        return values[int(torch.multinomial(shares, 1, generator=self.generator))]


def draw_parameters(generator: torch.Generator) -> Draw:
    """Draw the parameters of one image.

    Parameters
    ----------
    generator : torch.Generator
        A CPU generator; the same state draws the same parameters.

    Returns
    -------
    Draw
    """
    random = _Random(generator)
    first, second = _stage(random, FIRST), _stage(random, SECOND)
    final = None
    if random.chance(FINAL_SINC_PROBABILITY):
        size, cutoff = random.one_of(KERNEL_SIZES), random.uniform(math.pi / 3, math.pi)
        final = padded_kernel(sinc_kernel(cutoff, size), KERNEL_SIZE)
    return Draw(first, second, final, random.one_of(METHODS), random.chance(0.5))


def _stage(random: _Random, ranges: Ranges) -> StageDraw:
    kernel = _kernel(random, ranges.sigma)
    blurred = random.chance(ranges.blurred)
    resizing = random.one_of(RESIZINGS, ranges.resizings)
    low, high = ranges.factor
    span = {"up": (1.0, high), "down": (low, 1.0), "keep": (1.0, 1.0)}[resizing]
    factor, method = random.uniform(*span), random.one_of(METHODS)
    poisson, gray = not random.chance(GAUSSIAN_PROBABILITY), random.chance(GRAY_PROBABILITY)
    strength = random.uniform(*ranges.poisson) if poisson else random.uniform(*ranges.noise) / 255
    quality = round(random.uniform(*QUALITIES))
    return StageDraw(kernel if blurred else None, factor, method, poisson, gray, strength, quality)


def _kernel(random: _Random, widths: Range) -> Tensor:
    """Draw a kernel of blur [21, 21]."""
    size = random.one_of(KERNEL_SIZES)
    if random.chance(SINC_PROBABILITY):
        start = math.pi / 3 if size < SMALL_KERNEL else math.pi / 5
        kernel = sinc_kernel(random.uniform(start, math.pi), size)
    else:
        bells, probabilities = zip(*BELLS, strict=True)
        shape, isotropic = random.one_of(bells, probabilities)
        sigma_x = random.uniform(*widths)
        sigma_y = sigma_x if isotropic else random.uniform(*widths)
        angle = 0.0 if isotropic else random.uniform(-180, 180)
        low, high = BETAS[shape]
        beta = random.uniform(low, 1.0) if random.chance(0.5) else random.uniform(1.0, high)
        kernel = anisotropic_kernel(sigma_x, sigma_y, angle, size=size, shape=shape, beta=beta)
    return padded_kernel(kernel, KERNEL_SIZE)


def apply_parameters(x: Tensor, draw: Draw, scale: int, generator: torch.Generator) -> Tensor:
    """Degrade an image by drawn parameters.

    Parameters
    ----------
    x : Tensor
        [C, H, W] in [0, 1], C of 1 or 3.
    draw : Draw
        The parameters.
    scale : int
        Down-sampling factor, of which H and W are multiples.
    generator : torch.Generator
        Generator of the noise.

    Returns
    -------
    Tensor
        [C, H/scale, W/scale] in [0, 1].
    """
    height, width = x.shape[-2:]
    low = (height // scale, width // scale)
    x = _apply_stage(x, draw.first, (height, width), generator)
    x = jpeg(x, draw.first.quality)
    x = _apply_stage(x, draw.second, low, generator)
    if draw.jpeg_last:
        return jpeg(_finish(x, draw, low), draw.second.quality)
    return _finish(jpeg(x, draw.second.quality), draw, low).clamp(0, 1)


def _apply_stage(
    x: Tensor, stage: StageDraw, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Blur, resize to `size` times the factor, and add noise; clipped to [0, 1]."""
    if stage.kernel is not None:
        x = filter_image(x, stage.kernel)
    height, width = (max(1, int(side * stage.factor)) for side in size)
    x = _resized(x, (height, width), stage.method)
    if stage.poisson:
        source = round_to_8_bit(to_gray(x) if stage.gray else x)
        levels = 2 ** math.ceil(math.log2(len(source.unique())))
        x = x + stage.strength * photon_noise(source, levels, generator)
    else:
        add = add_gray_noise if stage.gray else add_noise
        x = add(x, stage.strength, generator)
    return x.clamp(0, 1)


def _finish(x: Tensor, draw: Draw, size: tuple[int, int]) -> Tensor:
    """Resize to low resolution and apply the last filter."""
    x = _resized(x, size, draw.final_method)
    return x if draw.final is None else filter_image(x, draw.final)


def _resized(x: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Resize without a low-pass filter, as published."""
    return F.interpolate(x[None], size=size, mode=method)[0]


@dataclass(frozen=True)
class RealESRGAN(Step):
    """Real-ESRGAN's pipeline with its published ranges; it includes the down-sampling.

    Stage 1: blur (σ 0.2 to 3 pixels; Gaussian, generalised or plateau-shaped, isotropic or not,
    over 7×7 to 21×21; 10 %: sinc), resizing by 0.15 to 1.5, Gaussian (σ 1/255 to 30/255) or Poisson
    noise (scale 0.05 to 3), 40 % of it gray, JPEG of quality 30 to 95. Stage 2: the same with blur
    in 80 % (σ 0.2 to 1.5), resizing of the low resolution by 0.3 to 1.2, noise of σ up to 25/255 or
    scale 0.05 to 2.5; then resizing to the low resolution with a sinc filter in 80 %, before or
    after JPEG.

    Notes
    -----
    Source: Wang et al., "Real-ESRGAN", ICCV workshops 2021, with the ranges of the authors'
    options for ×4. JPEG is Pillow's codec of integer quality in place of an emulation, and the
    ground truth is not sharpened. Bilinear and bicubic (a = -0.75) resizing have no low-pass
    filter, as published.
    """

    name = "realesrgan"

    def degrade(self, x: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """Degrade [C, H, W] to [C, H/scale, W/scale]."""
        return apply_parameters(x, draw_parameters(generator), scale, generator)
