"""Random training patches of degraded photographs, the same for the same seed and iteration."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from faigfast.data.degradations import (
    Degradation,
    add_noise,
    downsample,
    gaussian_blur,
    round_to_8_bit,
)
from faigfast.data.degradations.recipe import Function

MARGIN = 8  # pixels of low resolution, one block of JPEG


def crop_to_multiple(x: Tensor, factor: int) -> Tensor:
    """Cut [..., H, W] at the bottom and right to multiples of `factor`."""
    height, width = (side - side % factor for side in x.shape[-2:])
    return x[..., :height, :width]


class Patches:
    """Pairs of patches (lq, gt), degraded with given probabilities.

    All photographs are blurred and shrunk once. A patch is a crop of one, rotated and mirrored
    at random, with noise of its own, rounded to 8 bit. Recipes degrade a patch on its own, with
    random numbers of its own, after it is rotated; the photograph around it, up to 8 pixels of low
    resolution, is degraded with it, as far as it is inside on all sides.

    Parameters
    ----------
    images : iterable of Tensor
        [C, H, W] in [0, 1], any sizes.
    scale : int
        Down-sampling factor.
    patch : int
        Side of the low-resolution patch, in pixels.
    blur, noise : tuple of float
        Strengths to choose from, as in `Degradation`; empty for none.
    recipes : sequence of Degradation, str or callable
        Recipes to choose from, as `faigfast.data.DegradedFolder` takes them; empty for none. A
        patch with a recipe gets no other blur and noise.
    probability : float
        Probability that a patch gets a recipe; otherwise, that it is blurred, and, independently,
        that it is noisy.
    resizes : tuple of float
        Sizes of every photograph to crop from, as factors.

    Raises
    ------
    TypeError
        If a recipe is something else.
    ValueError
        If a side, the scale or a strength is out of range, the probability outside [0, 1], a recipe
        of another scale or unable to degrade a patch, or no photograph holds one patch.
    """

    def __init__(
        self,
        images: Iterable[Tensor],
        *,
        scale: int,
        patch: int,
        blur: tuple[float, ...] = (),
        noise: tuple[float, ...] = (),
        recipes: Sequence[Degradation | str | Function] = (),
        probability: float = 0.5,
        resizes: tuple[float, ...] = (1.0, 0.75, 0.5),
    ) -> None:
        for name, value in (("patch", patch), ("scale", scale)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; expected a positive integer")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability is {probability!r}; expected a number in [0, 1]")
        for sigma in blur:
            Degradation(blur=sigma)
        for sigma in noise:
            Degradation(noise=sigma)
        self.recipes = [Degradation.of(recipe, scale) for recipe in recipes]
        self.scale, self.patch = scale, patch
        self.noise, self.probability = noise, probability
        # For each photograph and size: ground truth, and low resolution, sharp and blurred.
        self.sources: list[tuple[Tensor, list[Tensor]]] = []
        for image in images:
            for factor in resizes:
                gt = image[None]
                if factor != 1:
                    gt = F.interpolate(
                        gt, scale_factor=factor, mode="bicubic", align_corners=False, antialias=True
                    ).clamp(0, 1)
                gt = crop_to_multiple(gt, scale)
                if min(gt.shape[-2:]) < scale * patch:
                    continue
                low = [downsample(gaussian_blur(gt, sigma), scale)[0] for sigma in (0.0, *blur)]
                self.sources.append((gt[0], low))
        if not self.sources:
            raise ValueError(f"no photograph holds a patch of {scale * patch}×{scale * patch}")
        for recipe in self.recipes:  # to find out now, not at some iteration
            recipe(self.sources[0][0][None, :, : scale * patch, : scale * patch])
        self.areas = torch.tensor([float(gt[0].numel()) for gt, _ in self.sources])

    def batch(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Draw patches.

        Parameters
        ----------
        size : int
            Number of patches N.
        seed : int
            The same seed draws the same patches.

        Returns
        -------
        lq : Tensor
            [N, C, patch, patch].
        gt : Tensor
            [N, C, scale·patch, scale·patch].
        """
        generator = torch.Generator().manual_seed(seed)

        def integer(below: int) -> int:
            return int(torch.randint(below, (), generator=generator))

        def chance() -> bool:
            return bool(torch.rand((), generator=generator) < self.probability)

        chosen = torch.multinomial(self.areas, size, replacement=True, generator=generator)
        pairs = []
        for gt, low in (self.sources[int(i)] for i in chosen):
            if self.recipes and chance():
                recipe = self.recipes[integer(len(self.recipes))]
                pairs.append(self._degraded(gt, recipe, integer))
                continue
            blurred = len(low) > 1 and chance()
            lq = low[1 + integer(len(low) - 1)] if blurred else low[0]
            top, left = (integer(side - self.patch + 1) for side in lq.shape[-2:])
            turns, mirrored = integer(4), integer(2)
            noisy = bool(self.noise) and chance()
            pair = []
            for image, zoom in ((lq, 1), (gt, self.scale)):
                side = self.patch * zoom
                image = image[:, top * zoom :, left * zoom :][:, :side, :side]
                image = torch.rot90(image, turns, (1, 2))
                pair.append(image.flip(2) if mirrored else image)
            if noisy:
                sigma = self.noise[integer(len(self.noise))]
                pair[0] = add_noise(pair[0], sigma, generator)
            pairs.append((round_to_8_bit(pair[0]), pair[1]))
        return torch.stack([lq for lq, _ in pairs]), torch.stack([gt for _, gt in pairs])

    def _degraded(
        self, gt: Tensor, recipe: Degradation, integer: Callable[[int], int]
    ) -> tuple[Tensor, Tensor]:
        """Cut a patch, rotate and mirror it, and degrade it by a recipe."""
        height, width = (side // self.scale for side in gt.shape[-2:])
        top, left = integer(height - self.patch + 1), integer(width - self.patch + 1)
        turns, mirrored = integer(4), integer(2)
        rest = (top, left, height - self.patch - top, width - self.patch - left)
        margin = min(MARGIN, *rest)  # equal on all sides, so that it is so after the rotation too
        rows, columns = (
            slice(self.scale * (start - margin), self.scale * (start + self.patch + margin))
            for start in (top, left)
        )
        window = torch.rot90(gt[:, rows, columns], turns, (1, 2))
        window = window.flip(2) if mirrored else window
        lq = recipe(window[None], seed=integer(2**31))[0]
        inner, outer = (
            slice(zoom * margin, zoom * (margin + self.patch)) for zoom in (1, self.scale)
        )
        return lq[:, inner, inner], window[:, outer, outer]
