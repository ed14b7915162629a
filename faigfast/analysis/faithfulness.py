"""Faithfulness: scores of filters beside the exact ablation that they approximate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.ablation_result import Ablation
from faigfast.analysis.baselines import METHODS, WEIGHT_METHODS, rank_by
from faigfast.analysis.data_frames import data_frame
from faigfast.filters.ranking import number_of_filters
from faigfast.integration.batch import Batches

if TYPE_CHECKING:
    import pandas

FRACTION = 0.01
RESAMPLES = 200  # of the images, for intervals
ABSOLUTE, SIGNED, CONTRAST = "absolute", "signed", "contrast"
# Predictors of the signed change; all others are sizes.
SIGNED_METHODS = ("signed", "signed_gradient")
PREDICTORS = {
    **METHODS,
    "signed_gradient": "−Σ Δ · ∂L/∂θ at the target alone, the first-order change of an ablation",
}


def predictors(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    methods: Sequence[str] = tuple(PREDICTORS),
    **options: Any,
) -> dict[str, dict[str, Tensor]]:
    """Score all filters by every method: method to degradation to [N, F].

    Parameters
    ----------
    baseline, target, batch, **options
        As in `faigfast.analysis.baselines.rank_by`.
    methods : sequence of str
        Of `PREDICTORS`.

    Raises
    ------
    ValueError
        If a method is unknown, or as `rank_by`.
    """
    scores = {}
    for method in methods:
        if method not in PREDICTORS:
            raise ValueError(f"methods hold {method!r}; expected some of {', '.join(PREDICTORS)}")
        if method == "signed_gradient":
            one_node = {"rule": "left", "steps": 1, "backend": options.get("backend", "auto")}
            result = rank_by("signed", baseline, target, batch, **one_node)
        else:
            result = rank_by(method, baseline, target, batch, **options)
        scores[method] = dict(result.by_degradation)
    return scores


def faithfulness(
    ablation: Ablation,
    scores: Mapping[str, Mapping[str, Tensor]],
    fraction: float = FRACTION,
    seed: int = 0,
) -> "pandas.DataFrame":
    """Compare scores of filters with what their ablation changes.

    Parameters
    ----------
    ablation : Ablation
        Of all kernels, on N images.
    scores : mapping of str to mapping of str to Tensor
        Method to degradation to [N, F] or [1, F], of the same images; see `predictors`.
    fraction : float
        Share of all filters whose recall is measured.
    seed : int
        Of the resampled images.

    Returns
    -------
    pandas.DataFrame
        One row a degradation, method, reference and metric. Reference "absolute" is the size of the
        change of the loss, "signed" the change itself (of the methods that predict a sign), and
        "contrast" the change less the mean change on all other degradations. Metrics are
        rank_correlation (Spearman) and recall of the share that matters most, both of means over
        images; intervals are percentiles over resampled images, and missing for one image.

    Raises
    ------
    ValueError
        If filters were left out of the ablation, or a method scored other filters or degradations.
    """
    if ablation.by != "kernel" or len(ablation.numbers) != len(ablation.index):
        raise ValueError("ablation leaves filters out; expected one of all kernels")
    names, generator = ablation.degradations, torch.Generator().manual_seed(seed)
    changes = {name: ablation.change(name) for name in names}
    images = len(changes[names[0]])
    for method, by_degradation in scores.items():
        for name in names:
            shape = tuple(getattr(by_degradation.get(name), "shape", ()))
            if shape not in ((images, len(ablation.index)), (1, len(ablation.index))):
                raise ValueError(
                    f"scores of {method!r} on {name!r} are {list(shape)}; expected "
                    f"[{images}, {len(ablation.index)}]"
                )
    count = number_of_filters(fraction, len(ablation.index), len(ablation.index))
    draws = [torch.arange(images)]
    if images > 1:
        draws += [torch.randint(images, (images,), generator=generator) for _ in range(RESAMPLES)]
    changed: dict[tuple[str, int], tuple[Tensor, set[int]]] = {}  # of a reference and a draw
    rows = []
    for name in names:
        changed.clear()
        for method, by_degradation in scores.items():
            for reference in _references(method, len(names)):
                values = []
                for n, draw in enumerate(draws):
                    if (reference, n) not in changed:
                        change = _score(reference, changes, name, draw)
                        changed[reference, n] = _ranks_and_best(change, count)
                    score = _score(reference, by_degradation, name, draw)
                    values.append(_agreement(changed[reference, n], score, count))
                rows += _rows(name, method, reference, torch.tensor(values))
    return data_frame(rows)


def _references(method: str, degradations: int) -> list[str]:
    """List what a method is compared with; methods of the weights alone have no contrast."""
    signed = [SIGNED] if method in SIGNED_METHODS else []
    contrast = [CONTRAST] if degradations > 1 and method not in WEIGHT_METHODS else []
    return [ABSOLUTE, *signed, *contrast]


def _score(reference: str, by_degradation: Mapping[str, Tensor], name: str, draw: Tensor) -> Tensor:
    """Mean over images [F] of what the reference is about: changes, or scores that predict it."""

    def mean(values: Tensor) -> Tensor:
        values = values.double()
        return values[draw if len(values) > 1 else slice(None)].mean(0)

    if reference == SIGNED:
        return mean(by_degradation[name])
    if reference == ABSOLUTE:
        return mean(by_degradation[name].abs())
    others = [mean(values) for other, values in by_degradation.items() if other != name]
    return mean(by_degradation[name]) - torch.stack(others).mean(0)


def _agreement(changed: tuple[Tensor, set[int]], score: Tensor, count: int) -> tuple[float, float]:
    """Rank correlation, and the recall of the `count` filters that matter most."""
    ranks, best = _ranks_and_best(score, count)
    correlation = float(torch.stack([changed[0], ranks]).corrcoef()[0, 1])
    return correlation, len(changed[1] & best) / count


def _ranks_and_best(values: Tensor, count: int) -> tuple[Tensor, set[int]]:
    """Ranks [F], ties by their mean rank, and the numbers of the `count` largest."""
    from scipy.stats import rankdata

    best = values.argsort(descending=True, stable=True)[:count]
    return torch.from_numpy(rankdata(values.numpy())), set(best.tolist())


def _rows(name: str, method: str, reference: str, values: Tensor) -> list[dict[str, Any]]:
    """Give the rows of one comparison, from [1 + resamples, 2]."""
    rows = []
    for column, metric in enumerate(("rank_correlation", "recall")):
        first, resampled = values[0, column], values[1:, column]
        row: dict[str, Any] = {"degradation": name, "method": method, "reference": reference}
        row |= {"metric": metric, "value": float(first)}
        if len(resampled):
            low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=values.dtype))
            row |= {"ci95_low": float(low), "ci95_high": float(high)}
        rows.append(row)
    return rows
