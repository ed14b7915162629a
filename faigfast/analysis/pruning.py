"""Pruning hand-over: FAIG's scores in the forms that pruning libraries take as importance."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import Contrast
from faigfast.analysis.data_frames import frame
from faigfast.analysis.evaluation import share_of
from faigfast.analysis.swap_units import check_index, convolution_of, output_channels
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
        Of the network to prune, as the target.
    contrast : Contrast, optional
        What the network must keep, such as `Contrast("blur", "blur", ())`; None: the mean scores
        of all degradations, summed.

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
    """Score every output channel of every convolution that the result scores.

    Parameters
    ----------
    network : nn.Module
        The network that the result attributes, as the target.
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
    found = {}
    for n, (layer, channels) in enumerate(output_channels(network, index).items()):
        if not result.scored[index.offsets[n]]:
            continue
        own = scores[index.offsets[n] : index.offsets[n + 1]]
        empty = torch.zeros(int(channels.max()) + 1, dtype=own.dtype)
        name = {"sum": "sum", "mean": "mean", "max": "amax"}[reduce]
        found[convolution_of(network, layer)[0]] = empty.scatter_reduce(
            0, channels, own, name, include_self=False
        )
    return found


def importance_frame(scores: Mapping[str, Tensor]) -> "pandas.DataFrame":
    """One row a convolution: how its channels' scores, of `channel_importance`, are spread."""
    positive = {name: float(v.clamp(min=0).sum()) for name, v in scores.items()}
    total = sum(positive.values())
    return frame(
        [
            {
                "layer": name,
                "channels": len(v),
                "least": float(v.min()),
                "median": float(v.median()),
                "most": float(v.max()),
                "least channel": int(v.argmin()),
                "share of all, %": 100 * share_of(positive[name], total),
            }
            for name, v in scores.items()
        ]
    )


def weight_importance(
    network: nn.Module, result: Attribution, contrast: Contrast | None = None
) -> dict[str, Tensor]:
    """Give each weight of the layers that are scored its filter's, for `torch.nn.utils.prune`.

    Parameters
    ----------
    network, result, contrast
        As in `channel_importance`.

    Returns
    -------
    dict of str to Tensor
        Name of the convolution to a tensor of its weight's shape, dtype and device, which the
        functions of `torch.nn.utils.prune` take as `importance_scores`.

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
    found = {}
    for n, (layer, shape) in enumerate(zip(index.layers, index.shapes, strict=True)):
        if not result.scored[index.offsets[n]]:
            continue
        own = scores[index.offsets[n] : index.offsets[n + 1]].view(*shape[:2])
        own = own.view(*shape[:2], *[1] * (len(shape) - 2)).expand(shape)
        found[convolution_of(network, layer)[0]] = own.to(state[layer])
    return found


class FaigImportance:
    """Importance for torch-pruning's pruners: FAIG's score of every output channel.

    A group's score of a channel is the mean over the convolutions that lose it as an output;
    what reads the channel does not count, since its filters have scores of their own.

    Parameters
    ----------
    network : nn.Module
        The network that the pruner is given, not pruned yet.
    result : Attribution
        Of this network as the target.
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
    Scores are those of the whole network: prune in one step, or attribute the pruned network anew.
    torch-pruning (VainF, MIT licence) is not needed by anything else here.
    """

    def __init__(
        self,
        network: nn.Module,
        result: Attribution,
        contrast: Contrast | None = None,
        reduce: str = "sum",
    ) -> None:
        module = unwrap(network, "network")
        layers = dict(module.named_modules())
        scores = channel_importance(module, result, contrast, reduce)
        self.scores = {layers[name]: values for name, values in scores.items()}

    def __call__(self, group: Any) -> Tensor | None:
        """Score the channels of a group of torch-pruning; None where no convolution loses one."""
        from torch_pruning.pruner import function

        total, count = None, 0
        for n, (dep, places) in enumerate(group):
            outputs = (function.prune_conv_out_channels, function.prune_depthwise_conv_out_channels)
            if dep.layer not in self.scores or dep.pruning_fn not in outputs:
                continue
            known = self.scores[dep.layer]
            if len(known) != dep.layer.out_channels:
                raise ValueError(
                    f"a convolution has {dep.layer.out_channels} channels and scores for "
                    f"{len(known)}; expected the network that was attributed, not pruned yet"
                )
            roots = torch.tensor(group[n].root_idxs)
            values = torch.zeros(len(roots), dtype=known.dtype)
            values = values.scatter_reduce(0, roots, known[torch.tensor(places)], "sum")
            total = values if total is None else total + values
            count += 1
        return None if total is None else total / count
