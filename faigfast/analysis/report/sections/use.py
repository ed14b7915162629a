"""Sections on uses of the discovered filters: modulation, prediction, retraining."""

from dataclasses import replace
from statistics import mean

from torch.nn import functional as F

from faigfast.analysis.metrics import psnr
from faigfast.analysis.modulation import STRENGTHS, modulate, modulated_images
from faigfast.analysis.prediction_trials import try_predictions, wilson
from faigfast.analysis.report.captioned import (
    confusion_figure,
    grid_figure,
    modulation_figure,
    retraining_figure,
    strengths_figure,
)
from faigfast.analysis.report.charts import matrix_chart
from faigfast.analysis.report.effect_charts import modulation_chart, retraining_chart
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.scenes import Dial, choice_text, largest_gains
from faigfast.analysis.report.sections.material import PATCH, RETRAINING, Material
from faigfast.analysis.report.tables import modulation_sentences
from faigfast.analysis.retraining import retrain_all, retraining_data_frame, retraining_sentences
from faigfast.analysis.study import Study
from faigfast.filters.filter_set import FilterSet

SHOWN_STRENGTHS = (0.0, 0.5, 1.0, 1.5)


def modulation(page: Page, material: Material) -> None:
    """Restore at strengths between and beyond the two networks."""
    study = material.study
    sets = study.tops(material.retrained_fraction)
    common = {
        "border": study.border,
        "finished_parts": study.finished_parts,
        "progress": study.progress,
    }
    pair = study.baseline, study.target
    strength_curves = modulate(*pair, sets, study.measured, strengths=STRENGTHS, **common)  # type: ignore[arg-type]
    page.heading("Modulation")
    page.text(
        f"The top {100 * material.retrained_fraction:g} % of filters at strengths from 0, the "
        "baseline's, over 1, the target's, to 1.5."
    )
    for sentence in modulation_sentences(strength_curves, study.contrasts):
        page.text(sentence)
    page.chart(modulation_chart(strength_curves))
    material.draw("modulation curves", modulation_figure(strength_curves, material.about))
    rows = []
    material.say_shown(page)
    for contrast in material.shown:
        name, degradation = contrast.name, contrast.degradation
        n = best_crop(material, degradation)
        lq, gt = study.measured.lq[degradation][n : n + 1], study.measured.gt[n : n + 1]
        strengths_by_image = [{name: s} for s in STRENGTHS]
        images = modulated_images(*pair, sets, lq, strengths_by_image, study.measured.pad)
        shots = [
            (material.picture(x), f"{float(psnr(x[None], gt, border=study.border)):.1f} dB")
            for x in images
        ]
        low = F.interpolate(lq, size=gt.shape[2:])[0]
        restored = {f"{name} × {s:g}": x for s, x in zip(STRENGTHS, images, strict=True)}
        rows.append({f"{degradation} input": low, **restored})
        title = f"{degradation} input, strength of the {name} filters"
        axes = [(f"{name} filters", STRENGTHS)]
        page.dial(Dial(title, axes, shots, material.picture_side))
        page.text(choice_text(material.gain(degradation), [n], degradation), note=True)
    material.draw("modulation images", strengths_figure(rows, material.about))
    material.put(page, "modulation", strength_curves.to_frame(), "All strengths")
    page.code(material.commands["modulate"])
    if len(sets) > 1:
        _strength_grid(page, material, dict(list(sets.items())[:2]))


def best_crop(material: Material, degradation: str) -> int:
    """Give the place of the crop where the target gains most."""
    photographs = material.study.measured.photographs
    return largest_gains(material.gain(degradation), photographs, 1)[0]


def _strength_grid(page: Page, material: Material, sets: dict[str, FilterSet]) -> None:
    """Vary two strengths at once, on an input with both degradations where it can be made."""
    study = material.study
    pair = study.baseline, study.target
    one, other = sets
    strength_grid = modulate(
        *pair, sets, study.measured, strengths=SHOWN_STRENGTHS, together=True, border=study.border,
        finished_parts=study.finished_parts, progress=study.progress,
    )  # fmt: skip
    recipes = [material.recipes.get(c.degradation) for c in study.contrasts[:2]]
    title = study.contrasts[0].degradation
    n = best_crop(material, title)
    gt = study.measured.gt[n : n + 1]
    lq = study.measured.lq[title][n : n + 1]
    if recipes[0] is not None and recipes[1] is not None:
        both = recipes[0].combined(recipes[1])
        if both is not None:
            lq, title = both(gt), "both degradations"
    strengths_by_image = [{one: a, other: b} for a in SHOWN_STRENGTHS for b in SHOWN_STRENGTHS]
    images = modulated_images(*pair, sets, lq, strengths_by_image, study.measured.pad)
    shots = [
        (material.picture(x), f"{float(psnr(x[None], gt, border=study.border)):.1f} dB")
        for x in images
    ]
    across = len(SHOWN_STRENGTHS)
    by_strength = [list(images[n : n + across]) for n in range(0, len(images), across)]
    grid = grid_figure({title: by_strength}, SHOWN_STRENGTHS, (one, other), material.about)
    material.draw("modulation grid", grid)
    axes = [(f"{name} filters", SHOWN_STRENGTHS) for name in (one, other)]
    page.dial(Dial(f"Two at once, input: {title}", axes, shots, material.picture_side))
    material.put(page, "modulation-grid", strength_grid.to_frame(), "All pairs of strengths")
    strengths = " ".join(f"{s:g}" for s in SHOWN_STRENGTHS)
    page.code(f"{material.commands['grid']} --grid --strengths {strengths}")


def prediction(page: Page, material: Material) -> None:
    """Predict degradations from the filters they need."""
    study = material.study
    unseen = material.predicted_crops
    page.heading("Degradation prediction without ground truth")
    if material.teaching_crops is None and len(set(unseen.photographs)) < 2:
        page.text("Left out: it needs two photographs, one to learn from and one to predict.")
        return
    if len(unseen.lq) < 2:
        page.text("Left out: it needs two degradations to tell apart.")
        return
    _, prediction_trials = try_predictions(
        study.baseline, study.target, unseen, material.teaching_crops,
        finished_parts=study.finished_parts, progress=study.progress, **study.options,
    )  # fmt: skip
    page.text(
        "Each crop is attributed against the target's own output and matched with the signatures "
        "of labelled crops of other photographs: by the overlap of top filters, by correlation of "
        "full vectors, or by the most similar labelled crop."
    )
    for trial in prediction_trials:
        kind, exact = (trial.right(exact).tolist() for exact in (False, True))
        share, low, high = (100 * v for v in (mean(kind), *wilson(int(sum(kind)), len(kind))))
        page.text(
            f"By {trial.match}: degradation right in {share:.0f} % ({low:.0f} to {high:.0f} %), "
            f"with its level in {100 * mean(exact):.0f} %, of {len(kind)} crops."
        )
    best = max(prediction_trials, key=lambda t: float(t.right(exact=False).mean()))
    page.chart(
        matrix_chart(
            "confusion",
            best.confusion(),
            best.labels,
            best.labels,
            f"Predictions by {best.match}, % of the crops of a true degradation",
            ("true degradation", "predicted degradation"),
        )
    )
    crops = f"Crops of {', '.join(dict.fromkeys(unseen.photographs))}."
    for trial in prediction_trials:
        material.draw(f"confusion by {trial.match}", confusion_figure(trial, crops))
        name = f"prediction-by-{trial.match}"
        material.put(page, name, trial.to_frame(), f"By {trial.match}, label by label")
        confusion = trial.confusion_data_frame()
        material.put(page, f"confusion-by-{trial.match}", confusion, f"Confusions by {trial.match}")
    page.code(material.commands["predict"])


def one_contrast_each(study: Study) -> tuple[Study, list[str]]:
    """Keep the first contrast of each degradation; give the other contrasts' names too."""
    first = {c.degradation: c for c in reversed(study.contrasts)}
    first_contrasts = tuple(c for c in study.contrasts if first[c.degradation] == c)
    return replace(study, contrasts=first_contrasts), [
        c.name for c in study.contrasts if c not in first_contrasts
    ]


def retraining(page: Page, material: Material) -> None:
    """Retrain the discovered filters alone."""
    page.heading("Retraining the discovered filters alone")
    if not material.training_photographs:
        page.text(
            "Left out: it needs photographs to train on and degradations that are made by recipe."
        )
        return
    study, left_out = one_contrast_each(material.study)
    if left_out:
        page.text(
            "One network is retrained for each degradation, with the filters of its first "
            f"contrast; not retrained: {', '.join(left_out)}."
        )
    parts = retrain_all(
        study, dict(material.training_photographs), dict(material.recipes), material.schedule,
        material.folder / RETRAINING, fraction=material.retrained_fraction, patch=PATCH,
        overwrite=material.overwrite,
    )  # fmt: skip
    page.text(
        f"{100 * material.retrained_fraction:g} % of the filters learn from the baseline, on one "
        f"degradation, for {material.schedule.iterations} iterations; all else stands still."
    )
    for sentence in retraining_sentences(parts):
        page.text(sentence)
    page.chart(retraining_chart(parts))
    material.draw("retraining", retraining_figure(parts, material.about))
    material.put(page, "retraining", retraining_data_frame(parts))
    page.code(material.commands["retrain"])
