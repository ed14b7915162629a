"""Degradation prediction without ground truth: the filters an image needs tell its degradation.

An image is attributed against the target's own output, F(θ, x) in place of the ground truth. Its
scores are compared with the signatures of labelled images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import split_label
from faigfast.analysis.evaluation import Crops, restore
from faigfast.analysis.finished_parts import FinishedParts, options_text
from faigfast.attribution.one_call import attribute
from faigfast.filters.index import FilterIndex
from faigfast.io.progress import progress_bar
from faigfast.models.fingerprint import digest_of

MATCHES = ("overlap", "correlation", "neighbour")
STEPS = 8  # points of the line
PART_SIZE = 8  # images attributed at once


def own_output_scores(
    baseline: nn.Module,
    target: nn.Module,
    x: Tensor,
    *,
    steps: int = STEPS,
    finished_parts: FinishedParts | None = None,
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
    finished_parts : FinishedParts, optional
        Keeps finished parts.
    title : str
        Title of the progress bar.
    progress : bool
        Show it.
    **options
        Of `faigfast.attribute`.

    Returns
    -------
    Tensor
        Each filter's share of an image's scores, in float64. Shares leave out the size of the loss,
        which depends on the scene more than on the degradation.
    """
    finished_parts, rows = finished_parts or FinishedParts(), []

    def compute(part: Tensor) -> dict[str, Tensor]:
        gt = restore(target, part, options.get("pad", 0))
        return {"scores": attribute(baseline, target, (part, gt), steps=steps, **options).scores()}

    for part in progress_bar(x.split(PART_SIZE), title, unit="part", disable=not progress):
        name = f"own {steps} {options_text(options)} {digest_of({'x': part})}"
        rows.append(finished_parts.tensors(name, partial(compute, part))["scores"])
    scores = torch.cat(rows).double()
    return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


@dataclass(frozen=True)
class Prediction:
    """Predicted degradation of one image.

    Parameters
    ----------
    label : str
        Degradation and level, as named by the user.
    degradation : str
        The label without its final number: "blur" of "blur-2".
    level : str
        The final number; "" where there is none.
    margin : float
        Difference of the best match from the second best.
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
    """Scores that images of one label have in common: shares of filters beyond the mean of all.

    Parameters
    ----------
    labels : tuple of str
        K degradations with levels, such as "blur-2".
    examples : tuple of Tensor
        [N, F] of each, from `own_output_scores`.
    fraction : float
        Share of the filters in a signature's set.
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
    def within_label_deviation(self) -> Tensor:
        """Standard deviation of shares within labels, [F]: the scene's effect on a filter."""
        residuals = torch.cat([rows - rows.mean(0) for rows in self.examples])
        deviation = residuals.square().mean(0).sqrt()
        if not deviation.any():  # one example a label: the effect of scenes is unknown
            return torch.ones_like(deviation)
        # A filter whose share never varies would otherwise outweigh all others.
        return deviation + deviation.mean() * 1e-3 + torch.finfo(torch.float64).tiny

    @cached_property
    def centres(self) -> Tensor:
        """Signatures [K, F]: mean deviation from the mean of all labels, in standard deviations."""
        return torch.stack([self.standardised(rows).mean(0) for rows in self.examples])

    @cached_property
    def sets(self) -> Tensor:
        """Whether a filter is in the top set of a label, [K, F]."""
        return self._members(self.centres)

    def standardised(self, shares: Tensor) -> Tensor:
        """Deviation of the shares of images [N, F] from the mean, in standard deviations."""
        return (shares - self.mean) / self.within_label_deviation

    def _members(self, values: Tensor) -> Tensor:
        count = max(1, int(self.fraction * values.shape[1]))
        members = torch.zeros_like(values, dtype=torch.bool)
        return members.scatter_(1, values.topk(count, dim=1).indices, True)

    def matches(self, shares: Tensor, match: str = "correlation") -> Tensor:
        """Match images with every label.

        Parameters
        ----------
        shares : Tensor
            [N, F], from `own_output_scores`.
        match : {"overlap", "correlation", "neighbour"}
            Share of the image's top filters in the label's set; correlation of the full vectors
            of deviations with the signature; or with the most similar labelled image.

        Returns
        -------
        Tensor
            [N, K].

        Raises
        ------
        ValueError
            If `match` is unknown or the number of filters differs.
        """
        if match not in MATCHES:
            raise ValueError(f"match is {match!r}; expected one of {', '.join(MATCHES)}")
        if shares.ndim != 2 or shares.shape[1] != len(self.mean):
            raise ValueError(
                f"shares are {list(shares.shape)}; expected [N, {len(self.mean)}], the filters of "
                "the signatures"
            )
        deviations = self.standardised(shares)
        if match == "overlap":
            chosen = self._members(deviations).double()
            return chosen @ self.sets.double().T / chosen.sum(1, keepdim=True)
        if match == "correlation":
            return _correlation(deviations, self.centres)
        nearest = [
            _correlation(deviations, self.standardised(rows)).amax(1) for rows in self.examples
        ]
        return torch.stack(nearest, dim=1)

    def predict(self, shares: Tensor, match: str = "correlation") -> list[Prediction]:
        """Predict the best label of images [N, F], with its margin."""
        predictions = []
        for row in self.matches(shares, match):
            best = row.topk(2)
            label = self.labels[int(best.indices[0])]
            degradation, level = split_label(label)
            margin = float(best.values[0] - best.values[1])
            scores = dict(zip(self.labels, row.tolist(), strict=True))
            predictions.append(Prediction(label, degradation, level, margin, scores))
        return predictions

    def only(self, keep: Mapping[str, Sequence[bool]]) -> "Signatures":
        """Keep only the marked examples of each label."""
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
        Its degradations' names are the labels; the ground truth is not used.
    fraction : float
        Share of the filters in a signature's set.
    **options
        Of `own_output_scores`.

    Returns
    -------
    Signatures
    """
    rows = [
        own_output_scores(baseline, target, lq, **{"title": f"learning {label}", **options})
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
    """Predict the degradation of unseen images, without their ground truth.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair that learned the signatures.
    signatures : Signatures
        From `learn`.
    x : Tensor
        [N, C, h, w].
    match : str
        As in `Signatures.matches`.
    **options
        Of `own_output_scores`; best the same as for `learn`.

    Returns
    -------
    list of Prediction
        One an image: degradation, level and margin.

    Raises
    ------
    ValueError
        If the signatures belong to a network with another number of filters.

    Notes
    -----
    Source: Xie et al., NeurIPS 2021, whose code is not published. They match top
    filters; full vectors and the division by the scene's effect are our addition.
    """
    if len(FilterIndex.of(target)) != len(signatures.mean):
        raise ValueError(
            f"the signatures are of {len(signatures.mean)} filters and the network has "
            f"{len(FilterIndex.of(target))}"
        )
    return signatures.predict(own_output_scores(baseline, target, x, **options), match)
