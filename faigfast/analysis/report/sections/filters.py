"""Sections on the filters themselves: overlaps, layers and kernels, channels."""

from dataclasses import replace

from faigfast.analysis.contrasts import (
    has_levels,
    levels,
    one_against_rest,
    overlap,
    overlap_data_frame,
)
from faigfast.analysis.distribution import changes, distribution, top_kernels
from faigfast.analysis.pruning import channel_importance, importance_data_frame
from faigfast.analysis.report.figures import (
    channel_bars,
    kernel_changes_figure,
    layer_distribution,
    matrix,
)
from faigfast.analysis.report.page import Page
from faigfast.analysis.report.sections.material import Material
from faigfast.result import Attribution

SHOWN_KERNELS = 12  # kernels of a ranking that are drawn


def filter_overlaps(page: Page, material: Material) -> None:
    """Compare the filters of all degradations and levels."""
    page.heading("Degradations and levels compared")
    study, data = material.study, material.compared_crops
    result = replace(study, attributed=data, measured=data, contrasts=(), given=None).attribution()
    page.text(f"Attributed: {len(data.names)} crops under each degradation.")
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
    title = f"top {100 * material.fraction:g} %, common filters in %"
    names = list(sets)
    material.draw(page, matrix(overlap(sets), names, names, title, ("of", "also in")))
    overlaps = overlap_data_frame(sets, scores)
    material.put(page, "overlap-of-contrasts", overlaps, "All pairs of contrasts")
    page.code(material.commands["contrasts"])


def _degradations(page: Page, material: Material, result: Attribution) -> None:
    """Compare the filters of degradations, each against all others, and their levels."""
    names = list(result.degradations)
    sets = {name: result.top(name, material.fraction) for name in names}
    scores = {name: result.contrast(name) for name in names}
    title = f"top {100 * material.fraction:g} %, common filters in %"
    material.draw(page, matrix(overlap(sets), names, names, title, ("of", "also in")))
    if has_levels(names):
        page.text(
            "Levels of one degradation, each against all other degradations: how the filters "
            "change with its strength."
        )
        material.put(page, "levels", levels(result, material.fraction))
    material.put(page, "overlap", overlap_data_frame(sets, scores), "All pairs, against all others")
    page.code(material.commands["overlap"])


def filter_layers(page: Page, material: Material) -> None:
    """Show the layers of the filters, and their change from baseline to target."""
    study, sets = material.study, material.tops
    page.heading(f"Where the top {100 * material.fraction:g} % lie")
    material.draw(page, layer_distribution(sets, material.result.index))
    counts = distribution(sets, material.result.index, material.result.scored)
    material.put(page, "distribution", counts, "Layer by layer")
    page.text(
        "What became of them between baseline and target: size of the change relative to the "
        "baseline's kernel, cosine between both, growth (all medians), and how many grew, turned "
        "round, or rose in their sum."
    )
    material.put(page, "changes", changes(study.baseline, study.target, sets))
    for name, filters in sets.items():
        kernels = top_kernels(study.baseline, study.target, filters, SHOWN_KERNELS)
        material.draw(page, kernel_changes_figure(kernels, f"{name}: best {len(kernels)}"))
    page.code(material.commands["distribution"])


def channel_scores(page: Page, material: Material) -> None:
    """Score channels for pruning."""
    page.heading("Scores of output channels, for pruning")
    scores = channel_importance(material.study.target, material.result)
    page.text(
        "Sum of the mean scores of all degradations; faigfast.analysis.pruning hands them to "
        "torch-pruning and torch.nn.utils.prune."
    )
    material.draw(page, channel_bars(scores))
    page.text(
        "Every layer's channels, the highest score first; layers are equally wide, and the axis is "
        "logarithmic."
    )
    material.put(page, "channels", importance_data_frame(scores), "Layer by layer")
    page.code(material.commands["prune"])
