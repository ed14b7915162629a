"""Exact ablation beside a plain loop of masked forwards, in turn. Writes a document.

    .venv/bin/python scripts/ablation_speed.py        docs/lab/ablation.md; ten minutes, alone

The loop sets one kernel of a copy of the target, runs the network and sets the kernel back. Both
compute losses of one image; those of the loop's filters are compared before any time counts.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import faigfast
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.filters.index import FilterIndex
from faigfast.io.atomic import write_text
from faigfast.io.environment import describe_machine, describe_versions
from faigfast.io.text_table import markdown
from faigfast.models.state import tensors
from faigfast.zoo.pairs import PAIRS

SIDE = 48  # low-resolution pixels
BEGIN = "<!-- from here written by scripts/ablation_speed.py -->"


def image(scale: int, recipe: str = "noise=0.1") -> tuple[Tensor, Tensor]:
    """Cut the middle of a shipped photograph; give it degraded, and as it is."""
    gt = next(iter(photographs(KEPT_OUT).values()))
    top, left = ((side - scale * SIDE) // 2 for side in gt.shape[1:])
    gt = gt[None, :, top : top + scale * SIDE, left : left + scale * SIDE]
    return Degradation.parse(recipe, scale)(gt), gt


def loop(
    baseline: nn.Module, target: nn.Module, x: Tensor, gt: Tensor, numbers: Sequence[int]
) -> Tensor:
    """Compute losses [K] by masked forwards, one after the other."""
    index, network = FilterIndex.of(target), copy.deepcopy(target)
    start, end = tensors(baseline), tensors(network)
    losses = []
    with torch.no_grad():
        for number in numbers:
            layer, *place = index.locate(number)
            kernel = end[layer][tuple(place)]
            kept = kernel.clone()
            kernel.copy_(start[layer][tuple(place)])
            losses.append((network(x) - gt).square().sum())
            kernel.copy_(kept)
    return torch.stack(losses).double()


def timed(work: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, float]:
    """Give the result, and seconds."""
    start = time.perf_counter()
    return work(*args, **options), time.perf_counter() - start


def measure(name: str, rounds: int, sample: int) -> tuple[list[str], float]:
    """Give the row of a pair, and the largest relative difference of a loss."""
    baseline, target = faigfast.shipped_pair(name)
    scale: Any = target.scale
    x, gt = image(scale)
    count, generator = len(FilterIndex.of(target)), torch.Generator().manual_seed(0)
    looped, shared, worst = [], [], 0.0
    cold = timed(faigfast.ablate, baseline, target, (x, gt), filters=[0])[1]
    for _ in range(rounds):
        order = torch.randperm(count, generator=generator)
        numbers, more = order[:sample].tolist(), order[: count // 4].tolist()
        losses, seconds = timed(loop, baseline, target, x, gt, numbers)
        looped.append(seconds / sample)
        result, seconds = timed(faigfast.ablate, baseline, target, (x, gt), filters=more)
        shared.append(seconds / len(more))
        rows = torch.searchsorted(result.numbers, torch.tensor(numbers))
        ours = result.losses["lq"][0, rows]
        worst = max(worst, float(((ours - losses).abs() / losses).max()))
    _, whole = timed(faigfast.ablate, baseline, target, (x, gt))
    times = [statistics.median(values) * 1e3 for values in (looped, shared)]
    each = 1e3 * whole / count
    row = [
        name, str(count), f"{times[0]:.2f}", f"{times[1]:.2f}", f"{each:.2f}",
        f"{times[0] / times[1]:.1f}", f"{times[0] / each:.1f}", f"{whole:.0f}", f"{cold:.2f}",
        f"{worst:.1e}",
    ]  # fmt: skip
    print(" | ".join(row), flush=True)
    return row, worst


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sample", type=int, default=100, help="filters of the loop in a round")
    parser.add_argument("--output", type=Path, default=Path("docs/lab/ablation.md"))
    options = parser.parse_args()
    rows = []
    for name in options.pairs:
        own, worst = measure(name, options.rounds, options.sample)
        if worst > 1e-5:
            raise SystemExit(f"{name}: losses differ by {worst:.1e}; no times are written")
        rows.append(own)
    head = [
        "pair", "filters F", "loop, ms a filter", "ablate, F/4", "ablate, all", "ratio, F/4",
        "ratio, all", "all, s", "one filter, first call, s", "largest difference",
    ]  # fmt: skip
    machine, versions = describe_machine(), describe_versions()
    about = (
        f"One image of {SIDE}×{SIDE} pixels, {torch.get_num_threads()} threads, "
        f"{machine['cpu']} ({machine['instructions']}), torch {versions['torch']}. The loop runs "
        f"{options.sample} filters drawn anew in each of {options.rounds} rounds, in turn with "
        "`faigfast.ablate` on a quarter of all filters; medians of the rounds. Differences are "
        "relative to the loss."
    )
    text = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    kept = text.partition(BEGIN)[0].rstrip()
    write_text(options.output, f"{kept}\n\n{BEGIN}\n\n{about}\n\n{markdown(head, rows)}\n")


if __name__ == "__main__":
    main()
