"""How well networks restore: metrics of every crop of photographs, with confidence intervals."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.analysis.metrics import output_difference, psnr, ssim
from faigfast.data.degradations import Degradation, round_to_8_bit
from faigfast.data.patches import crop_to_multiple
from faigfast.integration.named_images import name_in_errors
from faigfast.integration.padding import middle, own_part, reflected
from faigfast.models.state import undisturbed

CHUNK = 8  # images in one forward
SSIM_CHUNK = 32  # images whose windows are held at once

# Metric → degradation of the input → one number an image [N].
MetricValues = dict[str, dict[str, Tensor]]


def _ssim_in_chunks(channel: str) -> Callable[..., Tensor]:
    def ssim_of_all(output: Tensor, gt: Tensor, border: int) -> Tensor:
        parts = zip(output.split(SSIM_CHUNK), gt.split(SSIM_CHUNK), strict=True)
        return torch.cat([ssim(a, b, border=border, channel=channel) for a, b in parts])

    return ssim_of_all


# Metrics that compare the output with the ground truth, and with the target's output.
AGAINST_TRUTH: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "psnr": lambda output, gt, border: psnr(output, gt, border=border),
    "psnr_y": lambda output, gt, border: psnr(output, gt, border=border, channel="y"),
    "ssim": _ssim_in_chunks("rgb"),
    "ssim_y": _ssim_in_chunks("y"),
}
AGAINST_TARGET: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": lambda one, other: output_difference(one, other),
    "difference_authors": lambda one, other: output_difference(one, other, form="authors"),
}
METRICS = {
    "psnr": "PSNR, dB",
    "psnr_y": "PSNR of Y, dB",
    "ssim": "SSIM",
    "ssim_y": "SSIM of Y",
    "difference": "output difference",
    "difference_authors": "output difference, authors' form",
}


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
    pad : int
        Pixels of reflection around every degraded crop for a network; see `faigfast.attribute`.
    """

    lq: dict[str, Tensor]
    gt: Tensor
    names: tuple[str, ...]
    pad: int = 0

    @property
    def photographs(self) -> tuple[str, ...]:
        """The photograph of each crop."""
        return tuple(name.rpartition(" ")[0] for name in self.names)

    def part(self, chosen: slice) -> "Crops":
        """Take some of the crops."""
        lq = {name: x[chosen] for name, x in self.lq.items()}
        return Crops(lq, self.gt[chosen], self.names[chosen], self.pad)

    def without(self, chosen: slice) -> "Crops":
        """Take all other crops."""
        drop = set(range(len(self.names))[chosen])
        return self.at([n for n in range(len(self.names)) if n not in drop])

    def at(self, places: list[int]) -> "Crops":
        """Take the crops at these places, in their order."""
        lq = {name: x[places] for name, x in self.lq.items()}
        return Crops(lq, self.gt[places], tuple(self.names[n] for n in places), self.pad)

    def without_flat(self, border: int) -> "Crops":
        """Leave out crops of one colour inside the border: PSNR of an exact result is infinite."""
        inner: Any = (..., *[slice(border, side - border) for side in self.gt.shape[2:]])
        values = round_to_8_bit(self.gt[inner]).flatten(2)  # [N, C, pixels]
        flat = (values.amax(2) == values.amin(2)).all(1)
        return self.at((~flat).nonzero().flatten().tolist()) if flat.any() else self


def crops(
    images: Mapping[str, Tensor],
    degradations: Mapping[str, Degradation],
    size: int = 96,
    seed: int = 0,
) -> Crops:
    """Degrade photographs and cut them into a grid of crops without overlap.

    Parameters
    ----------
    images : mapping of str to Tensor
        [3, H, W] in [0, 1], by name.
    degradations : mapping of str to Degradation
        By name, all of one scale.
    size : int
        Side of the ground-truth crop in pixels, a multiple of the scale.
    seed : int
        Seed of the random numbers; every photograph has its own, see `Degradation.seed_of`.

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

    def degraded() -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        for number, (name, image) in enumerate(images.items()):
            image = crop_to_multiple(image, size)
            if not image.numel():
                continue
            with name_in_errors(f"photograph {name!r}"):
                lq = {
                    key: degrade(image[None], degrade.seed_of(seed, name, seed + number))[0]
                    for key, degrade in degradations.items()
                }
            yield name, image, lq

    return cut_crops(degraded(), size, scale)


def cut_crops(
    images: Iterable[tuple[str, Tensor, Mapping[str, Tensor]]], size: int, scale: int
) -> Crops:
    """Cut photographs and their degraded versions into a grid of crops without overlap.

    Parameters
    ----------
    images : iterable of (str, Tensor, mapping of str to Tensor)
        Name, ground truth [C, H, W], and degraded images [C, H/scale, W/scale]. Pixels left over at
        the bottom and right are dropped, and photographs smaller than a crop.
    size : int
        Side of the ground-truth crop in pixels, a multiple of the scale.
    scale : int
        Enlargement from degraded image to ground truth.

    Returns
    -------
    Crops
        Photograph by photograph, row by row.

    Raises
    ------
    ValueError
        If no photograph holds a crop, or a photograph lacks a degradation of the others.
    """
    lq: dict[str, list[Tensor]] = {}
    gt: list[Tensor] = []
    names: list[str] = []
    for name, image, degraded in images:
        image = crop_to_multiple(image, size)[None]
        if not image.numel():
            continue
        if gt and degraded.keys() != lq.keys():
            raise ValueError(
                f"photograph {name!r} has the degradations {list(degraded)} and those before it "
                f"{list(lq)}; expected the same for all"
            )
        gt.append(_tiles(image, size))
        rows, columns = (side // size for side in image.shape[-2:])
        for key, low in degraded.items():
            low = low[None, :, : rows * (size // scale), : columns * (size // scale)]
            lq.setdefault(key, []).append(_tiles(low, size // scale))
        names += [f"{name} {n // columns},{n % columns}" for n in range(len(gt[-1]))]
    if not gt:
        raise ValueError(f"no photograph holds a crop of {size}×{size}")
    return Crops({key: torch.cat(parts) for key, parts in lq.items()}, torch.cat(gt), tuple(names))


def _tiles(image: Tensor, size: int) -> Tensor:
    """Cut [1, C, H, W] into [N, C, size, size], row by row."""
    tiles = image[0].unfold(1, size, size).unfold(2, size, size)  # [C, rows, columns, size, size]
    return tiles.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def evenly_spaced(data: Crops, most: int) -> Crops:
    """Take at most `most` crops, at equal distances."""
    if len(data.names) <= most:
        return data
    return data.at(sorted({n * len(data.names) // most for n in range(most)}))


def restore(
    network: nn.Module, lq: Tensor, pad: int = 0, sides: Sequence[int] | None = None
) -> Tensor:
    """Run a network on images, a few at a time, in eval mode.

    Parameters
    ----------
    network : nn.Module
        The network that restores.
    lq : Tensor
        [N, C, h, w].
    pad : int
        Pixels of reflection around every image; the middle of the output is kept.
    sides : sequence of int, optional
        Height and width of the middle; None: the part of the output that shows the image.

    Returns
    -------
    Tensor
        [N, C, H, W].

    Raises
    ------
    ValueError
        If an image is too small for the padding, or the output has no such middle.
    """
    with undisturbed(network), torch.no_grad():
        output = torch.cat([network(reflected(part, pad)) for part in lq.split(CHUNK)])
    if not pad:
        return output
    return own_part(output, lq, pad) if sides is None else middle(output, sides, pad)


def evaluate(
    network: nn.Module, data: Crops, *, border: int, channel: str = "rgb"
) -> dict[str, Tensor]:
    """PSNR in dB of every crop [N], by degradation."""
    return {
        name: psnr(
            restore(network, lq, data.pad, data.gt.shape[2:]),
            data.gt,
            border=border,
            channel=channel,
        )
        for name, lq in data.lq.items()
    }


def check_metrics(metrics: Iterable[str]) -> None:
    """Refuse a name that is not in `METRICS`."""
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"metric is {unknown[0]!r}; expected some of {', '.join(METRICS)}")


def measure(
    network: nn.Module,
    data: Crops,
    *,
    border: int,
    metrics: Sequence[str] = ("psnr",),
    reference: Mapping[str, Tensor] | None = None,
) -> MetricValues:
    """Measure a network by several metrics with one restoration.

    Parameters
    ----------
    network : nn.Module
        The network that restores.
    data : Crops
        The crops to restore.
    border : int
        Pixels left out on every side; output differences leave none out.
    metrics : sequence of str
        Of `METRICS`.
    reference : mapping of str to Tensor, optional
        The target's outputs [N, C, H, W] by degradation, for the output differences; without it
        these are left out.

    Returns
    -------
    dict of str to dict of str to Tensor
        Metric to degradation to [N].

    Raises
    ------
    ValueError
        If a metric is unknown, or as the metrics.
    """
    check_metrics(metrics)
    values: MetricValues = {}
    for degradation, lq in data.lq.items():
        output = restore(network, lq, data.pad, data.gt.shape[2:])
        for name in metrics:
            if name in AGAINST_TRUTH:
                distances = AGAINST_TRUTH[name](output, data.gt, border)
            elif reference is not None:
                distances = AGAINST_TARGET[name](output, reference[degradation])
            else:
                continue
            values.setdefault(name, {})[degradation] = distances
    return values


def mean_values(runs: Sequence[MetricValues]) -> MetricValues:
    """Mean over several networks, image by image."""
    return {
        metric: {d: torch.stack([run[metric][d] for run in runs]).mean(0) for d in by_degradation}
        for metric, by_degradation in runs[0].items()
    }


def ratio_or_nan(part: float, total: float) -> float:
    """Give part / total; NaN where the total is not positive, such as a gain of nothing."""
    return part / total if total > 0 else math.nan


def mean_and_interval(values: Tensor | Iterable[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % confidence interval (normal, 1.96 standard errors)."""
    mean, half = means_and_intervals(torch.as_tensor(values, dtype=torch.float64)[:, None])
    return float(mean), float(half)


def means_and_intervals(values: Tensor) -> tuple[Tensor, Tensor]:
    """As `mean_and_interval`, of every column of [N, K]; half widths are NaN for one row."""
    mean = values.mean(0)
    if len(values) < 2:
        return mean, torch.full_like(mean, math.nan)
    return mean, 1.96 * values.std(0) / math.sqrt(len(values))


def difference_text(values: Tensor) -> str:
    """Write the mean of PSNR differences in dB, with its interval where there is one."""
    mean, half = mean_and_interval(values)
    return f"{mean:+.2f} dB" if math.isnan(half) else f"{mean:+.2f} ± {half:.2f} dB"


def photograph_means(values: Tensor, photographs: Sequence[str]) -> Tensor:
    """Means [P] of the photographs' crops, float64, from one number a crop [N]."""
    groups: dict[str, list[float]] = {}
    for name, value in zip(photographs, values.tolist(), strict=True):
        groups.setdefault(name, []).append(value)
    return torch.tensor([sum(g) / len(g) for g in groups.values()], dtype=torch.float64)


def over_photographs(values: Tensor, photographs: Sequence[str]) -> tuple[float, float, int, int]:
    """Mean over photographs of their crops' means, with its interval over photographs.

    Parameters
    ----------
    values : Tensor
        [N], one number a crop.
    photographs : sequence of str
        The photograph of each crop.

    Returns
    -------
    mean : float
        Every photograph counts the same, however many crops it gives.
    half : float
        Half width of the 95 % confidence interval by Student's t; NaN for one photograph.
    positive, count : int
        Number of photographs with a mean above 0, and of all photographs.

    Raises
    ------
    ImportError
        If SciPy is not installed.
    """
    try:
        from scipy.stats import t
    except ImportError:
        raise ImportError("intervals need SciPy: pip install 'faigfast[report]'") from None
    means = photograph_means(values, photographs)
    count, positive = len(means), int((means > 0).sum())
    if count < 2:
        return float(means.mean()), math.nan, positive, count
    half = float(t.ppf(0.975, count - 1)) * float(means.std()) / math.sqrt(count)
    return float(means.mean()), half, positive, count
