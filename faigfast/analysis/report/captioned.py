"""Figures of every analysis with their captions, for commands and the report alike.

`about` says which crops were attributed and measured, and of what intervals are.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from faigfast.analysis.dial_result import DialResult
from faigfast.analysis.evaluation import METRICS
from faigfast.analysis.locations import EXPERIMENTS, Locations
from faigfast.analysis.masking import SAME_LAYERS, Masking
from faigfast.analysis.modulation import Modulation
from faigfast.analysis.prediction_trials import PredictionTrial
from faigfast.analysis.report.dial_figures import dial_curves
from faigfast.analysis.report.figures import (
    COST_LABELS,
    KEPT_LIMITS,
    location_bars,
    masking_curves,
    method_curves,
    methods_beyond_axis,
    modulation_curves,
    retraining_bars,
)
from faigfast.analysis.report.filter_figures import (
    channel_bars,
    kernel_changes_figure,
    layer_distribution,
    line_figure,
    matrix,
)
from faigfast.analysis.report.image_figures import side_by_side, strength_grid
from faigfast.analysis.report.paper import PaperFigure
from faigfast.analysis.retraining import Retraining
from faigfast.analysis.undone import MEANING
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex
from faigfast.io.text_table import counted
from faigfast.result import Attribution

CROSS = "A red cross marks a network that is worse than both baseline and target."


def _crops(values: Mapping[str, Tensor]) -> str:
    """Say how many crops the means and intervals of one number a crop are over."""
    number = len(next(iter(values.values())))
    return (
        f"Means over {counted(number, 'crop')}; bars: 95 % confidence intervals over crops of the "
        "change within a crop."
    )


def masking_figure(masking: Masking, about: str, metric: str = "psnr") -> PaperFigure:
    """Curves of every ranking method's cost, with their caption."""
    label = COST_LABELS.get(metric, f"loss of {METRICS[metric]}")
    texts = [
        "The top filters of each ranking method go back to the baseline's weights. Drawn against "
        f"the masked share of all filters: {label}, on the input whose degradation the filters "
        f"remove. Random filters, and {SAME_LAYERS}, are controls.",
        _crops(masking.target),
    ]
    if metric == "psnr":
        texts.append(f"Dotted: all of the target's gain over the baseline. {CROSS}")
        for name, methods in methods_beyond_axis(masking).items():
            texts.append(f"Cut at twice the gain ({name} filters): {', '.join(methods)}.")
    return PaperFigure(
        lambda width: method_curves(masking, metric, width), " ".join([*texts, about])
    )


def demo_figure(masking: Masking, about: str) -> PaperFigure:
    """Curves of PSNR for every input, with their caption."""
    text = (
        "PSNR of restored inputs against the share of filters that go back to the baseline's "
        f"weights, one panel a degradation of the input. {_crops(masking.target)} {CROSS} {about}"
    )
    return PaperFigure(lambda width: masking_curves(masking, width=width), text)


def modulation_figure(modulation: Modulation, about: str, metric: str = "psnr") -> PaperFigure:
    """Curves over the strength of every set of filters, with their caption."""
    text = (
        f"{METRICS[metric]} at strengths of the filters from the baseline's weights (0) over the "
        "target's (1) to beyond, one panel a set of filters and one curve a degradation of the "
        f"input. {_crops(modulation.values[0][metric])} {about}"
    )
    return PaperFigure(lambda width: modulation_curves(modulation, metric, width), text)


def images_figure(rows: Sequence[dict[str, Tensor]], text: str) -> PaperFigure:
    """Rows of restored images, with a caption."""
    return PaperFigure(lambda width: side_by_side(rows, width), text)


def strengths_figure(rows: Sequence[dict[str, Tensor]], about: str) -> PaperFigure:
    """Rows of one crop at all strengths, with their caption."""
    text = (
        "A crop restored at strengths (×) of a set of filters, one row a set, with the degradation "
        f"of the input that the set removes. 0: the baseline's weights, 1: the target's. {about}"
    )
    return images_figure(rows, text)


def grid_figure(
    images: dict[str, list[list[Tensor]]],
    strengths: Sequence[float],
    names: tuple[str, str],
    about: str,
) -> PaperFigure:
    """Images at all pairs of strengths, with their caption."""
    text = (
        f"A crop restored at all pairs of strengths of the {names[0]} filters "
        f"(down) and of the {names[1]} filters (across), one panel a degradation of the input. 0: "
        f"the baseline's weights, 1: the target's. {about}"
    )
    return PaperFigure(lambda width: strength_grid(images, strengths, names, width), text)


def location_figure(parts: Sequence[Locations], about: str) -> PaperFigure:
    """Bars of every location experiment, with their caption."""
    legend = "; ".join(f"{name}: {text}" for name, (text, _) in EXPERIMENTS.items())
    low, high = KEPT_LIMITS
    text = (
        "Share of the target's gain in PSNR over the baseline that is kept, one panel a set of "
        f"filters, on the input whose degradation they remove. {legend}. Black: the discovered "
        "filters; light: random filters, places or orders. Red lines: 95 % confidence intervals "
        f"over crops; arrows: values beyond {low:g} and {high:g} %. {MEANING} {about}"
    )
    return PaperFigure(lambda width: location_bars(parts, width=width), text)


def retraining_figure(parts: Sequence[Retraining], about: str) -> PaperFigure:
    """Bars of retrained networks, with their caption."""
    number = len(parts[0].psnr("baseline"))
    text = (
        "Gain in PSNR over the baseline when these filters alone are trained on one degradation, "
        "one panel a degradation. Black: the discovered filters; light: random filters; gray: "
        f"others. Means over {counted(number, 'crop')}; red lines: 95 % confidence intervals over "
        f"crops. {about}"
    )
    return PaperFigure(lambda width: retraining_bars(parts, width=width), text)


def overlap_figure(
    shares: Tensor, names: Sequence[str], fraction: float, about: str
) -> PaperFigure:
    """Matrix [K, K] of the filters in common, with its caption."""
    text = (
        f"Filters in common, in % of the top {100 * fraction:g} % of all filters. – marks pairs "
        f"that have none by construction. {about}"
    )
    labels = ("top filters of", "that are also top filters of")
    return PaperFigure(lambda width: matrix(shares, names, names, labels, width), text)


def confusion_figure(trial: PredictionTrial, about: str) -> PaperFigure:
    """Matrix of true and predicted degradations, with its caption."""
    text = (
        "Degradations predicted from the filters that an image needs, without ground truth, "
        f"matched by {trial.match}: % of the crops of a true degradation (row), "
        f"{counted(len(trial.truth), 'crop')} in all. {about}"
    )
    labels = ("true degradation", "predicted degradation")
    return PaperFigure(
        lambda width: matrix(trial.confusion(), trial.labels, trial.labels, labels, width), text
    )


def layers_figure(sets: Mapping[str, FilterSet], index: FilterIndex, about: str) -> PaperFigure:
    """Bars of the filters in each layer, with their caption."""
    text = (
        "Number of top filters in each layer, from input to output, one panel a set of filters. "
        f"Ticks: the number expected by chance. {about}"
    )
    return PaperFigure(lambda width: layer_distribution(sets, index, width), text)


def kernels_figure(
    name: str, kernels: Sequence[tuple[str, Tensor, Tensor]], about: str
) -> PaperFigure:
    """Kernels before and after, with a caption that says where they lie."""
    ranks = "; ".join(f"{n}: {kernel}" for n, (kernel, _, _) in enumerate(kernels, 1))
    text = (
        f"The best {len(kernels)} {name} filters in the baseline, in the target, and their change. "
        "Red is above 0, blue below; baseline and target share a scale, the largest value of a "
        f"scale is below the kernel. Layer, output and input channel by rank: {ranks}. {about}"
    )
    return PaperFigure(lambda width: kernel_changes_figure(kernels, width=width), text)


def channels_figure(scores: Mapping[str, Tensor], about: str) -> PaperFigure:
    """Bars of the scores of output channels, with their caption."""
    text = (
        "Scores of the output channels of every layer, largest first within a layer, layers from "
        f"input to output. {about}"
    )
    return PaperFigure(lambda width: channel_bars(scores, width=width), text)


def losses_figure(result: Attribution, about: str) -> PaperFigure:
    """Loss along the line between the networks, with its caption."""
    text = (
        "Mean loss over images on the straight line in weight space from the baseline (0) to the "
        f"target (1). Dotted: straight between the ends. {about}"
    )
    return PaperFigure(lambda width: line_figure(result, width=width), text)


def dial_figure(dials: Sequence[DialResult], about: str, metric: str = "psnr") -> PaperFigure:
    """Curves of dials, with their caption."""
    text = (
        f"{METRICS[metric]} over the strength of a dial, on degraded and on clean input. Bars: 95 "
        f"% confidence intervals over photographs of the change against the target. {about}"
    )
    return PaperFigure(lambda width: dial_curves(dials, metric, width), text)
