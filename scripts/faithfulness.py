"""Which scores agree with the exact ablation of every filter? Writes a document.

    .venv/bin/python scripts/faithfulness.py                     docs/lab/faithfulness.md
    .venv/bin/python scripts/faithfulness.py --images 2 --output /tmp/short.md     minutes

Finished layers are kept in --work: the same command resumes. Needs scikit-image, pandas and SciPy.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import faigfast
from faigfast.analysis.ablation_result import Ablation
from faigfast.analysis.evaluation import Crops, crops, evenly_spaced
from faigfast.analysis.faithfulness import PREDICTORS, faithfulness, predictors
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.engine.masked_forwards import MaskedForwards
from faigfast.filters.index import FilterIndex
from faigfast.integration.objective import squared_error
from faigfast.integration.path import WeightPath
from faigfast.io.atomic import write_text
from faigfast.io.environment import describe_machine
from faigfast.io.progress import progress_bar
from faigfast.io.text_table import markdown
from faigfast.zoo.pairs import PAIRS

BEGIN = "<!-- from here written by scripts/faithfulness.py -->"
RECIPES = {"blur": "blur=2", "noise": "noise=0.1"}
CROP = 64  # pixels of the ground truth
STEPS = 20  # points of the line
COUPLES = 200  # of filters ablated together, of each kind


def measured_crops(scale: int, images: int) -> Crops:
    """Cut crops of the shipped photographs that no pair was trained on."""
    recipes = {name: Degradation.parse(recipe, scale) for name, recipe in RECIPES.items()}
    return evenly_spaced(crops(photographs(KEPT_OUT), recipes, CROP), images)


def couples(ablation: Ablation, name: str) -> dict[str, list[tuple[int, int]]]:
    """Draw couples: among the best 1 % of the ablation, and among all filters."""
    generator = torch.Generator().manual_seed(0)
    best = ablation.change(name).mean(0).abs().argsort(descending=True)
    groups = {"of the best 1 %": best[: max(2, len(best) // 100)], "of all": best}
    return {
        label: [
            tuple(group[torch.randperm(len(group), generator=generator)[:2]].tolist())
            for _ in range(COUPLES)
        ]
        for label, group in groups.items()
    }


def together(
    pair: tuple[nn.Module, nn.Module], ablation: Ablation, data: Crops, name: str, image: int
) -> list[list[str]]:
    """Ablate couples of filters; compare with the sum of what each changes alone."""
    path = WeightPath(*pair)
    forwards, index = MaskedForwards(path), FilterIndex.of(pair[1])
    x, gt = data.lq[name][image : image + 1], data.gt[image : image + 1]
    alone, loss = ablation.change(name)[image], float(ablation.target_losses[name][image])
    rows = []
    for label, drawn in couples(ablation, name).items():
        sums, both = [], []
        for couple in drawn:
            masks: dict[str, Tensor] = {}
            for number in couple:
                layer, first, second = index.locate(number)
                shape = index.shapes[index.layers.index(layer)][:2]
                mask = masks.setdefault(layer, torch.zeros(shape, dtype=torch.bool))
                mask[first, second] = True
            both.append(float(forwards.losses(x, gt, [squared_error], masks)[0]) - loss)
            sums.append(float(alone[list(couple)].sum()))
        change, total = torch.tensor(both), torch.tensor(sums)
        off = ((change - total).abs().sum() / change.abs().sum()).item()
        correlation = torch.stack([change, total]).corrcoef()[0, 1].item()
        rows.append([name, label, f"{off:.1%}", f"{correlation:.4f}"])
    return rows


def tables(
    name: str, images: int, work: Path
) -> tuple[list[list[str]], list[list[str]], Mapping[str, str]]:
    """Ablate on one pair and compare: rows of scores, rows of couples, and the best methods."""
    baseline, target = faigfast.shipped_pair(name)
    scale: Any = target.scale
    data = measured_crops(scale, images)
    batch = {"lq": data.lq, "gt": data.gt}
    ablation = faigfast.ablate(baseline, target, batch, folder=work / name, progress=True)
    scores = predictors(baseline, target, batch, steps=STEPS)
    table = faithfulness(ablation, scores)
    rows, best = [], {}
    for reference in ("absolute", "signed", "contrast"):
        part = table[table["reference"] == reference]
        for method in dict.fromkeys(part["method"]):
            row = [name, reference, method]
            for degradation in RECIPES:
                for metric in ("rank_correlation", "recall"):
                    one = part[
                        (part["method"] == method)
                        & (part["degradation"] == degradation)
                        & (part["metric"] == metric)
                    ].iloc[0]
                    row.append(
                        f"{one['value']:.2f} ({one['ci95_low']:.2f} to {one['ci95_high']:.2f})"
                    )
            rows.append(row)
        first = part[part["metric"] == "rank_correlation"].groupby("method")["value"].mean()
        best[reference] = str(first.idxmax())
    second = [
        [name, *row]
        for degradation in RECIPES
        for row in together((baseline, target), ablation, data, degradation, 0)
    ]
    return rows, second, best


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", nargs="+", default=list(PAIRS))
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--work", type=Path, default=Path("faithfulness-work"))
    parser.add_argument("--output", type=Path, default=Path("docs/lab/faithfulness.md"))
    options = parser.parse_args()
    rows: list[list[str]] = []
    second: list[list[str]] = []
    sentences: list[str] = []
    for name in progress_bar(options.pairs, "pairs", unit="pair"):
        own, couples_of_pair, best = tables(name, options.images, options.work)
        rows, second = rows + own, second + couples_of_pair
        firsts = ", ".join(f"{method} ({reference})" for reference, method in best.items())
        sentences.append(f"{name}: highest mean rank correlation by {firsts}.")
    write_text(options.output, document(options, rows, second, sentences))


def document(
    options: argparse.Namespace,
    rows: Sequence[Sequence[str]],
    second: Sequence[Sequence[str]],
    sentences: Sequence[str],
) -> str:
    """Write the measured part below the text that the file begins with."""
    text = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
    kept = text.partition(BEGIN)[0].rstrip()
    machine = describe_machine()
    about = (
        f"{options.images} crops of {CROP}×{CROP} pixels of the photographs kept out of the "
        f"trainings, {' and '.join(RECIPES.values())}; {STEPS} points of the line; "
        f"{machine['cpu']} ({machine['instructions']}). Intervals: 95 %, percentiles over "
        "resampled crops. Recall: of the 1 % of the filters whose ablation matters most."
    )
    heads = [f"{name}, {metric}" for name in RECIPES for metric in ("rank correlation", "recall")]
    methods = "; ".join(f"`{name}`: {what}" for name, what in PREDICTORS.items())
    parts = [
        kept, BEGIN, about, "\n".join(f"- {sentence}" for sentence in sentences),
        markdown(["pair", "reference", "method", *heads], rows), f"Methods: {methods}.",
        "## Two filters together",
        f"{COUPLES} couples of each kind, on the first crop: the change of the loss when both go "
        "back, beside the sum of their own changes. Deviation: Σ |both − sum| / Σ |both|.",
        markdown(["pair", "degradation", "couples", "deviation", "correlation"], second),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
