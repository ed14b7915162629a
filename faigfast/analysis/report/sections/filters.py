"""Sections on the filters themselves: overlaps, layers and kernels, channels."""

from dataclasses import replace

import torch

from faigfast.analysis.contrasts import (
    has_levels,
    levels,
    negatives,
    one_against_rest,
    overlap,
    overlap_data_frame,
    without_subtraction,
)
from faigfast.analysis.distribution import changes, distribution, top_kernels
from faigfast.analysis.pruning import channel_importance, importance_data_frame
from faigfast.analysis.report.captioned import (
    channels_figure,
    kernels_figure,
    layers_figure,
    overlap_figure,
)
from faigfast.analysis.report.charts import matrix_chart
from faigfast.analysis.report.filter_browser import browse_filters
from faigfast.analysis.report.filter_charts import channel_chart, layer_chart
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections.material import Material
from faigfast.io.text_table import counted
from faigfast.result import Attribution

MATRIX_LABELS = ("top filters of", "that are also top filters of")


def filter_overlaps(page: Page, material: Material) -> None:
    """Compare the filters of all degradations and levels."""
    page.heading("Degradations and levels compared")
    study, data = material.study, material.compared_crops
    result = replace(study, attributed=data, measured=data, contrasts=(), given=None).attribution()
    page.text(f"Attributed: {counted(len(data.names), 'crop')} under each degradation.")
    names = list(result.degradations)
    if len(names) < 2:
        page.text("Left out: there is one degradation.")
    else:
        _degradations(page, material, result)
    has_named_contrasts = study.contrasts != one_against_rest(tuple(study.measured.lq))
    if has_named_contrasts and len(study.contrasts) > 1:
        _contrasts(page, material)


def _contrasts(page: Page, material: Material) -> None:
    """Compare the filters of named contrasts, on the crops of the other sections."""
    sets = material.tops
    scores = {c.name: c.scores(material.result) for c in material.study.contrasts}
    page.text("Of the named contrasts, from the rankings of the other parts:")
    if left_out := negatives(scores):
        pairs = ", ".join(f"{one} and {other}" for one, other in left_out)
        page.text(f"Left out, since one is the other's negative by construction: {pairs}.")
    overlaps = overlap_data_frame(sets, scores)
    if len(overlaps):
        shares, names = overlap(sets), list(sets)
        for one, other in left_out:
            a, b = names.index(one), names.index(other)
            shares[a, b] = shares[b, a] = torch.nan
        title = f"Filters in common, % of the top {100 * material.fraction:g} %"
        page.chart(matrix_chart("overlap-of-contrasts", shares, names, names, title, MATRIX_LABELS))
        figure = overlap_figure(shares, names, material.fraction, material.about)
        material.draw("overlap of contrasts", figure)
    material.put(page, "overlap-of-contrasts", overlaps, "All pairs of contrasts")
    page.code(material.commands["contrasts"])


def _degradations(page: Page, material: Material, result: Attribution) -> None:
    """Compare the filters of degradations by their own scores, and their levels."""
    contrasts = without_subtraction(result.degradations)
    names = [contrast.name for contrast in contrasts]
    sets = {c.name: c.top(result, material.fraction) for c in contrasts}
    scores = {c.name: c.scores(result) for c in contrasts}
    page.text(
        "Each degradation by its own scores, from which nothing is subtracted: contrasts of two "
        "degradations are each other's negatives, and would never have a filter in common."
    )
    title = f"Filters in common, % of the top {100 * material.fraction:g} %"
    page.chart(matrix_chart("overlap", overlap(sets), names, names, title, MATRIX_LABELS))
    images = f"Attributed: {counted(result.images, 'crop')} under each degradation."
    material.draw("overlap", overlap_figure(overlap(sets), names, material.fraction, images))
    if has_levels(names):
        page.text(
            "Levels of one degradation, each against all other degradations: how the filters "
            "change with its strength."
        )
        material.put(page, "levels", levels(result, material.fraction))
    material.put(page, "overlap", overlap_data_frame(sets, scores), "All pairs")
    page.code(material.commands["overlap"])


def filter_layers(page: Page, material: Material) -> None:
    """Show the layers of the filters, and their change from baseline to target."""
    study, sets = material.study, material.tops
    page.heading(f"Where the top {100 * material.fraction:g} % lie")
    page.chart(layer_chart(sets, material.result.index))
    material.draw("layers", layers_figure(sets, material.result.index, material.about))
    counts = distribution(sets, material.result.index, material.result.scored)
    material.put(page, "distribution", counts, "Layer by layer")
    page.text(
        "What became of them between baseline and target: size of the change relative to the "
        "baseline's kernel, cosine between both, growth (all medians), and how many grew, turned "
        "round, or rose in their sum."
    )
    material.put(page, "changes", changes(study.baseline, study.target, sets))
    page.code(material.commands["distribution"])


def filter_explorer(page: Page, material: Material) -> None:
    """Let the reader look at every filter: scores by layer, kernels, ranks."""
    study = material.study
    page.heading("Filter browser")
    browser = browse_filters(study.baseline, study.target, material.result, study.contrasts)
    page.browser(browser)
    for name, filters in material.tops.items():
        kernels = top_kernels(study.baseline, study.target, filters)
        material.draw(f"kernels {name}", kernels_figure(name, kernels, material.about))
    if browser.note:
        page.text(browser.note, note=True)
    page.code(f"{material.commands['distribution']} --heads 12")


def channel_scores(page: Page, material: Material) -> None:
    """Score channels for pruning."""
    page.heading("Scores of output channels, for pruning")
    scores = channel_importance(material.study.target, material.result)
    page.text(
        "Sum of the mean scores of all degradations; faigfast.analysis.pruning hands them to "
        "torch-pruning and torch.nn.utils.prune."
    )
    page.chart(channel_chart(scores))
    material.draw("channels", channels_figure(scores, material.about))
    material.put(page, "channels", importance_data_frame(scores), "Layer by layer")
    page.code(material.commands["prune"])
