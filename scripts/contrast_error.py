"""Coverage of the estimated errors of contrasts and of scores, on shipped and published pairs.

    .venv/bin/python scripts/contrast_error.py --output docs/lab/contrast-error.md

Needs scikit-image; published pairs are left out where their package is missing. One thread.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch
from torch import Tensor

import faigfast
from faigfast.bench.accuracy import BLUR, NOISE, SIZE
from faigfast.bench.accuracy_pairs import PUBLISHED, Networks
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.io.atomic import write_text
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import markdown
from faigfast.zoo.pairs import PAIRS, shipped_pair

BEGIN = "<!-- from here written by scripts/contrast_error.py -->"
TRUTH = 96  # points of the converged rule
FRACTION = 0.01
NAMED = {
    "waifu2x upconv_7 photo, scale → noise3": PUBLISHED["waifu2x-scale-noise3"],
    "Real-CUGAN se ×2, no-denoise → denoise3x": PUBLISHED["realcugan-none-denoise3x"],
    "Real-CUGAN se ×2, conservative → denoise1x": replace(
        PUBLISHED["realcugan-none-denoise3x"],
        baseline="up2x-conservative",
        target="up2x-denoise1x",
    ),
}
HEAD = (
    "pair", "points, mean", "contrast: error", "estimate", "ratio", "covered", "photographs",
    "top 1 %: overlap", "estimate", "photographs", "contrast of one crop: median ratio", "covered",
    "scores: median ratio", "covered",
)  # fmt: skip


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="document that receives the table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = progress_bar(all_pairs(), total=len(PAIRS) + len(NAMED), unit="pair")
    table = markdown(list(HEAD), [row(*pair) for pair in pairs])
    print(table)
    if options.output:
        kept = options.output.read_text(encoding="utf-8").partition(BEGIN)[0]
        write_text(options.output, f"{kept}{BEGIN}\n\n{table}\n")
    return 0


def all_pairs() -> Iterator[tuple[str, Networks, int]]:
    """Give name, networks and padding of shipped pairs and of installed published ones."""
    for name in PAIRS:
        yield name, shipped_pair(name), 0
    for name, pair in NAMED.items():
        if pair.place is not None:
            yield name, pair.load(), pair.pad


def row(name: str, networks: Networks, pad: int) -> tuple[str, ...]:
    """Compare the default rule and its estimates with the converged rule."""
    lq, gt = degraded(2)
    singles = []  # of each crop, the default rule and the converged one
    for n in range(len(gt)):
        batch = {"lq": {name: x[n : n + 1] for name, x in lq.items()}, "gt": gt[n : n + 1]}
        singles.append(
            tuple(
                faigfast.attribute(*networks, batch, steps=steps, pad=pad)
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
        name, f"{result.points.double().mean():.3g}", f"{error:.1e}",
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
