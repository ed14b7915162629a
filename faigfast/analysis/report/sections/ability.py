"""Sections on what the discovered filters do: photographs, masking, places."""

from typing import Any

from torch import nn
from torch.nn import functional as F

from faigfast.analysis.baselines import METHODS
from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import frame
from faigfast.analysis.evaluation import METRICS, evaluate, restore
from faigfast.analysis.locations import EXPERIMENTS, locations, locations_frame
from faigfast.analysis.masking import mask
from faigfast.analysis.metrics import psnr
from faigfast.analysis.report.figures import CUT, kept_bars, out_of_picture, rival_curves
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections.material import Material
from faigfast.analysis.report.tables import (
    area_sentences,
    areas,
    completeness_rows,
    masked_networks,
    undone,
)

SHOWN_CROPS = 3  # photographs of which one is shown


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
    material.put(page, "completeness", frame(completeness_rows(result)))
    page.text(f"{result.sampling}, {result.backend} {result.precision}. {' '.join(result.notes)}")
    page.code(material.commands["mask"])


def photographs(page: Page, material: Material) -> None:
    """Restore a few crops by every network."""
    study = material.study
    page.heading(f"Photographs, {100 * material.fraction:g} % of the filters masked")
    material.say_shown(page)
    names = list(dict.fromkeys(study.kept.photographs))[:SHOWN_CROPS]
    for photograph in names:
        of = [n for n, name in enumerate(study.kept.photographs) if name == photograph]
        place = of[len(of) // 2]
        gt = study.kept.gt[place : place + 1]
        for contrast in material.shown:
            lq = study.kept.lq[contrast.degradation][place : place + 1]
            large = F.interpolate(lq, size=gt.shape[2:])[0]  # pixel by pixel
            strip = [(material.picture(large), f"{contrast.degradation} input")]
            for label, network in _compared(material, contrast).items():
                output = restore(network, lq)
                quality = float(psnr(output, gt, border=study.border))
                strip.append((material.picture(output[0]), f"{label}, {quality:.1f} dB"))
            page.text(f"{photograph}, {contrast.degradation}")
            page.strip([*strip, (material.picture(gt[0]), "ground truth")])
    page.text(
        "Images, and the PSNR of the whole crop below each, are made by the report's own command, "
        "which stands at its end; no other prints them.",
        note=True,
    )


def _compared(material: Material, contrast: Contrast) -> dict[str, nn.Module]:
    """Both ends, and the target without a contrast's filters and without those of one other."""
    pair = material.study.baseline, material.study.target
    others = [c for c in material.study.contrasts if c != contrast]
    # One for another degradation shows more than one for the same.
    others.sort(key=lambda c: c.degradation == contrast.degradation)
    return {"baseline": pair[0], "target": pair[1]} | {
        f"{c.name} filters masked": material.tops[c.name].swap(*pair)
        for c in (contrast, *others[:1])
    }


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
    for name, methods in out_of_picture(masking).items():
        page.text(
            f"{name}: the axis is cut at {CUT[0]:g} and {CUT[1]:g} times the gain, and the curve "
            f"of {', '.join(methods)} leaves the picture; the table below has all of it.",
            note=True,
        )
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
                row: dict[str, Any] = {
                    "filters": contrast.name,
                    "by": by,
                    "asked for, %": 100 * m.fraction,
                }
                row["masked, %"] = 100 * m.share
                for degradation in masking.target:
                    full = masking.target[degradation]
                    lost, gain = full - m.psnr[degradation], full - masking.baseline[degradation]
                    share, half = undone(lost, gain)
                    row[f"{degradation} undone, %"] = 100 * share
                    row[f"± {degradation}"] = 100 * half
                rows.append(row)
    page.text("Share of the target's gain that is undone. A first unit is taken whatever its size.")
    material.put(page, "masking-units", frame(rows))
    for by in ("channel", "layer"):
        page.code(f"{material.commands['mask']} --methods faig --by {by}")


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
