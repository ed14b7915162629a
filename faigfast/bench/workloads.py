"""Benchmark problems: a pair of networks, images, and their floating-point work."""

import copy
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.bench import spandrel
from faigfast.bench.families import FAMILIES, SEED
from faigfast.filters.index import CONVOLUTIONS
from faigfast.io.text_table import counted

Images = Tensor | tuple[Tensor, ...]

RULE = "midpoint"
FOLDER = "folder"

# Heights and widths of a folder's images: half of them upright, no two of one size.
SIZES = (
    (40, 52), (56, 44), (48, 64), (72, 48), (61, 83), (80, 60), (64, 96),
    (96, 64), (50, 81), (75, 50), (72, 96), (90, 57), (45, 70), (96, 72),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Problem:
    """One attribution to compute.

    Parameters
    ----------
    baseline, target : nn.Module
        Networks of one architecture in eval mode, never changed.
    x, gt : Tensor or tuple of Tensor
        Images [N, C, H, W] and ground truth [N, C, scale·H, scale·W], NCHW in memory; images of
        several sizes in a tuple, [1, C, H, W] each.
    steps : int
        Points P of the rule.
    rule : str
        As in `faigfast.attribute`.
    """

    baseline: nn.Module
    target: nn.Module
    x: Images
    gt: Images
    steps: int
    rule: str = RULE

    def to(self, destination: torch.device | str | torch.dtype) -> "Problem":
        """Give the same problem with copies of networks and images on a device, or of a type."""
        baseline, target = (
            copy.deepcopy(net).to(destination) for net in (self.baseline, self.target)
        )
        x, gt = (
            part.to(destination)
            if isinstance(part, Tensor)
            else tuple(image.to(destination) for image in part)
            for part in (self.x, self.gt)
        )
        return Problem(baseline, target, x, gt, self.steps, self.rule)

    def images(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the images one by one: x [1, C, H, W] and its ground truth."""
        x, gt = (part.split(1) if isinstance(part, Tensor) else part for part in (self.x, self.gt))
        return zip(x, gt, strict=True)

    @property
    def batch(self) -> Any:
        """Give the batch for `faigfast.attribute`: one, or a list with one an image."""
        return (self.x, self.gt) if isinstance(self.x, Tensor) else list(self.images())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the images."""
        return self.x[0].dtype

    @cached_property
    def flops(self) -> int:
        """P·3·(forward work of all images), the work of "effective GFLOP/s".

        The gradients of input and weight cost one forward each. Pointwise operations and the two
        end losses do not count, whatever a contender computes.
        """
        images = {x.shape: x for x, _ in self.images()}
        image_counts = Counter(x.shape for x, _ in self.images())
        forward = sum(
            image_counts[shape] * forward_flops(self.target, images[shape]) for shape in images
        )
        return self.steps * 3 * forward


@dataclass(frozen=True)
class Workload:
    """A named problem, the same at every call.

    Parameters
    ----------
    name : str
        "FAMILY-SIZExIMAGES", such as "srresnet-48x4", or "FAMILY-folder".
    family : str
        One of `FAMILIES`.
    sizes : tuple of (int, int)
        Height and width of every input image.
    """

    name: str
    family: str
    sizes: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        images = counted(len(self.sizes), "image")
        if self.is_folder:
            sides = [side for size in self.sizes for side in size]
            sizes = f"{len(set(self.sizes))} sizes, sides from {min(sides)} to {max(sides)}"
        else:
            sizes = f"{self.sizes[0][0]}×{self.sizes[0][1]}"
        return f"{self.name}: {FAMILIES[self.family].title}, {images} of {sizes}"

    @property
    def is_folder(self) -> bool:
        """Whether the images are of several sizes."""
        return len(set(self.sizes)) > 1

    def problem(self, steps: int, images: int | None = None) -> Problem:
        """Build networks and images.

        Parameters
        ----------
        steps : int
            Points of the rule.
        images : int, optional
            Number of images, the first of them; None: all.
        """
        family = FAMILIES[self.family]
        baseline, target = family.pair()
        generator = torch.Generator().manual_seed(SEED)
        x: Images
        gt: Images
        if self.is_folder:
            pairs = [_pictures(1, *size, family.scale, generator) for size in self.sizes[:images]]
            x, gt = (tuple(part) for part in zip(*pairs, strict=True))
        else:
            pictures = _pictures(len(self.sizes), *self.sizes[0], family.scale, generator)
            x, gt = (part[:images] for part in pictures)
        return Problem(baseline.eval(), target.eval(), x, gt, steps)


def workload(name: str) -> Workload:
    """Find the workload of a name.

    Parameters
    ----------
    name : str
        "FAMILY-SIZExIMAGES" for input images of SIZE² pixels, of any size and number, or
        "FAMILY-folder" for 14 images, each of another size. `WORKLOADS` lists the workloads with
        published figures.

    Raises
    ------
    ValueError
        If there is no such workload; the message has the names. Or if its networks need a missing
        package.

    Examples
    --------
    >>> print(workload("tiny-8x2"))
    tiny-8x2: SRResNet 4×1 ×2, random, 2 images of 8×8
    >>> print(workload("tiny-folder"))
    tiny-folder: SRResNet 4×1 ×2, random, 14 images of 14 sizes, sides from 40 to 96
    """
    match = re.fullmatch(rf"(\w+)-(?:([1-9]\d*)x([1-9]\d*)|{FOLDER})", name)
    if match is None or match[1] not in FAMILIES:
        raise ValueError(
            f"workload is {name!r}; expected all, one of {', '.join(WORKLOADS)}, or another "
            f"FAMILY-SIZExIMAGES or FAMILY-{FOLDER} with a family of {', '.join(FAMILIES)}"
        )
    if match[1] in spandrel.NETWORKS and (why := spandrel.missing(match[1])):
        raise ValueError(f"workload {name!r} cannot run here: {why}")
    sizes = ((int(match[2]),) * 2,) * int(match[3]) if match[2] else SIZES
    return Workload(name, match[1], sizes)


def forward_flops(net: nn.Module, x: Tensor) -> int:
    """Count the floating-point operations of the convolutions for x, a multiply-add as two.

    Parameters
    ----------
    net : nn.Module
        Run once, to see the shapes of every convolution.
    x : Tensor
        [N, C, *spatial].

    Examples
    --------
    >>> forward_flops(nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 4, 5)) == 2 * 3 * 8 * 9 * 20
    True
    """
    total = 0

    def count(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        transposed = getattr(module, "transposed", False)
        # Every output element (input element if transposed) uses one row of the weight.
        total += 2 * (args[0] if transposed else output).numel() * weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    try:
        with torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


WORKLOADS = (
    *(f"srresnet-{size}x{images}" for size in (48, 128, 256) for images in (1, 4, 16)),
    "srcnn-64x1",
    "edsr-64x1",
    "rrdbnet-64x1",
    "pair-64x4",
    "swinir-48x1",
    "srresnet-folder",
    "pair-folder",
)


def drawn(images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw smooth random pictures [N, 3, height, width] in [0, 1]."""
    gt = torch.full((images, 3, height, width), 0.5)
    for octave in (4, 8, 16, 32):
        coarse = torch.rand(images, 3, octave, octave, generator=generator) - 0.5
        octave_image = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
        gt += octave_image * (2 / octave)
    return gt.clamp(0, 1)


def _pictures(
    images: int, height: int, width: int, scale: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw smooth random pictures gt in [0, 1], and x: means of scale², with noise of σ = 0.1."""
    gt = drawn(images, scale * height, scale * width, generator)
    x = F.avg_pool2d(gt, scale)
    return x + 0.1 * torch.randn(x.shape, generator=generator), gt
