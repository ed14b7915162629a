"""Sections on what the discovered filters are good for: modulation, prediction, retraining."""

from dataclasses import replace

from faigfast.analysis.modulation import STRENGTHS, modulate, modulated_images
from faigfast.analysis.prediction_trials import try_predictions
from faigfast.analysis.report.figures import matrix, modulation_curves, retraining_bars
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections.material import PATCH, RETRAINING, Material
from faigfast.analysis.report.tables import modulation_sentences
from faigfast.analysis.retraining import retrain_all, retraining_frame, retraining_sentences
from faigfast.analysis.study import Study
from faigfast.data.degradations import Degradation
from faigfast.filters.filter_set import FilterSet

SHOWN_STRENGTHS = (0.0, 0.5, 1.0, 1.5)


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
    material.say_shown(page)
    for contrast in material.shown:
        name, lq = contrast.name, study.kept.lq[contrast.degradation][:1]
        settings = [{name: s} for s in STRENGTHS]
        images = modulated_images(*pair, sets, lq, settings)
        page.text(f"{name} filters")
        captions = [f"strength {s[name]:g}" for s in settings]
        page.strip([(material.picture(x), text) for x, text in zip(images, captions, strict=True)])
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
    cells = [(material.picture(x), text) for x, text in zip(images, captions, strict=True)]
    page.strip(cells, columns=len(SHOWN_STRENGTHS))
    material.put(page, "modulation-grid", found.frame(), "All pairs of strengths")
    strengths = " ".join(f"{s:g}" for s in SHOWN_STRENGTHS)
    page.code(f"{material.commands['grid']} --grid --strengths {strengths}")


def prediction(page: Page, material: Material) -> None:
    """Tell degradations from the filters they need."""
    study = material.study
    unseen = material.labels
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
        confused = trial.confusion_frame()
        material.put(page, f"confusion-by-{trial.match}", confused, f"Confusions by {trial.match}")
    page.code(material.commands["predict"])


def once_each(study: Study) -> tuple[Study, list[str]]:
    """Keep the first contrast of each degradation; the names of the others come second."""
    first = {c.degradation: c for c in reversed(study.contrasts)}
    kept = tuple(c for c in study.contrasts if first[c.degradation] == c)
    return replace(study, contrasts=kept), [c.name for c in study.contrasts if c not in kept]


def retraining(page: Page, material: Material) -> None:
    """Retrain the discovered filters alone."""
    page.heading("Retraining the discovered filters alone")
    if not material.training:
        page.text(
            "Left out: it needs photographs to train on and degradations that are made by recipe."
        )
        return
    study, left_out = once_each(material.study)
    if left_out:
        page.text(
            "One network is retrained for each degradation, with the filters of its first "
            f"contrast; not retrained: {', '.join(left_out)}."
        )
    parts = retrain_all(
        study, dict(material.training), dict(material.recipes), material.schedule,
        material.folder / RETRAINING, fraction=material.retrained, patch=PATCH,
        overwrite=material.overwrite,
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
