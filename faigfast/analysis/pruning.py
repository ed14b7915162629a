"""FAIG's scores as importance, in the forms that pruning libraries take."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import data_frame
from faigfast.analysis.evaluation import ratio_or_nan
from faigfast.analysis.swap_units import check_index
from faigfast.filters.output_channels import convolution_of, output_channels
from faigfast.models.state import unwrap
from faigfast.result import Attribution

if TYPE_CHECKING:
    import pandas

REDUCTIONS = ("sum", "mean", "max")


def filter_importance(result: Attribution, contrast: Contrast | None = None) -> Tensor:
    """Score every filter, [F]: by a contrast, or by the sum over all degradations.

    Parameters
    ----------
    result : Attribution
        Result whose target is the network to prune.
    contrast : Contrast, optional
        Ability that the network must keep, such as `Contrast("blur", "blur", ())`; None: the mean
        scores of all degradations, summed.

    Returns
    -------
    Tensor
        [F], float64.
    """
    if contrast is not None:
        return contrast.scores(result)
    return torch.stack([result.mean(name) for name in result.degradations]).sum(0)


def channel_importance(
    network: nn.Module,
    result: Attribution,
    contrast: Contrast | None = None,
    reduce: str = "sum",
) -> dict[str, Tensor]:
    """Score every output channel of every scored convolution.

    Parameters
    ----------
    network : nn.Module
        The target of the result.
    result : Attribution
        Its scores.
    contrast : Contrast, optional
        As in `filter_importance`.
    reduce : {"sum", "mean", "max"}
        Over a channel's filters.

    Returns
    -------
    dict of str to Tensor
        Name of the convolution to [out channels], float64.

    Raises
    ------
    ValueError
        If the result is of another network or `reduce` is unknown.
    """
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce is {reduce!r}; expected one of {', '.join(REDUCTIONS)}")
    index = check_index(result, network)
    scores = filter_importance(result, contrast)
    importance = {}
    for n, (layer, channels) in enumerate(output_channels(network, index).items()):
        if not result.scored[index.offsets[n]]:
            continue
        layer_scores = scores[index.offsets[n] : index.offsets[n + 1]]
        empty = torch.zeros(int(channels.max()) + 1, dtype=layer_scores.dtype)
        torch_reduce = {"sum": "sum", "mean": "mean", "max": "amax"}[reduce]
        importance[convolution_of(network, layer)[0]] = empty.scatter_reduce(
            0, channels, layer_scores, torch_reduce, include_self=False
        )
    return importance


def importance_data_frame(scores: Mapping[str, Tensor]) -> "pandas.DataFrame":
    """One row a convolution: least, median and largest of its scores of `channel_importance`."""
    positive = {name: float(v.clamp(min=0).sum()) for name, v in scores.items()}
    total = sum(positive.values())
    return data_frame(
        [
            {
                "layer": name,
                "channel_count": len(v),
                "score_min": float(v.min()),
                "score_median": float(v.median()),
                "score_max": float(v.max()),
                "least_channel": int(v.argmin()),
                "score_fraction": ratio_or_nan(positive[name], total),
            }
            for name, v in scores.items()
        ]
    )


def weight_importance(
    network: nn.Module, result: Attribution, contrast: Contrast | None = None
) -> dict[str, Tensor]:
    """Give each weight of a scored layer its filter's score, for `torch.nn.utils.prune`.

    Parameters
    ----------
    network, result, contrast
        As in `channel_importance`.

    Returns
    -------
    dict of str to Tensor
        Name of the convolution to a tensor of its weight's shape, dtype and device; the functions
        of `torch.nn.utils.prune` take it as `importance_scores`.

    Raises
    ------
    ValueError
        If the result is of another network.

    Examples
    --------
    >>> import faigfast
    >>> from torch.nn.utils import prune
    >>> a, b = (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)) for _ in range(2))
    >>> result = faigfast.attribute(a, b, (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)))
    >>> scores = weight_importance(b, result)["0"]
    >>> pruned = prune.ln_structured(b[0], "weight", 1, n=1, dim=0, importance_scores=scores)
    >>> least = channel_importance(a, result)["0"].argmin()
    >>> pruned.weight[least].count_nonzero(), int(pruned.weight_mask.sum())
    (tensor(0), 54)
    """
    index = check_index(result, network)
    scores = filter_importance(result, contrast)
    state = unwrap(network, "network").state_dict()
    importance = {}
    for n, (layer, shape) in enumerate(zip(index.layers, index.shapes, strict=True)):
        if not result.scored[index.offsets[n]]:
            continue
        layer_scores = scores[index.offsets[n] : index.offsets[n + 1]].view(*shape[:2])
        layer_scores = layer_scores.view(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
        importance[convolution_of(network, layer)[0]] = layer_scores.to(state[layer])
    return importance


class FaigImportance:
    """Importance for torch-pruning's pruners: FAIG's score of every output channel.

    A channel's score in a group is the mean over the convolutions that lose it as an output.
    Layers that read the channel do not count, since their filters have scores of their own.

    Parameters
    ----------
    network : nn.Module
        The network to prune, not pruned yet.
    result : Attribution
        Result with this network as the target.
    contrast : Contrast, optional
        As in `filter_importance`.
    reduce : str
        As in `channel_importance`.

    Raises
    ------
    ValueError
        As `channel_importance`.

    Notes
    -----
    Scores belong to the unpruned network: prune in one step, or attribute the pruned network again.
    Nothing else in faigfast needs torch-pruning (VainF, MIT licence).
    """

    def __init__(
        self,
        network: nn.Module,
        result: Attribution,
        contrast: Contrast | None = None,
        reduce: str = "sum",
    ) -> None:
        module = unwrap(network, "network")
        modules = dict(module.named_modules())
        scores = channel_importance(module, result, contrast, reduce)
        self.scores = {modules[name]: values for name, values in scores.items()}

    def __call__(self, group: Any) -> Tensor | None:
        """Score the channels of a group of torch-pruning; None where no convolution loses one."""
        from torch_pruning.pruner import function

        total, count = None, 0
        for n, (dep, channels) in enumerate(group):
            outputs = (function.prune_conv_out_channels, function.prune_depthwise_conv_out_channels)
            if dep.layer not in self.scores or dep.pruning_fn not in outputs:
                continue
            channel_scores = self.scores[dep.layer]
            if len(channel_scores) != dep.layer.out_channels:
                raise ValueError(
                    f"a convolution has {dep.layer.out_channels} channels and scores for "
                    f"{len(channel_scores)}; expected the network that was attributed, not pruned "
                    "yet"
                )
            roots = torch.tensor(group[n].root_idxs)
            values = torch.zeros(len(roots), dtype=channel_scores.dtype)
            values = values.scatter_reduce(0, roots, channel_scores[torch.tensor(channels)], "sum")
            total = values if total is None else total + values
            count += 1
        return None if total is None else total / count
