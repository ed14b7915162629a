"""Charts of the filters themselves: how many lie in each layer, and scores of channels."""

from collections.abc import Mapping

from torch import Tensor

from faigfast.analysis.distribution import layer_numbers
from faigfast.analysis.report.charts import Chart, Panel, degradation_series
from faigfast.analysis.report.drawing import shown
from faigfast.filters.filter_set import FilterSet
from faigfast.filters.index import FilterIndex

QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def layer_chart(sets: Mapping[str, FilterSet], index: FilterIndex) -> Chart:
    """Show how many filters of each set lie in each layer, in order of depth, beside chance."""
    numbers = layer_numbers(index)
    sizes = numbers.bincount(minlength=len(index.layers))
    looks = degradation_series(list(sets))
    panels = []
    for name, filters in sets.items():
        counts = numbers[filters.indices].bincount(minlength=len(sizes))
        chance = sizes * (len(filters) / len(index))
        rows = [
            {
                "layer": shown(layer.removesuffix(".weight")),
                "depth": n,
                "filters": int(counts[n]),
                "by chance": float(chance[n]),
                "colour": looks[name].colour,
            }
            for n, layer in enumerate(index.layers)
        ]
        panels.append(Panel(f"{name}: {len(filters)} filters", rows))
    return Chart(
        "layers", "layers", "Filters in each layer, from input to output. Ticks: by chance.",
        "Bars of the number of filters in each layer, with the number expected by chance.",
        panels, "layer, from input to output", "filters in the layer",
    )  # fmt: skip


def channel_chart(scores: Mapping[str, Tensor]) -> Chart:
    """Show the spread of the scores of every layer's output channels, in order of depth.

    Parameters
    ----------
    scores : mapping of str to Tensor
        Layer to [out channels], as `faigfast.analysis.pruning.channel_importance` gives them.
    """
    rows = []
    for depth, (layer, values) in enumerate(scores.items()):
        points = [float(values.double().quantile(q)) for q in QUARTILES]
        names = ("least", "lower quartile", "median", "upper quartile", "most")
        row = {"layer": shown(layer), "depth": depth, "channels": len(values)}
        rows.append(row | dict(zip(names, points, strict=True)))
    return Chart(
        "channels", "channels",
        "Scores of output channels by layer: line from least to most, box between quartiles, tick "
        "at the median.",
        "Spread of the scores of each layer's output channels.",
        [Panel("", rows)], "layer, from input to output", "score of an output channel",
        logarithmic=("y",),
    )  # fmt: skip
