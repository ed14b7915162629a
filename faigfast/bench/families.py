"""Families of benchmarked networks: their titles, and their pairs."""

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from faigfast.bench import spandrel
from faigfast.zoo import EDSR, RRDBNet, SRCNNStyle, SRResNet, SwinIR

Pair = tuple[nn.Module, nn.Module]

SCALE = 2
SEED = 0


class Family(NamedTuple):
    """Pairs of one architecture.

    Parameters
    ----------
    title : str
        Architecture and size, and whether the weights are random or trained.
    pair : callable
        Makes baseline and target.
    scale : int
        Enlargement.
    """

    title: str
    pair: Callable[[], Pair]
    scale: int = SCALE


def _perturbed(make: Callable[[], nn.Module]) -> Pair:
    """Seed a network; its copy gets noise of a tenth of each tensor's RMS (+ 0.001)."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        baseline = make()
        target = copy.deepcopy(baseline)
        for value in target.parameters():
            deviation = 0.1 * float(value.square().mean().sqrt()) + 0.001
            value.add_(torch.randn_like(value), alpha=deviation)
    return baseline, target


def _random(title: str, make: Callable[[], nn.Module], scale: int = SCALE) -> Family:
    return Family(f"{title} ×{scale}, random", partial(_perturbed, make), scale)


def _shipped() -> Pair:
    from faigfast.zoo.pairs import shipped_pair

    return shipped_pair()


FAMILIES: dict[str, Family] = {
    "srresnet": _random("SRResNet 64×16", lambda: SRResNet(scale=SCALE)),
    "srcnn": _random("SRCNN-style 64–128", lambda: SRCNNStyle(scale=SCALE)),
    "edsr": _random("EDSR-baseline 64×16", lambda: EDSR(scale=SCALE)),
    "rrdbnet": _random("RRDBNet 64/32, 2 blocks,", lambda: RRDBNet(blocks=2, scale=SCALE)),
    "pair": Family(f"the shipped pair, SRResNet 32×8 ×{SCALE}, trained", _shipped),
    "swinir": _random("SwinIR lightweight 60, 4×6 blocks,", lambda: SwinIR(scale=SCALE)),
    "dat": _random("DAT-light 60, 18 blocks,", partial(spandrel.network, "dat")),
    "hat": _random("HAT-S 144, 2 of its 6 groups,", partial(spandrel.network, "hat")),
    "restormer": _random("Restormer 48", partial(spandrel.network, "restormer"), scale=1),
    "tiny": _random("SRResNet 4×1", lambda: SRResNet(width=4, blocks=1, scale=SCALE)),
}
