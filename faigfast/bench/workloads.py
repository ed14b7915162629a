"""What is benchmarked: a pair of networks, images, and the floating-point work in them."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.filters import CONVOLUTIONS
from faigfast.zoo import EDSR, RRDBNet, SRCNNStyle, SRResNet

Pair = tuple[nn.Module, nn.Module]

SCALE = 2
SEED = 0
RULE = "midpoint"


@dataclass(frozen=True, eq=False)
class Problem:
    """One attribution to be computed.

    Parameters
    ----------
    baseline, target : nn.Module
        Networks of one architecture in eval mode; nobody changes them.
    x, gt : Tensor
        Images [N, C, H, W] and ground truth [N, C, scale·H, scale·W], NCHW in memory.
    steps : int
        Points P of the rule.
    rule : str
        As in `faigfast.attribute`.
    """

    baseline: nn.Module
    target: nn.Module
    x: Tensor
    gt: Tensor
    steps: int
    rule: str = RULE

    def to(self, device: torch.device | str) -> "Problem":
        """Give the same problem with copies of networks and images on a device."""
        baseline, target = (copy.deepcopy(net).to(device) for net in (self.baseline, self.target))
        x, gt = self.x.to(device), self.gt.to(device)
        return Problem(baseline, target, x, gt, self.steps, self.rule)

    @cached_property
    def flops(self) -> int:
        """N·P·3·(forward work of one image): what "effective GFLOP/s" counts.

        The gradients of input and weight cost one forward each. Pointwise operations and the two
        end losses are left out, whatever a contender really computes.
        """
        return len(self.x) * self.steps * 3 * forward_flops(self.target, self.x[:1])


@dataclass(frozen=True)
class Workload:
    """A named problem, made anew and always the same.

    Parameters
    ----------
    name : str
        "FAMILY-SIZExIMAGES", such as "srresnet-48x4".
    family : str
        One of `FAMILIES`.
    size : int
        Height and width of the images that go in.
    images : int
        Their number N.
    """

    name: str
    family: str
    size: int
    images: int

    def __str__(self) -> str:
        images = "1 image" if self.images == 1 else f"{self.images} images"
        return f"{self.name}: {FAMILIES[self.family][0]}, {images} of {self.size}×{self.size}"

    def problem(self, steps: int, images: int | None = None) -> Problem:
        """Build networks and images.

        Parameters
        ----------
        steps : int
            Points of the rule.
        images : int, optional
            Only so many of the images, the first.
        """
        baseline, target = FAMILIES[self.family][1]()
        x, gt = _pictures(self.images, self.size)
        return Problem(baseline.eval(), target.eval(), x[:images], gt[:images], steps)


def workload(name: str) -> Workload:
    """Find the workload of a name.

    Parameters
    ----------
    name : str
        "FAMILY-SIZExIMAGES": SIZE² pixels go into the network. Any size and number of images will
        do; `WORKLOADS` are those that figures are given for.

    Raises
    ------
    ValueError
        If there is no such workload; the names are listed.

    Examples
    --------
    >>> print(workload("tiny-8x2"))
    tiny-8x2: SRResNet 4×1 ×2, random, 2 images of 8×8
    """
    match = re.fullmatch(r"(\w+)-([1-9]\d*)x([1-9]\d*)", name)
    if match is None or match[1] not in FAMILIES:
        raise ValueError(
            f"workload is {name!r}; expected all, one of {', '.join(WORKLOADS)}, or another "
            f"FAMILY-SIZExIMAGES with a family of {', '.join(FAMILIES)}"
        )
    return Workload(name, match[1], int(match[2]), int(match[3]))


def forward_flops(net: nn.Module, x: Tensor) -> int:
    """Count the floating-point operations of the convolutions for x, a multiply-add as two.

    Parameters
    ----------
    net : nn.Module
        Run once; the shapes are those that each convolution meets.
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
        # One row of the weight meets each output element, or each input element if transposed.
        total += 2 * (args[0] if transposed else output).numel() * weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    try:
        with torch.no_grad():
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


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


def _shipped() -> Pair:
    from faigfast.zoo.pairs import shipped_pair

    return shipped_pair()


# What a family is, and its networks.
FAMILIES: dict[str, tuple[str, Callable[[], Pair]]] = {
    "srresnet": (
        f"SRResNet 64×16 ×{SCALE}, random",
        lambda: _perturbed(lambda: SRResNet(scale=SCALE)),
    ),
    "srcnn": (
        f"SRCNN-style 64–128 ×{SCALE}, random",
        lambda: _perturbed(lambda: SRCNNStyle(scale=SCALE)),
    ),
    "edsr": (
        f"EDSR-baseline 64×16 ×{SCALE}, random",
        lambda: _perturbed(lambda: EDSR(scale=SCALE)),
    ),
    "rrdbnet": (
        "RRDBNet 64/32, 2 blocks, ×2, random",
        lambda: _perturbed(lambda: RRDBNet(blocks=2, scale=SCALE)),
    ),
    "pair": (f"the shipped pair, SRResNet 32×8 ×{SCALE}, trained", _shipped),
    "tiny": (
        f"SRResNet 4×1 ×{SCALE}, random",
        lambda: _perturbed(lambda: SRResNet(width=4, blocks=1, scale=SCALE)),
    ),
}

WORKLOADS = (
    *(f"srresnet-{size}x{images}" for size in (48, 128, 256) for images in (1, 4, 16)),
    "srcnn-64x1",
    "edsr-64x1",
    "rrdbnet-64x1",
    "pair-64x4",
)


def drawn(images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw smooth random pictures [N, 3, height, width] in [0, 1]."""
    gt = torch.full((images, 3, height, width), 0.5)
    for octave in (4, 8, 16, 32):
        coarse = torch.rand(images, 3, octave, octave, generator=generator) - 0.5
        layer = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
        gt += layer * (2 / octave)
    return gt.clamp(0, 1)


def _pictures(images: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw smooth random pictures gt in [0, 1], and x: their 2×2 means with noise of σ = 0.1."""
    generator = torch.Generator().manual_seed(SEED)
    gt = drawn(images, SCALE * size, SCALE * size, generator)
    x = F.avg_pool2d(gt, SCALE)
    return x + 0.1 * torch.randn(x.shape, generator=generator), gt
