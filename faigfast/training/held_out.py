"""Held-out crops: what a network removes, and the barrier between two networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.data.degradations import Degradation, round_to_8_bit
from faigfast.integration.line_losses import barrier, loss_table
from faigfast.integration.padding import middle, reflected
from faigfast.models.state import copy_of, undisturbed

CLEAN = "clean"
MOST_CROPS = 24
MOST_SIDE = 768  # pixels of a photograph that crops are cut from
MOST_PSNR = 80.0  # dB; equal images have it, so that means are finite
NODES = (0.25, 0.5, 0.75)  # of the line, where the barrier is measured
CHUNK = 8  # crops in one forward


@dataclass(frozen=True)
class HeldOut:
    """Crops of photographs that no training sees, clean and degraded.

    Parameters
    ----------
    lq : dict of str to Tensor
        [N, C, h, w] by name; "clean" is one of them.
    gt : Tensor
        [N, C, H, W].
    pad : int
        Pixels of reflection around every degraded crop.
    """

    lq: dict[str, Tensor]
    gt: Tensor
    pad: int = 0

    @classmethod
    def of(
        cls,
        images: Mapping[str, Tensor],
        recipes: Mapping[str, Degradation],
        *,
        scale: int,
        patch: int,
        pad: int,
        seed: int,
    ) -> "HeldOut":
        """Degrade photographs by every recipe, and cut crops of a patch's size out of them."""
        recipes = {CLEAN: Degradation(scale=scale), **recipes}
        gt: list[Tensor] = []
        lq: dict[str, list[Tensor]] = {name: [] for name in recipes}
        for number, image in enumerate(images.values()):
            image = _middle(image, scale)[None]
            gt += _tiles(image, scale * patch)
            for name, recipe in recipes.items():
                lq[name] += _tiles(recipe(image, (seed + number) % 2**32), patch)
        count = min(len(gt), MOST_CROPS)
        chosen = [(2 * n + 1) * len(gt) // (2 * count) for n in range(count)]
        crops = {name: torch.stack([tiles[n] for n in chosen]) for name, tiles in lq.items()}
        return cls(crops, torch.stack([gt[n] for n in chosen]), pad)

    @property
    def scale(self) -> int:
        """Enlargement from the degraded crops to the ground truth."""
        return self.gt.shape[-1] // self.lq[CLEAN].shape[-1]

    def only(self, names: Sequence[str]) -> "HeldOut":
        """Take some of the degradations, and clean crops."""
        kept = [CLEAN, *(name for name in self.lq if name in names)]
        return HeldOut({name: self.lq[name] for name in kept}, self.gt, self.pad)

    def psnr(self, network: nn.Module) -> dict[str, float]:
        """Mean PSNR over crops of a network, in dB, by degradation."""
        with undisturbed(network), torch.no_grad():
            return {name: self._psnr(self._output(network, lq)) for name, lq in self.lq.items()}

    def psnr_without_network(self) -> dict[str, float]:
        """Mean PSNR of the degraded crops themselves, enlarged by bicubic interpolation."""
        return {name: self._psnr(enlarged(lq, self.scale)) for name, lq in self.lq.items()}

    def barriers(self, start: nn.Module, target: nn.Module) -> dict[str, float]:
        """Median over crops of the barrier of the squared error between two networks."""
        between = copy_of(start)
        ends = [{k: v.detach() for k, v in m.state_dict().items()} for m in (start, target)]
        alphas = (0.0, *NODES, 1.0)
        losses: dict[str, list[Tensor]] = {name: [] for name in self.lq}
        for alpha in alphas:
            weights = {
                key: torch.lerp(ends[0][key], value, alpha) if value.is_floating_point() else value
                for key, value in ends[1].items()
            }
            between.load_state_dict(weights)
            with undisturbed(between), torch.no_grad():
                for name, lq in self.lq.items():
                    error = (self._output(between, lq) - self.gt).double()
                    losses[name].append(error.square().flatten(1).sum(1))
        values = {}
        for name, rows in losses.items():
            of_crops = torch.stack(rows)  # [P, N]
            line = loss_table(alphas, of_crops)  # [N, P, 2]
            values[name] = float(barrier(line, of_crops[[0, -1]].T).median())
        return values

    def _output(self, network: nn.Module, lq: Tensor) -> Tensor:
        """Give the part of the output that shows the ground truth."""
        place = next(network.parameters())
        parts = []
        for part in lq.split(CHUNK):
            output = network(reflected(part.to(place.device, place.dtype), self.pad))
            parts.append(middle(output, self.gt.shape[2:], self.pad).to("cpu", torch.float32))
        return torch.cat(parts)

    def _psnr(self, output: Tensor) -> float:
        """Mean PSNR of outputs rounded to 8 bit, without a border of `scale` pixels."""
        border = min(self.scale, (self.gt.shape[-1] - 1) // 2)
        error = (round_to_8_bit(output) - round_to_8_bit(self.gt)).double()
        error = error[..., border:-border, border:-border] if border else error
        least = 10 ** (-MOST_PSNR / 10)
        return float(-10 * error.square().flatten(1).mean(1).clamp(min=least).log10().mean())


def _middle(image: Tensor, scale: int) -> Tensor:
    """Cut at most `MOST_SIDE` pixels a side out of the middle of a photograph."""
    for axis in (1, 2):
        side = min(image.shape[axis], MOST_SIDE) // scale * scale
        image = image.narrow(axis, (image.shape[axis] - side) // 2, side)
    return image


def _tiles(image: Tensor, side: int) -> list[Tensor]:
    """Cut [1, C, H, W] into squares, row by row."""
    rows = image[0].unfold(1, side, side).unfold(2, side, side)  # [C, rows, columns, side, side]
    return list(rows.permute(1, 2, 0, 3, 4).flatten(0, 1))


def enlarged(x: Tensor, scale: int) -> Tensor:
    """Enlarge [N, C, h, w] by bicubic interpolation; ×1 leaves it as it is."""
    if scale == 1:
        return x
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
