"""Sections on the effect of the discovered filters: photographs, masking, locations."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.analysis.baselines import METHODS
from faigfast.analysis.data_frames import data_frame, measured
from faigfast.analysis.evaluation import METRICS, mean_and_interval, restore
from faigfast.analysis.locations import EXPERIMENTS, locations, locations_data_frame
from faigfast.analysis.masking import SAME_LAYERS, mask
from faigfast.analysis.metrics import psnr
from faigfast.analysis.report.captioned import (
    images_figure,
    location_figure,
    losses_figure,
    masking_figure,
)
from faigfast.analysis.report.conclusion import conclude
from faigfast.analysis.report.effect_charts import location_chart, method_chart
from faigfast.analysis.report.line import add_line
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.scenes import (
    BASELINE,
    INPUT,
    TARGET,
    TRUTH,
    Scene,
    Shot,
    choice_text,
    largest_gains,
)
from faigfast.analysis.report.sections.material import SHOWN_PHOTOGRAPHS, Material
from faigfast.analysis.report.tables import (
    area_sentences,
    areas,
    completeness,
    masked_networks,
)
from faigfast.analysis.swap_units import random_of_same_layers
from faigfast.analysis.undone import MEANING
from faigfast.integration.cautions import without_cautions
from faigfast.io.text_table import counted
from faigfast.result import Attribution


def pair_quality(page: Page, material: Material) -> None:
    """Say how well the pair restores, and how accurate the integral is."""
    study, result = material.study, material.result
    page.heading("The pair, and how well the integral was taken")
    base, full = material.pair_psnr
    rows = [
        {"degradation": name, "network": network, **measured(metric, *mean_and_interval(values))}
        for name in study.measured.lq
        for network, metric, values in (
            ("baseline", "psnr", base[name]),
            ("target", "psnr", full[name]),
            ("target", "gain", full[name] - base[name]),
        )
    ]
    material.put(page, "pair", data_frame(rows, across=["network"]))
    add_completeness(page, result)
    if result.line.shape[2]:
        images = f"{counted(result.images, 'image')}, {result.sampling}."
        material.draw("losses", losses_figure(result, images))
    material.put(page, "completeness", completeness(result))
    page.code(material.commands["mask"])


def add_completeness(page: Page, result: Attribution) -> None:
    """Say how far apart the networks are, how the integral was taken, and what its error means."""
    add_line(page, result)
    other_notes = without_cautions(result.notes)
    sentences = " ".join(f"{note.rstrip('.')}." for note in other_notes)
    page.text(
        f"{result.sampling}, {result.backend} {result.precision}. {sentences} The "
        "attributions of all tensors must add up to the difference of the two networks' losses; "
        "the relative error of that sum:"
    )


def restored_photographs(page: Page, material: Material) -> None:
    """Restore a few crops by every network."""
    study = material.study
    page.heading(f"Photographs, {100 * material.fraction:g} % of the filters masked")
    material.say_shown(page)
    networks = _compared_networks(material)
    rows = []
    for contrast in material.shown:
        degradation = contrast.degradation
        gain = material.gain(degradation)
        places = largest_gains(gain, study.measured.photographs, SHOWN_PHOTOGRAPHS)
        page.text(choice_text(gain, places, degradation), note=True)
        if material.figures is not None:
            rows.append(_captioned_images(material, networks, places[0], degradation))
        for n in places:
            scene = _scene(material, networks, n, degradation)
            material.scenes.setdefault(contrast.name, scene)
            page.scene(scene)
    if rows:
        text = (
            "The crop where the target gains most over the baseline, one row a degradation, with "
            f"{100 * material.fraction:g} % of the filters masked; PSNR in dB. {material.about}"
        )
        material.draw("photographs", images_figure(rows, text))
    page.text(
        "Images, and the PSNR of the whole crop below each, are made by the report's own command, "
        "which is at its end; no other prints them.",
        note=True,
    )


def _scene(
    material: Material, networks: dict[str, nn.Module], place: int, degradation: str
) -> Scene:
    """Restore one crop by every network."""
    measured = material.study.measured
    gt, lq = (x[place : place + 1] for x in (measured.gt, measured.lq[degradation]))
    enlarged = F.interpolate(lq, size=gt.shape[2:])[0]  # by nearest neighbour
    shots = [Shot(INPUT, material.picture(enlarged), degradation)]
    for label, network in networks.items():
        output = restore(network, lq, measured.pad, gt.shape[2:])
        quality = float(psnr(output, gt, border=material.study.border))
        shots.append(Shot(label, material.picture(output[0]), f"{quality:.1f} dB"))
    shots.append(Shot(TRUTH, material.picture(gt[0])))
    title = f"{measured.names[place]}, {degradation}"
    return Scene(title, shots, material.picture_side)


def _captioned_images(
    material: Material, networks: dict[str, nn.Module], place: int, degradation: str
) -> dict[str, Tensor]:
    """Restore one crop by every network: images [C, H, W] by caption."""
    data = material.study.measured
    gt, lq = (x[place : place + 1] for x in (data.gt, data.lq[degradation]))
    images = {f"{INPUT}, {degradation}": F.interpolate(lq, size=gt.shape[2:])[0]}
    for label, network in networks.items():
        output = restore(network, lq, data.pad, gt.shape[2:])
        quality = float(psnr(output, gt, border=material.study.border))
        images[f"{label}, {quality:.1f} dB"] = output[0]
    return images | {TRUTH: gt[0]}


def _compared_networks(material: Material) -> dict[str, nn.Module]:
    """Give the pair and masked targets, in one order for all crops.

    The masked filters are those of the shown contrasts, and random ones of the first contrast's
    layers.
    """
    pair = material.study.baseline, material.study.target
    names = [contrast.name for contrast in material.shown]
    control = random_of_same_layers(pair[1], material.result, material.tops[names[0]], "kernel", 1)[
        0
    ]
    return (
        {BASELINE: pair[0], TARGET: pair[1]}
        | {f"{name} filters masked": material.tops[name].swap(*pair) for name in names}
        | {f"random, layers of {names[0]}, masked": control.swap(*pair)}
    )


def masking_by_method(page: Page, material: Material) -> None:
    """Mask the filters of every method, and measure every metric."""
    study = material.study
    results = {method: study.attribution(method) for method in METHODS if method != "random"}
    masking = mask(
        study.baseline, study.target, results, study.measured, border=study.border,
        metrics=tuple(METRICS), contrasts=study.contrasts, finished_parts=study.finished_parts,
        progress=study.progress,
    )  # fmt: skip
    page.heading("Masking: FAIG and its rivals")
    page.text(
        "The top filters of each method go back to the baseline's. What the input's restoration "
        "loses is drawn against the masked share; dashed: all that the target had gained. Crosses: "
        "the network is broken, not without what it learnt. Two controls are random filters, and "
        f"{SAME_LAYERS}, in each layer as many as FAIG has there."
    )
    for sentence in area_sentences(masking):
        page.text(sentence)
    first = study.contrasts[0]
    strip = material.scenes.get(first.name)
    gain = material.gain(first.degradation)
    places = largest_gains(gain, study.measured.photographs, 1)
    note = choice_text(gain, places, first.degradation)
    page.conclude(conclude(masking, material.result, strip, note))
    page.chart(method_chart(masking))
    material.draw("masking curves", masking_figure(masking, material.about))
    page.text(
        "Area: mean loss of PSNR over the masked share, in dB. Within the gain: counting no more "
        "than what the target had gained; others: the same for inputs whose degradation the "
        "filters are not meant for."
    )
    material.put(page, "masking-areas", areas(masking))
    names = ", ".join(f"{name}: {text}" for name, text in METHODS.items())
    page.text(f"Methods: {names}.", note=True)
    page.chart(method_chart(masking, "difference"))
    material.draw("masking differences", masking_figure(masking, material.about, "difference"))
    page.text(
        "Output difference: mean squared difference of gradient maps of the outputs, × 1000, the "
        "authors' measure on true gray; in their own form in the table.",
        note=True,
    )
    page.text(MEANING, note=True)
    measurements = masked_networks(masking)
    material.put(
        page, "masking", measurements, f"All {len(measurements)} measurements, every metric"
    )
    page.code(material.commands["mask"])


def masking_by_swap_unit(page: Page, material: Material) -> None:
    """Mask all filters of channels and layers together."""
    study = material.study
    page.heading("Masking whole channels and layers")
    rows = []
    for by in ("kernel", "channel", "layer"):
        masking = mask(
            study.baseline, study.target, material.result, study.measured, border=study.border,
            contrasts=study.contrasts, by=by, finished_parts=study.finished_parts,
            progress=study.progress,
        )  # fmt: skip
        for contrast in study.contrasts:
            for method in ("faig", SAME_LAYERS, "random"):
                for m in masking.curve(method, contrast.name):
                    row: dict[str, Any] = {
                        "contrast": contrast.name,
                        "method": method,
                        "by": by,
                        "fraction": m.fraction,
                        "masked_fraction": m.share,
                    }
                    for degradation in masking.target:
                        one = masking.outcome(m, degradation)
                        share = measured("undone", one.share, one.half)
                        share["outcome"] = one.outcome
                        rows.append({"degradation": degradation, **row, **share})
    page.text(
        "Share of the target's gain that is undone. A first unit is taken whatever its size. "
        "Random units of the same layers are as many in each layer as FAIG's; whole layers have "
        "no such control."
    )
    page.text(MEANING, note=True)
    material.put(page, "masking-units", data_frame(rows, across=["degradation"]))
    for by in ("channel", "layer"):
        page.code(f"{material.commands['mask']} --methods faig --by {by}")


def location_experiments(page: Page, material: Material) -> None:
    """Ask whether weights, locations and connections matter."""
    study = material.study
    parts = locations(
        study.baseline, study.target, material.tops,
        {contrast.name: contrast.degradation for contrast in study.contrasts}, study.measured,
        border=study.border, finished_parts=study.finished_parts, progress=study.progress,
    )  # fmt: skip
    page.heading("Weights, locations and connections")
    page.text(
        "What is kept of the target's gain over the baseline when as many filters are treated in "
        "one way or another; random experiments are the mean of three draws."
    )
    page.chart(location_chart(parts))
    material.draw("locations", location_figure(parts, material.about))
    material.put(page, "locations", locations_data_frame(parts))
    page.text(MEANING, note=True)
    page.text(" ".join(f"{name}: {text}." for name, (text, _) in EXPERIMENTS.items()), note=True)
    page.code(material.commands["locations"])
