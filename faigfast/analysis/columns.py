"""Columns and metrics of the tables: unit, meaning, and the heading where they are printed."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from faigfast.analysis.evaluation import METRICS as IMAGE_METRICS

if TYPE_CHECKING:
    import pandas

FRACTION, COUNT = "fraction", "count"  # units; a fraction of 0.5 is printed as 50 %
LOSS, LABEL = "of the objective", "of the label"
STRENGTH_OF = "strength_"  # begins the columns of a table of modulation


@dataclass(frozen=True)
class Column:
    """A column, or a metric of the column "metric".

    Parameters
    ----------
    unit : str
        Of its numbers; "1" has no unit. Empty: words.
    meaning : str
        One sentence without its stop.
    head : str
        Heading of the printed form.
    """

    unit: str
    meaning: str
    head: str


COLUMNS = {
    # What a row is about.
    "degradation": Column("", "Degradation of the input", "input"),
    "contrast": Column("", "Contrast that ranked the filters; empty where none did", "filters"),
    "other_contrast": Column("", "Contrast that it is compared with", "others"),
    "method": Column("", "Method that chose the filters, or an unchanged network", "method"),
    "network": Column("", "Network, named by what was done to it", "network"),
    "by": Column("", "Swap unit: kernel, channel or layer", "by"),
    "fraction": Column(FRACTION, "Share of all filters that was asked for", "asked for, %"),
    "masked_fraction": Column(FRACTION, "Share of all filters that was masked", "masked, %"),
    "filter_count": Column(COUNT, "Number of filters", "number"),
    "bias_count": Column(COUNT, "Number of biases that went back with the filters", "biases"),
    "strength": Column("1", "Strength: 0 is the baseline, 1 the target", "strength"),
    "dial": Column("", "Name of the dial", "dial"),
    "chosen": Column("", "Whether the dial has this set", "chosen"),
    "match": Column("", "How images and signatures were matched", "match"),
    "image": Column("", "Name of the image", "image"),
    "image_count": Column(COUNT, "Number of images", "images"),
    "interval": Column("", "What ci95_low and ci95_high are over: crops, photographs", "interval"),
    "predicted_degradation": Column("", "Predicted degradation", "predicted"),
    "predicted_level": Column(LABEL, "Predicted level, if the label has one", "level"),
    "margin": Column("1", "Distance of the best match from the second", "margin"),
    "level": Column(LABEL, "Level of the degradation", "level"),
    "other_level": Column(LABEL, "Level that it is compared with", "other level"),
    "depth": Column("1", "Place of the layer in the network, from 0", "depth"),
    "layer": Column("", "Name of the layer", "layer"),
    "step": Column(COUNT, "Number of steps that the training had taken", "step"),
    # What was measured.
    "reference": Column("", "What of the ablation: absolute, signed or contrast", "reference"),
    "metric": Column("", "Name of what was measured; see the metrics", "metric"),
    "value": Column("of the metric", "Mean, or the only value", "value"),
    "ci95_low": Column("of the metric", "Lower end of the 95 % confidence interval", "from"),
    "ci95_high": Column("of the metric", "Upper end of the 95 % confidence interval", "to"),
    "outcome": Column("", "Why a share of the gain is left open: broken, no gain", "outcome"),
    # Filters.
    "flat": Column("1", "Flat index of the filter", "flat"),
    "out": Column("1", "First index of the filter in its layer", "out"),
    "in": Column("1", "Second index of the filter in its layer", "in"),
    "score": Column(LOSS, "Mean of the filter's scores over the images", "score"),
    "contrast_score": Column(
        LOSS,
        "Score less the mean score of all other degradations, which ranks the filters",
        "contrast",
    ),
    # Sets compared.
    "common_fraction": Column(FRACTION, "Share of a set that the other set has too", "common, %"),
    "chance_fraction": Column(FRACTION, "Common share of random sets", "by chance, %"),
    "correlation": Column("1", "Correlation of all scores", "correlation"),
    "score_ratio": Column(
        "1", "Scores of both sets under the other level over the level", "scores of other / level"
    ),
    "previous_common_fraction": Column(
        FRACTION, "Share of the top set that the previous snapshot's has too", "in previous, %"
    ),
    "last_common_fraction": Column(
        FRACTION, "Share of the top set that the last snapshot's has too", "in last, %"
    ),
    # Kernels from baseline to target.
    "relative_change": Column(
        "1", "Median size of the change over the size of the baseline's kernel", "size of change"
    ),
    "cosine": Column("1", "Median cosine between a kernel before and after", "cosine"),
    "growth": Column("1", "Median growth of the kernels' norm; 0 is none", "gain"),
    "sum_change": Column("1", "Median change of the sum of a kernel's weights", "change of sum"),
    "grew_fraction": Column(FRACTION, "Share of kernels whose norm grew", "grew, %"),
    "turned_fraction": Column(FRACTION, "Share of kernels with cosine below 0", "turned round, %"),
    "sum_rose_fraction": Column(FRACTION, "Share of kernels whose sum rose", "sum rose, %"),
    # Output channels.
    "channel_count": Column(COUNT, "Number of output channels", "channels"),
    "score_min": Column(LOSS, "Least score of a channel", "least"),
    "score_median": Column(LOSS, "Median score of the channels", "median"),
    "score_max": Column(LOSS, "Largest score of a channel", "most"),
    "least_channel": Column("1", "Number of the channel with the least score", "least channel"),
    "score_fraction": Column(FRACTION, "Layer's share of all positive scores", "share of all, %"),
    # Trainings.
    "barrier_median": Column("1", "Median barrier of the images", "barrier"),
    "seconds": Column("s", "Time of the attribution", "time, s"),
    "share": Column(
        FRACTION, "Time of all attributions so far, of the time since the first step", "of time, %"
    ),
    # Completeness.
    "loss_baseline": Column(LOSS, "Mean loss of the baseline", "loss of baseline"),
    "loss_target": Column(LOSS, "Mean loss of the target", "loss of target"),
    "completeness_median": Column("1", "Median relative error of completeness", "median"),
    "completeness_max": Column("1", "Worst relative error of completeness", "worst"),
    "error_max": Column("1", "Worst estimated relative error of an image's scores", "estimated"),
    "tol": Column("1", "Error that was asked for", "tol"),
    "images_within_tol": Column(COUNT, "Number of images whose error is below it", "within tol"),
}

_LEAD = "less that of as many random filters"
METRICS = {
    "psnr": Column("dB", "PSNR of the output in RGB", IMAGE_METRICS["psnr"]),
    "psnr_y": Column("dB", "PSNR of the output's luma", IMAGE_METRICS["psnr_y"]),
    "ssim": Column("1", "SSIM of the output in RGB", IMAGE_METRICS["ssim"]),
    "ssim_y": Column("1", "SSIM of the output's luma", IMAGE_METRICS["ssim_y"]),
    "difference": Column(
        "1",
        "1000 × mean squared difference of gradient maps from the target's output",
        IMAGE_METRICS["difference"],
    ),
    "difference_authors": Column(
        "1", "The same in the authors' form", IMAGE_METRICS["difference_authors"]
    ),
    **{
        f"{name}_change": Column(
            "dB" if name.startswith("psnr") else "1",
            f"{name} less the target's",
            f"{head.partition(', dB')[0]} less target's{', dB' if 'dB' in head else ''}",
        )
        for name, head in IMAGE_METRICS.items()
    },
    "loss_change": Column(LOSS, "Loss less the target's", "loss less target's"),
    "rank_correlation": Column("1", "Spearman's rank correlation", "rank correlation"),
    "recall": Column(FRACTION, "Share of the filters that matter most", "recall, %"),
    "gain": Column("dB", "PSNR of the target less the baseline's", "gain, dB"),
    "undone": Column(FRACTION, "Share of the target's gain in PSNR that is lost", "undone, %"),
    "kept": Column(FRACTION, "Share of the target's gain in PSNR that is left", "kept, %"),
    "recovered": Column(FRACTION, "Share of the target's gain that was learnt", "recovered, %"),
    "above_random": Column("dB", f"PSNR {_LEAD}", "above random"),
    "above_random_same_layers": Column(
        "dB", f"PSNR {_LEAD} of the same layers", "above random, same layers"
    ),
    "clean_psnr_change": Column("dB", "PSNR less the target's on clean input", "clean, dB"),
    "area": Column("dB", "Mean loss of PSNR over the masked share", "area, dB"),
    "area_within_gain": Column(
        "dB",
        "The same, counting in each crop no more than the target's gain there, and 0 in a crop "
        "without a gain, so that it may exceed the mean gain",
        "within the gain",
    ),
    "area_others": Column(
        "dB", "Mean area within the gain over the other degradations with a gain", "others"
    ),
    "faig_ahead": Column("dB", "FAIG's area less that of the method", "FAIG ahead"),
    "faig_ahead_within_gain": Column(
        "dB", "FAIG's area within the gain less that of the method", "within, FAIG ahead"
    ),
    "photographs_ahead": Column(
        COUNT, "Number of photographs on which FAIG's area is the larger one", "ahead in"
    ),
    "photographs_ahead_within_gain": Column(COUNT, "The same within the gain", "within, ahead in"),
    "photograph_count": Column(COUNT, "Number of photographs", "photographs"),
    "degradation_right": Column(
        FRACTION, "Share of images whose degradation is predicted right", "degradation right, %"
    ),
    "label_right": Column(
        FRACTION, "Share of images whose degradation and level are right", "and level right, %"
    ),
    "mean_margin": Column("1", "Mean of the images' margins", "mean margin"),
    "predicted_fraction": Column(
        FRACTION, "Share of a degradation's images that are taken for a label", "%"
    ),
    "chosen_count": Column(COUNT, "Number of the layer's filters in the set", "number"),
    "chosen_fraction": Column(FRACTION, "Share of the layer's filters in the set", "% of layer"),
    "times_chance": Column("1", "That share over the share by chance", "× chance"),
}


def column(name: str, data: "pandas.DataFrame | None" = None) -> Column:
    """Look up a column of a table; a column without an entry has its name for a heading."""
    if name in COLUMNS:
        return COLUMNS[name]
    if name.startswith(STRENGTH_OF):
        of = (data.attrs.get("names", {}) if data is not None else {}).get(name)
        of = of or name.removeprefix(STRENGTH_OF)
        return Column("1", f"Strength of the {of} filters: 0 is the baseline", f"strength of {of}")
    return Column("", "", name)


def described(data: "pandas.DataFrame") -> dict[str, Any]:
    """Give unit and meaning of every column and metric of a table, in JSON types."""
    columns = {name: column(name, data) for name in map(str, data.columns)}
    content: dict[str, Any] = {"columns": _entries(columns.items())}
    if "metric" in columns:
        names = dict.fromkeys(data["metric"])
        content["metrics"] = _entries((name, METRICS[name]) for name in names)
    return content


def _entries(items: Iterable[tuple[str, Column]]) -> dict[str, dict[str, str | None]]:
    return {name: {"unit": one.unit or None, "meaning": one.meaning} for name, one in items}
