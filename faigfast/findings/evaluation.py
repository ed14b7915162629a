"""How well networks restore: PSNR of every crop of photographs, with confidence intervals."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from faigfast.data.degradations import Degradation
from faigfast.data.patches import crop_to_multiple
from faigfast.findings.metrics import psnr
from faigfast.networks import undisturbed

CHUNK = 8  # images in one forward


@dataclass(frozen=True)
class Crops:
    """Crops of photographs, degraded in several ways.

    Parameters
    ----------
    lq : dict of str to Tensor
        [N, C, h, w] by degradation.
    gt : Tensor
        [N, C, H, W].
    names : tuple of str
        Photograph and position of each crop.
    """

    lq: dict[str, Tensor]
    gt: Tensor
    names: tuple[str, ...]

    def part(self, chosen: slice) -> "Crops":
        """Take some of the crops."""
        lq = {name: x[chosen] for name, x in self.lq.items()}
        return Crops(lq, self.gt[chosen], self.names[chosen])

    def without(self, chosen: slice) -> "Crops":
        """Take all other crops."""
        drop = set(range(len(self.names))[chosen])
        keep = [n for n in range(len(self.names)) if n not in drop]
        lq = {name: x[keep] for name, x in self.lq.items()}
        return Crops(lq, self.gt[keep], tuple(self.names[n] for n in keep))


def crops(
    images: Mapping[str, Tensor],
    degradations: Mapping[str, Degradation],
    size: int = 96,
    seed: int = 0,
) -> Crops:
    """Degrade whole photographs and cut them into a grid of crops without overlap.

    Parameters
    ----------
    images : mapping of str to Tensor
        [3, H, W] in [0, 1], by name.
    degradations : mapping of str to Degradation
        By name; one scale for all.
    size : int
        Side of the ground-truth crop in pixels, a multiple of the scale.
    seed : int
        Of the noise; every photograph has its own.

    Returns
    -------
    Crops
        Photograph by photograph, row by row.

    Raises
    ------
    ValueError
        If no photograph holds a crop, or the scales differ or do not divide the size.
    """
    scales = {degradation.scale for degradation in degradations.values()}
    scale = next(iter(scales), 0)
    if len(scales) != 1 or size % scale:
        raise ValueError(
            f"degradations of scale {sorted(scales)} for crops of {size}; expected "
            "one scale that divides the size"
        )
    lq: dict[str, list[Tensor]] = {name: [] for name in degradations}
    gt: list[Tensor] = []
    names: list[str] = []
    for number, (name, image) in enumerate(images.items()):
        image = crop_to_multiple(image, size)[None]
        if not image.numel():
            continue
        gt.append(_tiles(image, size))
        for key, degrade in degradations.items():
            lq[key].append(_tiles(degrade(image, seed=seed + number), size // scale))
        columns = image.shape[-1] // size
        names += [f"{name} {n // columns},{n % columns}" for n in range(len(gt[-1]))]
    if not gt:
        raise ValueError(f"no photograph holds a crop of {size}×{size}")
    return Crops({key: torch.cat(parts) for key, parts in lq.items()}, torch.cat(gt), tuple(names))


def _tiles(image: Tensor, size: int) -> Tensor:
    """Cut [1, C, H, W] into [N, C, size, size], row by row."""
    tiles = image[0].unfold(1, size, size).unfold(2, size, size)  # [C, rows, columns, size, size]
    return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def restore(network: nn.Module, lq: Tensor) -> Tensor:
    """Run a network on images [N, C, h, w], a few at a time, in eval mode."""
    with undisturbed(network), torch.no_grad():
        return torch.cat([network(part) for part in lq.split(CHUNK)])


def evaluate(
    network: nn.Module, data: Crops, *, border: int, channel: str = "rgb"
) -> dict[str, Tensor]:
    """PSNR in dB of every crop [N], by degradation."""
    return {
        name: psnr(restore(network, lq), data.gt, border=border, channel=channel)
        for name, lq in data.lq.items()
    }


def mean_and_interval(values: Tensor | Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % confidence interval (normal, 1.96 standard errors)."""
    values = torch.as_tensor(values, dtype=torch.float64)
    if len(values) < 2:
        return float(values.mean()), math.nan
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(len(values)))
