"""Degradation prediction: which degradation an image has, from the filters it needs, without truth.

An image is attributed against the target's own output, F(θ, x) in place of the ground truth. What
that gives is compared with the signatures of labelled images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast.analysis.contrasts import split_label
from faigfast.analysis.evaluation import Crops, restore
from faigfast.attribution.attributor import attribute
from faigfast.filters.filter_set import FilterIndex
from faigfast.io.finished_parts import Store
from faigfast.models.fingerprint import digest_of

MATCHES = ("overlap", "correlation", "neighbour")
STEPS = 8  # points of the line
TOGETHER = 8  # images of one part


def own_scores(
    baseline: nn.Module,
    target: nn.Module,
    x: Tensor,
    *,
    steps: int = STEPS,
    store: Store | None = None,
    title: str = "",
    progress: bool = False,
    **options: Any,
) -> Tensor:
    """FAIG of images against the target's own output, as shares: [N, F], each row of sum 1.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    x : Tensor
        [N, C, h, w], images without ground truth.
    steps : int
        Points of the line.
    store : Store, optional
        Keeps finished parts.
    title : str
        Of the progress bar.
    progress : bool
        Show it.
    **options
        Of `faigfast.attribute`.

    Returns
    -------
    Tensor
        Each filter's share of an image's scores, in float64; shares do not tell how large the loss
        is, which depends on what the image shows more than on how it is degraded.
    """
    store, rows = store or Store(), []

    def compute(part: Tensor) -> dict[str, Tensor]:
        gt = restore(target, part)
        return {"scores": attribute(baseline, target, (part, gt), steps=steps, **options).scores()}

    for part in tqdm(x.split(TOGETHER), title, unit="part", disable=not progress):
        name = f"own {steps} {sorted(options.items())} {digest_of({'x': part})}"
        rows.append(store.tensors(name, partial(compute, part))["scores"])
    scores = torch.cat(rows).double()
    return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


@dataclass(frozen=True)
class Prediction:
    """What one image is taken for.

    Parameters
    ----------
    label : str
        Degradation and level as they were named.
    degradation : str
        The label without the number it ends with: "blur" of "blur-2".
    level : str
        That number; "" where there is none.
    margin : float
        How far the best match is above the best of another label.
    scores : dict of str to float
        The match with every label.
    """

    label: str
    degradation: str
    level: str
    margin: float
    scores: dict[str, float]


@dataclass(frozen=True)
class Signatures:
    """What labelled images have in common: the share each filter has, beyond the mean of all.

    Parameters
    ----------
    labels : tuple of str
        K degradations and levels, such as "blur-2".
    examples : tuple of Tensor
        [N, F] of each, from `own_scores`.
    fraction : float
        Share of the filters that make a signature's set.
    """

    labels: tuple[str, ...]
    examples: tuple[Tensor, ...]
    fraction: float = 0.05

    def __post_init__(self) -> None:
        """Check every field once."""
        if len(self.labels) < 2 or len(self.labels) != len(self.examples):
            raise ValueError(
                f"{len(self.labels)} labels for {len(self.examples)} sets of examples; expected at "
                "least two, with examples each"
            )
        for label, rows in zip(self.labels, self.examples, strict=True):
            if rows.ndim != 2 or not len(rows):
                raise ValueError(f"examples of {label!r} are {list(rows.shape)}; expected [N, F]")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction is {self.fraction}; expected a number in (0, 1]")

    @cached_property
    def mean(self) -> Tensor:
        """Mean over labels of their mean shares, [F]."""
        return torch.stack([rows.mean(0) for rows in self.examples]).mean(0)

    @cached_property
    def spread(self) -> Tensor:
        """Standard deviation of shares within labels, [F]: what the scene does to a filter."""
        inner = torch.cat([rows - rows.mean(0) for rows in self.examples])
        spread = inner.square().mean(0).sqrt()
        if not spread.any():  # of one example a label: nothing is known of scenes
            return torch.ones_like(spread)
        # A filter that never moves would otherwise count for everything.
        return spread + spread.mean() * 1e-3 + torch.finfo(torch.float64).tiny

    @cached_property
    def centres(self) -> Tensor:
        """Signatures [K, F]: mean deviation from the mean of all labels, in spreads."""
        return torch.stack([self.deviation(rows).mean(0) for rows in self.examples])

    @cached_property
    def sets(self) -> Tensor:
        """Whether a filter is in the top set of a label, [K, F]."""
        return self._members(self.centres)

    def deviation(self, shares: Tensor) -> Tensor:
        """Give how far the shares of images [N, F] are from the mean, in spreads."""
        return (shares - self.mean) / self.spread

    def _members(self, values: Tensor) -> Tensor:
        count = max(1, int(self.fraction * values.shape[1]))
        members = torch.zeros_like(values, dtype=torch.bool)
        return members.scatter_(1, values.topk(count, dim=1).indices, True)

    def matches(self, shares: Tensor, match: str = "correlation") -> Tensor:
        """Match images with every label.

        Parameters
        ----------
        shares : Tensor
            [N, F], from `own_scores`.
        match : {"overlap", "correlation", "neighbour"}
            Share of the image's top filters that are in the label's set; correlation of the full
            vectors of deviations with the signature; or with the most similar labelled image.

        Returns
        -------
        Tensor
            [N, K].

        Raises
        ------
        ValueError
            If `match` is unknown or the number of filters is another.
        """
        if match not in MATCHES:
            raise ValueError(f"match is {match!r}; expected one of {', '.join(MATCHES)}")
        if shares.ndim != 2 or shares.shape[1] != len(self.mean):
            raise ValueError(
                f"shares are {list(shares.shape)}; expected [N, {len(self.mean)}], the filters of "
                "the signatures"
            )
        values = self.deviation(shares)
        if match == "overlap":
            chosen = self._members(values).double()
            return chosen @ self.sets.double().T / chosen.sum(1, keepdim=True)
        if match == "correlation":
            return _correlation(values, self.centres)
        found = (_correlation(values, self.deviation(rows)).amax(1) for rows in self.examples)
        return torch.stack(list(found), dim=1)

    def predict(self, shares: Tensor, match: str = "correlation") -> list[Prediction]:
        """Say of images [N, F] which label fits best, and by how much."""
        found = []
        for row in self.matches(shares, match):
            best = row.topk(2)
            label = self.labels[int(best.indices[0])]
            degradation, level = split_label(label)
            margin = float(best.values[0] - best.values[1])
            scores = dict(zip(self.labels, row.tolist(), strict=True))
            found.append(Prediction(label, degradation, level, margin, scores))
        return found

    def without(self, keep: Mapping[str, Sequence[bool]]) -> "Signatures":
        """Leave examples out: of each label those are kept that are marked."""
        rows = [
            example[torch.tensor(keep[label])]
            for label, example in zip(self.labels, self.examples, strict=True)
        ]
        return Signatures(self.labels, tuple(rows), self.fraction)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation between rows: [N, F] and [K, F] to [N, K]."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    a, b = (x / x.norm(dim=1, keepdim=True).clamp(min=1e-300) for x in (a, b))
    return a @ b.T


def learn(
    baseline: nn.Module,
    target: nn.Module,
    data: Crops,
    *,
    fraction: float = 0.05,
    **options: Any,
) -> Signatures:
    """Learn signatures from images of known degradation.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    data : Crops
        Its degradations' names are the labels; the ground truth is not looked at.
    fraction : float
        Share of the filters that make a signature's set.
    **options
        Of `own_scores`.

    Returns
    -------
    Signatures
    """
    rows = [
        own_scores(baseline, target, lq, **{"title": f"learning {label}", **options})
        for label, lq in data.lq.items()
    ]
    return Signatures(tuple(data.lq), tuple(rows), fraction)


def predict_degradation(
    baseline: nn.Module,
    target: nn.Module,
    signatures: Signatures,
    x: Tensor,
    *,
    match: str = "correlation",
    **options: Any,
) -> list[Prediction]:
    """Say which degradation unseen images have, without their ground truth.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair that the signatures were learned with.
    signatures : Signatures
        From `learn`.
    x : Tensor
        [N, C, h, w].
    match : str
        As in `Signatures.matches`.
    **options
        Of `own_scores`; better those of learning.

    Returns
    -------
    list of Prediction
        One an image: degradation, level and margin.

    Raises
    ------
    ValueError
        If the signatures are of a network with another number of filters.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021, whose code is not published. They match top
    filters; full vectors and the scene's spread are our addition.
    """
    if len(FilterIndex.of(target)) != len(signatures.mean):
        raise ValueError(
            f"the signatures are of {len(signatures.mean)} filters and the network has "
            f"{len(FilterIndex.of(target))}"
        )
    return signatures.predict(own_scores(baseline, target, x, **options), match)
