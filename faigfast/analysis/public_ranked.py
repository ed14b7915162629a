"""Findings from the ranking alone, of a result or of the batch that `faigfast.attribute` takes."""

from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from faigfast.analysis import pruning
from faigfast.analysis.contrasts import Contrast, overlap_data_frame, refuse_negatives_alone
from faigfast.analysis.distribution import distribution as layer_table
from faigfast.analysis.public_arguments import FRACTION, Contrasts, one_result, read_contrasts
from faigfast.integration.batch import Batches
from faigfast.result import Attribution

if TYPE_CHECKING:
    import pandas


def overlap(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches | None = None,
    *,
    result: Attribution | None = None,
    fraction: float = FRACTION,
    contrasts: Contrasts | None = None,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> "pandas.DataFrame":
    """Compare the best filters of every two degradations.

    Parameters
    ----------
    baseline, target, pad, progress, **options
        As in `mask`.
    batch : tuple, mapping or iterable, optional
        As in `mask`; not with `result`.
    result : Attribution, optional
        Result to compare in.
    fraction : float
        Share of all filters in a set.
    contrasts : sequence of Contrast or str, optional
        None: the scores of each degradation alone. The contrasts of two degradations against each
        other would be each other's negative and share nothing.

    Returns
    -------
    pandas.DataFrame
        One row a pair: common share of their sets, share by chance, correlation of their scores.

    Raises
    ------
    TypeError, ValueError
        As `mask`; also if there are fewer than two contrasts, or each other's negatives alone.
    """
    result = one_result(baseline, target, batch, result, pad, progress, options)
    alone = tuple(Contrast(name, name, ()) for name in result.degradations)
    ranked = alone if contrasts is None else read_contrasts(contrasts, result)
    if len(ranked) < 2:
        raise ValueError(f"contrasts are {[c.name for c in ranked]}; expected two or more")
    refuse_negatives_alone(ranked, result.degradations)
    sets = {contrast.name: contrast.top(result, fraction) for contrast in ranked}
    return overlap_data_frame(sets, {c.name: c.scores(result) for c in ranked})


def distribution(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches | None = None,
    *,
    result: Attribution | None = None,
    fraction: float = FRACTION,
    contrasts: Contrasts | None = None,
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> "pandas.DataFrame":
    """Count the discovered filters layer by layer.

    Parameters
    ----------
    baseline, target, batch, result, fraction, pad, progress, **options
        As in `overlap`.
    contrasts : sequence of Contrast or str, optional
        As in `mask`.

    Returns
    -------
    pandas.DataFrame
        As `faigfast.analysis.distribution.distribution` gives it: a row a layer, set and metric.

    Raises
    ------
    TypeError, ValueError
        As `mask`.
    """
    result = one_result(baseline, target, batch, result, pad, progress, options)
    sets = {c.name: c.top(result, fraction) for c in read_contrasts(contrasts, result)}
    return layer_table(sets, result.index, result.scored)


def importance(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches | None = None,
    *,
    result: Attribution | None = None,
    keep: Contrast | str | None = None,
    by: Literal["channel", "weight"] = "channel",
    reduce: Literal["sum", "mean", "max"] = "sum",
    pad: int = 0,
    progress: bool = False,
    **options: Any,
) -> dict[str, Tensor]:
    """Score output channels or weights of the target, for libraries that prune.

    Parameters
    ----------
    baseline, target, batch, result, pad, progress, **options
        As in `overlap`.
    keep : Contrast or str, optional
        Ability that the network must keep, such as "blur:"; None: all degradations together.
    by : {"channel", "weight"}
        One score an output channel, or the filter's score for each of its weights.
    reduce : {"sum", "mean", "max"}
        Over the filters of a channel.

    Returns
    -------
    dict of str to Tensor
        Name of the convolution to [out channels], float64, or to the shape of its weight.

    Raises
    ------
    TypeError, ValueError
        As `mask` and `faigfast.analysis.pruning.channel_importance`.
    """
    if by not in ("channel", "weight"):
        raise ValueError(f"by is {by!r}; expected channel or weight")
    result = one_result(baseline, target, batch, result, pad, progress, options)
    contrast = None if keep is None else read_contrasts([keep], result)[0]
    if by == "weight":
        return pruning.weight_importance(target, result, contrast)
    return pruning.channel_importance(target, result, contrast, reduce)
