"""The sections of the whole report: each computes one finding and sets it on the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from faigfast.data.degradations import Degradation
from faigfast.filters import FilterSet
from faigfast.findings.contrasts import levels, overlap, overlap_frame, split_label
from faigfast.findings.distribution import changes, distribution, heads
from faigfast.findings.evaluation import METRICS, Crops, evaluate, restore
from faigfast.findings.figures import (
    data_uri,
    kept_bars,
    kernel_heads,
    layer_distribution,
    matrix,
    modulation_curves,
    retraining_bars,
    rival_curves,
    svg,
)
from faigfast.findings.frames import frame, shown, write_table
from faigfast.findings.locations import EXPERIMENTS, locations, locations_frame
from faigfast.findings.masking import mask
from faigfast.findings.metrics import psnr
from faigfast.findings.modulation import STRENGTHS, modulate, modulated_images
from faigfast.findings.prediction import try_predictions
from faigfast.findings.pruning import channel_importance
from faigfast.findings.report import Page
from faigfast.findings.retraining import retrain_all, retraining_frame, retraining_sentences
from faigfast.findings.rivals import METHODS
from faigfast.findings.study import Study
from faigfast.findings.tables import (
    area_sentences,
    areas,
    completeness_table,
    masked_networks,
    modulation_sentences,
)
from faigfast.result import Attribution
from faigfast.training import Schedule

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

SHOWN_CROPS = 3
SHOWN_STRENGTHS = (0.0, 0.5, 1.0, 1.5)
HEADS = 12


@dataclass(frozen=True)
class Material:
    """What the report is made from.

    Parameters
    ----------
    study : Study
        Pair, crops, contrasts, store.
    folder : pathlib.Path
        Receives tables and states of retraining.
    commands : mapping of str to str
        Section to the command that gives its numbers.
    recipes : mapping of str to Degradation
        Of the study's degradations; empty where these come from folders.
    labels : Crops, optional
        Crops to predict, degraded in many ways and levels; None: those that are measured.
    compared : Crops, optional
        Crops to compare the filters of many degradations on; None: those that are attributed.
    lessons : Crops, optional
        Of other photographs, under the same labels.
    training : mapping of str to Tensor
        Photographs to retrain on; none: no retraining.
    schedule : Schedule
        Of the retraining.
    patch : int
        Side of a low-resolution patch.
    fraction : float
        Share of the filters in most sections.
    retrained : float
        Share of the filters that are modulated and retrained.
    """

    study: Study
    folder: Path
    commands: Mapping[str, str]
    recipes: Mapping[str, Degradation] = field(default_factory=dict)
    labels: Crops | None = None
    compared: Crops | None = None
    lessons: Crops | None = None
    training: Mapping[str, Tensor] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=lambda: Schedule(150, 2e-3, 8))
    patch: int = 24
    fraction: float = 0.01
    retrained: float = 0.05

    @cached_property
    def result(self) -> Attribution:
        """FAIG of the study's attributed crops."""
        return self.study.attribution()

    @cached_property
    def tops(self) -> dict[str, FilterSet]:
        """Best filters of each contrast."""
        return self.study.tops(self.fraction)

    def put(self, page: Page, name: str, table: "pandas.DataFrame", folded: str = "") -> None:
        """Set a table on the page and write it beside."""
        page.table(*shown(table), folded=folded)
        write_table(self.folder / name, table)

    def draw(self, page: Page, figure: "Figure") -> None:
        """Set a figure on the page."""
        page.figure(svg(figure))


def photographs(page: Page, material: Material) -> None:
    """Restore a few crops by every network."""
    study = material.study
    page.heading(f"Photographs, {100 * material.fraction:g} % of the filters masked")
    networks = {"baseline": study.baseline, "target": study.target} | {
        f"{name} filters masked": filters.swap(study.baseline, study.target)
        for name, filters in material.tops.items()
    }
    names = list(dict.fromkeys(study.kept.photographs))[:SHOWN_CROPS]
    for photograph in names:
        of = [n for n, name in enumerate(study.kept.photographs) if name == photograph]
        place = of[len(of) // 2]
        gt = study.kept.gt[place : place + 1]
        for contrast in study.contrasts:
            lq = study.kept.lq[contrast.degradation][place : place + 1]
            strip = [(_large(lq, gt), f"{contrast.degradation} input")]
            for label, network in networks.items():
                output = restore(network, lq)
                quality = float(psnr(output, gt, border=study.border))
                strip.append((data_uri(output[0]), f"{label}, {quality:.1f} dB"))
            page.text(f"{photograph}, {contrast.degradation}")
            page.strip([*strip, (data_uri(gt[0]), "ground truth")])


def _large(lq: Tensor, gt: Tensor) -> str:
    """Show an input as large as the ground truth, pixel by pixel."""
    return data_uri(F.interpolate(lq, size=gt.shape[2:])[0])


def rivals(page: Page, material: Material) -> None:
    """Mask by every method, measure in every way."""
    study = material.study
    results = {method: study.attribution(method) for method in METHODS if method != "random"}
    masking = mask(
        study.baseline, study.target, results, study.kept, border=study.border,
        metrics=tuple(METRICS), contrasts=study.contrasts, store=study.store,
        progress=study.progress,
    )  # fmt: skip
    page.heading("Masking: FAIG and its rivals")
    page.text(
        "The top filters of each method go back to the baseline's. What the input's restoration "
        "loses is drawn against the masked share; dotted: all that the target had gained. A method "
        "above that line breaks the network rather than undoing what it learnt."
    )
    for sentence in area_sentences(masking):
        page.text(sentence)
    material.draw(page, rival_curves(masking))
    page.text(
        "Area: mean loss of PSNR over the masked share, in dB. Within the gain: counting no more "
        "than what the target had gained; others: the same for inputs whose degradation the "
        "filters are not meant for."
    )
    material.put(page, "masking-areas", areas(masking))
    names = ", ".join(f"{name}: {text}" for name, text in METHODS.items())
    page.text(f"Methods: {names}.", note=True)
    material.draw(page, rival_curves(masking, "difference"))
    page.text(
        "Output difference: mean squared difference of gradient maps of the outputs, × 1000, the "
        "authors' measure on true gray; in their own form in the table.",
        note=True,
    )
    table = masked_networks(masking)
    material.put(page, "masking", table, f"All {len(table)} measurements, every metric")
    page.code(material.commands["mask"])


def units(page: Page, material: Material) -> None:
    """Mask whole channels and layers."""
    study = material.study
    page.heading("Masking whole channels and layers")
    rows = []
    for by in ("kernel", "channel", "layer"):
        masking = mask(
            study.baseline, study.target, material.result, study.kept, border=study.border,
            contrasts=study.contrasts, by=by, store=study.store, progress=study.progress,
        )  # fmt: skip
        for contrast in study.contrasts:
            for m in masking.curve("faig", contrast.name):
                row = {"filters": contrast.name, "by": by, "asked for, %": 100 * m.fraction}
                row["masked, %"] = 100 * m.count / len(material.result.index)
                for degradation in masking.target:
                    row[f"{degradation} undone, %"] = 100 * masking.lost(m, degradation)
                rows.append(row)
    page.text("Share of the target's gain that is undone. A first unit is taken whatever its size.")
    material.put(page, "masking-units", frame(rows))
    page.code(f"{material.commands['mask']} --by channel")


def places(page: Page, material: Material) -> None:
    """Ask whether weights, locations and connections matter."""
    study = material.study
    parts = locations(
        study.baseline, study.target, material.tops,
        {contrast.name: contrast.degradation for contrast in study.contrasts}, study.kept,
        border=study.border, store=study.store, progress=study.progress,
    )  # fmt: skip
    page.heading("Weights, locations and connections")
    page.text(
        "What is kept of the target's gain over the baseline when as many filters are treated in "
        "one way or another; random experiments are the mean of three draws."
    )
    material.draw(page, kept_bars(parts))
    material.put(page, "locations", locations_frame(parts))
    page.text(" ".join(f"{name}: {text}." for name, (text, _) in EXPERIMENTS.items()), note=True)
    page.code(material.commands["locations"])


def modulation(page: Page, material: Material) -> None:
    """Restore at strengths between and beyond the two networks."""
    study = material.study
    sets = study.tops(material.retrained)
    common = {"border": study.border, "store": study.store, "progress": study.progress}
    pair = study.baseline, study.target
    found = modulate(*pair, sets, study.kept, strengths=STRENGTHS, **common)  # type: ignore[arg-type]
    page.heading("Modulation")
    page.text(
        f"The top {100 * material.retrained:g} % of filters at strengths from 0, the baseline's, "
        "over 1, the target's, to 1.5."
    )
    for sentence in modulation_sentences(found, study.contrasts):
        page.text(sentence)
    material.draw(page, modulation_curves(found))
    lq_of = {c.name: study.kept.lq[c.degradation][:1] for c in study.contrasts}
    for name, lq in lq_of.items():
        settings = [{name: s} for s in STRENGTHS]
        images = modulated_images(*pair, sets, lq, settings)
        page.text(f"{name} filters")
        captions = [f"strength {s[name]:g}" for s in settings]
        page.strip([(data_uri(x), text) for x, text in zip(images, captions, strict=True)])
    material.put(page, "modulation", found.frame(), "All strengths")
    page.code(material.commands["modulate"])
    if len(sets) > 1:
        _sliders(page, material, dict(list(sets.items())[:2]))


def _sliders(page: Page, material: Material, sets: dict[str, FilterSet]) -> None:
    """Two strengths at once, on an input with both degradations where it can be made."""
    study = material.study
    pair = study.baseline, study.target
    one, other = sets
    found = modulate(
        *pair, sets, study.kept, strengths=SHOWN_STRENGTHS, together=True, border=study.border,
        store=study.store, progress=study.progress,
    )  # fmt: skip
    recipes = [material.recipes.get(c.degradation) for c in study.contrasts[:2]]
    lq = study.kept.lq[study.contrasts[0].degradation][:1]
    title = study.contrasts[0].degradation
    if recipes[0] is not None and recipes[1] is not None:
        first, second = recipes[0], recipes[1]
        both = Degradation(
            max(first.blur, second.blur), max(first.noise, second.noise), first.scale,
            first.downsampling,
        )  # fmt: skip
        lq, title = both(study.kept.gt[:1]), "both degradations"
    settings = [{one: a, other: b} for a in SHOWN_STRENGTHS for b in SHOWN_STRENGTHS]
    images = modulated_images(*pair, sets, lq, settings)
    page.text(f"Two at once, on an input with {title}; rows: {one}, columns: {other}.")
    captions = [f"{one} {s[one]:g}, {other} {s[other]:g}" for s in settings]
    cells = [(data_uri(x), text) for x, text in zip(images, captions, strict=True)]
    page.strip(cells, columns=len(SHOWN_STRENGTHS))
    material.put(page, "modulation-grid", found.frame(), "All pairs of strengths")
    strengths = " ".join(f"{s:g}" for s in SHOWN_STRENGTHS)
    page.code(f"{material.commands['modulate']} --grid --strengths {strengths}")


def prediction(page: Page, material: Material) -> None:
    """Tell degradations from the filters they need."""
    study = material.study
    unseen = material.labels or study.kept
    page.heading("Degradation prediction without ground truth")
    if material.lessons is None and len(set(unseen.photographs)) < 2:
        page.text("Left out: it needs two photographs, one to learn from and one to predict.")
        return
    if len(unseen.lq) < 2:
        page.text("Left out: it needs two degradations to tell apart.")
        return
    _, trials = try_predictions(
        study.baseline, study.target, unseen, material.lessons, store=study.store,
        progress=study.progress, **study.options,
    )  # fmt: skip
    page.text(
        "Each crop is attributed against the target's own output and matched with the signatures "
        "of labelled crops of other photographs: by the overlap of top filters, by correlation of "
        "full vectors, or by the most similar labelled crop."
    )
    for trial in trials:
        table = trial.frame()
        first = table.iloc[0]
        page.text(
            f"By {trial.match}: degradation right in {first['degradation right, %']:.0f} % "
            f"({first['degradation from']:.0f} to {first['degradation to']:.0f} %), with its level "
            f"in {first['and level right, %']:.0f} %, of {first['images']} crops."
        )
    best = max(trials, key=lambda t: float(t.right(exact=False).mean()))
    material.draw(
        page,
        matrix(best.confusion(), best.labels, best.labels, f"by {best.match}, %", ("is", "as")),
    )
    for trial in trials:
        name = f"prediction-by-{trial.match}"
        material.put(page, name, trial.frame(), f"By {trial.match}, label by label")
    page.code(material.commands["predict"])


def retraining(page: Page, material: Material) -> None:
    """Retrain the discovered filters alone."""
    page.heading("Retraining the discovered filters alone")
    learnt = {name: r for name, r in material.recipes.items() if r.blur or r.noise}
    served = {c.degradation for c in material.study.contrasts}
    if not material.training or not served & learnt.keys():
        page.text(
            "Left out: it needs photographs to train on and degradations that are made by recipe."
        )
        return
    parts = retrain_all(
        material.study, dict(material.training), dict(material.recipes), material.schedule,
        material.folder / "retraining", fraction=material.retrained, patch=material.patch,
    )  # fmt: skip
    page.text(
        f"{100 * material.retrained:g} % of the filters learn from the baseline, on one "
        f"degradation, for {material.schedule.iterations} iterations; all else stands still."
    )
    for sentence in retraining_sentences(parts):
        page.text(sentence)
    material.draw(page, retraining_bars(parts))
    material.put(page, "retraining", retraining_frame(parts))
    page.code(material.commands["retrain"])


def overlaps(page: Page, material: Material) -> None:
    """Compare the filters of all degradations and levels."""
    page.heading("Degradations and levels compared")
    study, data = material.study, material.compared
    result = material.result
    if data is not None:
        result = replace(study, found=data, kept=data, contrasts=(), given=None).attribution()
        page.text(f"Attributed: {len(data.names)} crops under each degradation.")
    names = list(result.degradations)
    if len(names) < 2:
        page.text("Left out: there is one degradation.")
        return
    sets = {name: result.top(name, material.fraction) for name in names}
    scores = {name: result.contrast(name) for name in names}
    title = f"top {100 * material.fraction:g} %, common filters in %"
    material.draw(page, matrix(overlap(sets), names, names, title, ("of", "also in")))
    kinds = [kind for kind, level in map(split_label, names) if level]
    if len(kinds) > len(set(kinds)):
        page.text(
            "Levels of one degradation, each against all other degradations: how the filters "
            "change with its strength."
        )
        material.put(page, "levels", levels(result, material.fraction))
    material.put(page, "overlap", overlap_frame(sets, scores), "All pairs, against all others")
    page.code(material.commands["overlap"])


def layers(page: Page, material: Material) -> None:
    """Show where the filters lie and what became of them."""
    study, sets = material.study, material.tops
    page.heading(f"Where the top {100 * material.fraction:g} % lie")
    material.draw(page, layer_distribution(sets, material.result.index))
    material.put(page, "distribution", distribution(sets, material.result.index), "Layer by layer")
    page.text(
        "What became of them between baseline and target: size of the change relative to the "
        "baseline's kernel, cosine between both, growth (all medians), and how many grew, turned "
        "round, or rose in their sum."
    )
    material.put(page, "changes", changes(study.baseline, study.target, sets))
    for name, filters in sets.items():
        kernels = heads(study.baseline, study.target, filters, HEADS)
        material.draw(page, kernel_heads(kernels, f"{name}: best {len(kernels)}"))
    page.code(material.commands["distribution"])


def pruning(page: Page, material: Material) -> None:
    """Score channels for pruning."""
    page.heading("Scores of output channels, for pruning")
    scores = channel_importance(material.study.target, material.result)
    total = sum(float(v.sum()) for v in scores.values())
    rows = [
        {
            "layer": name,
            "channels": len(v),
            "least": float(v.min()),
            "median": float(v.median()),
            "most": float(v.max()),
            "share of all, %": 100 * float(v.sum()) / total,
        }
        for name, v in scores.items()
    ]
    page.text(
        "Sum of the mean scores of all degradations; faigfast.findings.pruning hands them to "
        "torch-pruning and torch.nn.utils.prune."
    )
    material.put(page, "channels", frame(rows), "Layer by layer")
    page.code(material.commands["prune"])


def quality(page: Page, material: Material) -> None:
    """Say how well the pair restores and how well the integral was taken."""
    study, result = material.study, material.result
    page.heading("The pair, and how well the integral was taken")
    base, full = (
        evaluate(net, study.kept, border=study.border) for net in (study.baseline, study.target)
    )
    rows = [
        {
            "input": name,
            "baseline, dB": float(base[name].mean()),
            "target, dB": float(full[name].mean()),
            "gain, dB": float((full[name] - base[name]).mean()),
        }
        for name in study.kept.lq
    ]
    material.put(page, "pair", frame(rows))
    page.text(
        "The attributions of all tensors must add up to the difference of the two networks' "
        "losses; the relative error of that sum:"
    )
    page.table(*completeness_table(result))
    page.text(f"{result.sampling}, {result.backend} {result.precision}. {' '.join(result.notes)}")


SECTIONS: dict[str, Callable[[Page, Material], None]] = {
    "the pair": quality,
    "photographs": photographs,
    "masking": rivals,
    "units": units,
    "locations": places,
    "modulation": modulation,
    "prediction": prediction,
    "retraining": retraining,
    "overlap": overlaps,
    "distribution": layers,
    "pruning": pruning,
}
