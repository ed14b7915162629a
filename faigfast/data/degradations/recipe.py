"""Degradation: a recipe from sharp images to degraded ones of low resolution."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from faigfast.data.degradations.blur import gaussian_blur
from faigfast.data.degradations.codecs import round_to_8_bit
from faigfast.data.degradations.grammar import joined, parse_steps
from faigfast.data.degradations.identity import function_identity
from faigfast.data.degradations.noise import add_noise
from faigfast.data.degradations.real_esrgan import RealESRGAN
from faigfast.data.degradations.resampling import DOWNSAMPLINGS, downsample, low_size
from faigfast.data.degradations.steps import Blur, Down, Noise, Step

Function = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Degradation:
    """A recipe: blur, then down-sampling, then noise, then rounding to 8 bit; or any other steps.

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
    steps : sequence of Step or callable
        Steps in their order, in place of `blur` and `noise`: classes of
        `faigfast.data.degradations`, or functions (image [C, H, W] in [0, 1], generator) -> image.
        The image is down-sampled at the step `Down()`; without it, before the first step that is
        neither a blur (`Blur`, `Anisotropic`, `Motion`, `Defocus`, `Sinc`, `Resize`) nor a
        function. `RealESRGAN` down-samples too, and a function may: it returns the size it got, or
        [C, H/scale, W/scale]. After all steps the image is rounded to 8 bit.

    Raises
    ------
    TypeError
        If a step is neither a `Step` nor callable.
    ValueError
        If a strength is negative or not finite, the scale or the method is unknown, `blur` or
        `noise` is given beside steps, or two steps down-sample.

    Notes
    -----
    Source: the recipe of Xie et al., NeurIPS 2021 (blur σ = 2 with a 21×21 kernel, noise 0.1, ×2).

    Examples
    --------
    >>> blur = Degradation.parse("blur=2", scale=2)
    >>> blur(torch.rand(1, 3, 24, 24), seed=0).shape
    torch.Size([1, 3, 12, 12])
    >>> Degradation.parse("motion=7:45+poisson=1+resize=1.5:bilinear").text
    'motion=7:45+poisson=1+resize=1.5:bilinear'
    """

    blur: float = 0.0
    noise: float = 0.0
    scale: int = 2
    downsampling: str = "bilinear"
    steps: tuple[Step | Function, ...] = ()

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
        if isinstance(self.steps, str) or not hasattr(self.steps, "__iter__"):
            raise TypeError(
                f"steps is {self.steps!r}; expected a sequence of steps, or Degradation.parse"
            )
        object.__setattr__(self, "steps", tuple(self.steps))
        for step in self.steps:
            if isinstance(step, type) or not callable(step):
                raise TypeError(
                    f"steps hold {step!r}; expected steps such as Blur(2), or functions"
                )
        if self.steps and (self.blur or self.noise):
            raise ValueError(
                f"blur {self.blur!r} and noise {self.noise!r} are given beside steps; expected "
                "Blur and Noise among the steps"
            )
        if sum(isinstance(step, Down | RealESRGAN) for step in self.steps) > 1:
            raise ValueError(
                f"degradation {self.text!r} is down-sampled twice; expected one of 'down' and "
                "'realesrgan', once"
            )

    @classmethod
    def parse(cls, text: str, scale: int = 2, downsampling: str = "bilinear") -> "Degradation":
        """Read a recipe such as "blur=2", "blur=2+noise=0.1+jpeg=40" or "clean".

        Steps are joined by "+", the values of a step by ":". A recipe of `blur` and `noise` alone,
        each at most once, blurs, down-samples and adds noise, however it is written; all other
        recipes keep the written order.

        Raises
        ------
        ValueError
            If the text is of another form.
        """
        steps = parse_steps(text)
        kinds = [type(step) for step in steps]
        if not set(kinds) <= {Blur, Noise}:
            return cls(scale=scale, downsampling=downsampling, steps=steps)
        if len(set(kinds)) < len(kinds):
            raise ValueError(
                f"degradation {text!r} repeats a step; expected 'blur=SIGMA', 'noise=SIGMA' or "
                "'blur=SIGMA+noise=SIGMA' where no other step is given"
            )
        strengths = {type(s): float(s.sigma) for s in steps if isinstance(s, Blur | Noise)}
        return cls(strengths.get(Blur, 0.0), strengths.get(Noise, 0.0), scale, downsampling)

    @classmethod
    def of(
        cls,
        recipe: "Degradation | str | Function",
        scale: int,
        downsampling: str = "bilinear",
    ) -> "Degradation":
        """Make a degradation of a recipe's text or of a function; leave a degradation as it is.

        Raises
        ------
        TypeError
            If the recipe is something else.
        ValueError
            If the text is of another form, or a degradation has another scale.
        """
        if isinstance(recipe, str):
            return cls.parse(recipe, scale, downsampling)
        if not isinstance(recipe, Degradation):
            if isinstance(recipe, type) or not callable(recipe):
                raise TypeError(
                    f"a degradation is {recipe!r}; expected a recipe, a Degradation or a function"
                )
            return cls(scale=scale, downsampling=downsampling, steps=(recipe,))
        if recipe.scale != scale:
            raise ValueError(
                f"degradation {recipe.text!r} has the scale {recipe.scale}; expected {scale}"
            )
        return recipe

    @property
    def text(self) -> str:
        """The recipe as `parse` reads it; a function appears by its name."""
        return joined([s if isinstance(s, Step) else _name(s) for s in self.sequence])

    @property
    def sequence(self) -> tuple[Step | Function, ...]:
        """`steps`, or `blur` and `noise` as steps."""
        paper = ((Blur, self.blur), (Noise, self.noise))
        return self.steps or tuple(kind(strength) for kind, strength in paper if strength)

    @property
    def clean(self) -> bool:
        """Whether the image is only down-sampled and rounded."""
        return all(isinstance(step, Down) for step in self.sequence)

    @property
    def identity(self) -> str | None:
        """Text that equals another degradation's only if both do the same; None if unknown.

        Recipes are identified by their text and the down-sampling, functions of modules by name
        and source; lambdas, inner functions and objects have no identity.
        """
        names = [
            str(step) if isinstance(step, Step) else function_identity(step)
            for step in self.sequence
        ]
        if None in names:
            return None
        return f"{joined(names)}, {self.downsampling} /{self.scale}"

    def combined(self, other: "Degradation") -> "Degradation | None":
        """Give a degradation that does what both do, or None if both place the down-sampling.

        Recipes of blur and noise alone give the greater blur and the greater noise. With other
        steps, the steps before the down-sampling come first, each recipe's in its order.
        """
        if not (self.steps or other.steps):
            blur, noise = max(self.blur, other.blur), max(self.noise, other.noise)
            return Degradation(blur, noise, self.scale, self.downsampling)
        parts = [recipe._split() for recipe in (self, other)]
        steps = [step for early, _ in parts for step in early]
        steps += [step for _, late in parts for step in late]
        if sum(isinstance(step, Down | RealESRGAN) for step in steps) > 1:
            return None
        return Degradation(scale=self.scale, downsampling=self.downsampling, steps=tuple(steps))

    def _split(self) -> tuple[list[Step | Function], list[Step | Function]]:
        """Give the steps before the down-sampling, and the others."""
        steps = list(self.sequence)
        late = [
            n
            for n, step in enumerate(steps)
            if isinstance(step, Step) and not step.before_downsampling
        ]
        place = [n for n in late if isinstance(steps[n], Down | RealESRGAN)] or late
        return (steps[: place[0]], steps[place[0] :]) if place else (steps, [])

    def seed_of(self, seed: int, name: str, otherwise: int) -> int:
        """Give the seed of an image of a data set.

        Parameters
        ----------
        seed : int
            Seed of the data set.
        name : str
            Name of the image.
        otherwise : int
            The seed by position, which recipes of blur and noise alone keep.
        """
        return _hashed(seed, name) if self.steps else otherwise

    def __call__(self, gt: Tensor, seed: int = 0) -> Tensor:
        """Degrade images.

        Parameters
        ----------
        gt : Tensor
            [N, C, H, W] in [0, 1], H and W multiples of the scale.
        seed : int
            Seed of all random numbers; equal seeds give equal images. With `steps` the numbers of
            each step follow from the seed, the position in the batch and the step's name alone:
            other steps do not change them.

        Returns
        -------
        Tensor
            [N, C, H/scale, W/scale], multiples of 1/255 in [0, 1].

        Raises
        ------
        ImportError
            If a codec needs Pillow, which is not installed.
        TypeError
            If `gt` is not a floating-point tensor, or a function returns something else.
        ValueError
            If the shape of `gt` or of a function's result does not fit, or a value is not finite.
        """
        if not (isinstance(gt, Tensor) and gt.is_floating_point()):
            kind = gt.dtype if isinstance(gt, Tensor) else type(gt).__name__
            raise TypeError(f"gt is {kind}; expected a floating-point tensor in [0, 1]")
        if gt.ndim != 4 or not gt.isfinite().all():
            raise ValueError(f"gt is {list(gt.shape)}; expected [N, C, H, W] of finite values")
        if self.steps:
            images = [self._in_order(image, seed, n) for n, image in enumerate(gt)]
            x = torch.stack(images) if images else self._downsampled(gt)
            return round_to_8_bit(x)
        generator = torch.Generator().manual_seed(seed)
        x = self._downsampled(gaussian_blur(gt, self.blur))
        if self.noise:
            x = add_noise(x, self.noise, generator)
        return round_to_8_bit(x)

    def _downsampled(self, x: Tensor) -> Tensor:
        return downsample(x, self.scale, self.downsampling)

    def _in_order(self, x: Tensor, seed: int, position: int) -> Tensor:
        """Apply the steps to one image [C, H, W]."""
        small = (x.shape[0], *low_size(x, self.scale))
        is_low = False
        placed = any(isinstance(step, Down | RealESRGAN) for step in self.steps)
        uses: dict[str, int] = {}
        for step in self.steps:
            name = step.name if isinstance(step, Step) else _name(step)
            uses[name] = uses.get(name, 0) + 1
            generator = torch.Generator().manual_seed(_hashed(seed, position, name, uses[name]))
            if isinstance(step, Down | RealESRGAN):
                if is_low:
                    raise ValueError(
                        f"degradation {self.text!r}: a function down-samples before {name!r}; "
                        "expected one of them to do so"
                    )
                is_low = True
                if isinstance(step, RealESRGAN):
                    x = step.degrade(x, self.scale, generator)
                else:
                    x = self._downsampled(x[None])[0]
            elif isinstance(step, Step):
                if not (step.before_downsampling or is_low or placed):
                    x, is_low = self._downsampled(x[None])[0], True
                x = step(x, generator)
            else:
                before = tuple(x.shape)
                x = _checked(step(x.clamp(0, 1), generator), name, before, small)
                is_low = is_low or x.shape != before
        return x if is_low else self._downsampled(x[None])[0]


def _checked(y: Any, name: str, *shapes: tuple[int, ...]) -> Tensor:
    """Refuse a function's result that is no finite image of one of the shapes."""
    if not isinstance(y, Tensor) or not y.is_floating_point():
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"degradation {name} returns {kind}; expected a floating-point tensor")
    if tuple(y.shape) not in shapes or not y.isfinite().all():
        expected = " or ".join(str(list(shape)) for shape in dict.fromkeys(shapes))
        raise ValueError(
            f"degradation {name} returns {list(y.shape)}; expected {expected} of finite values"
        )
    return y


def _hashed(*parts: object) -> int:
    """Give a seed of 32 bits, which is what a CPU generator of torch takes, for some values."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


def _name(function: Function) -> str:
    """Name of a function in recipes and errors."""
    return getattr(function, "__qualname__", type(function).__name__)
