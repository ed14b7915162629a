"""Trials of degradation prediction: how often known degradations are predicted right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import split_label
from faigfast.analysis.data_frames import CROPS, PHOTOGRAPHS, data_frame, measured
from faigfast.analysis.evaluation import Crops, over_photographs
from faigfast.analysis.prediction import MATCHES, Prediction, Signatures, learn, own_output_scores

if TYPE_CHECKING:
    import pandas

# Label → recipe: the paper's degradations at three levels each, alone and together.
LEVELS = {
    "clean": "clean",
    "blur-1": "blur=1",
    "blur-2": "blur=2",
    "blur-3": "blur=3",
    "noise-0.05": "noise=0.05",
    "noise-0.1": "noise=0.1",
    "noise-0.15": "noise=0.15",
    "both-1": "blur=1+noise=0.05",
    "both-2": "blur=2+noise=0.1",
    "both-3": "blur=3+noise=0.15",
}


@dataclass(frozen=True)
class PredictionTrial:
    """Predictions for images whose degradation is known.

    Parameters
    ----------
    labels : tuple of str
        All labels.
    truth, predicted : tuple of str
        True and predicted label of every image.
    margins : tuple of float
        Margin of every image.
    photographs : tuple of str
        Photograph of every image.
    match : str
        Match of images and signatures, one of `MATCHES`.
    """

    labels: tuple[str, ...]
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    margins: tuple[float, ...]
    photographs: tuple[str, ...]
    match: str

    def right(self, exact: bool = True) -> Tensor:
        """1 where the label (without `exact` only its degradation) is right, else 0: [N]."""
        pairs = zip(self.truth, self.predicted, strict=True)
        if exact:
            return torch.tensor([float(a == b) for a, b in pairs])
        return torch.tensor([float(split_label(a)[0] == split_label(b)[0]) for a, b in pairs])

    def confusion(self) -> Tensor:
        """Share of a label's images (row) that were predicted as each label (column): [K, K]."""
        counts = torch.zeros(len(self.labels), len(self.labels), dtype=torch.float64)
        for a, b in zip(self.truth, self.predicted, strict=True):
            counts[self.labels.index(a), self.labels.index(b)] += 1
        return counts / counts.sum(1, keepdim=True).clamp(min=1)

    def confusion_data_frame(self) -> "pandas.DataFrame":
        """One row a true and a predicted label: the share of the true label's images."""
        shares = self.confusion().tolist()
        rows = [
            {"degradation": label, "predicted_degradation": taken}
            | measured("predicted_fraction", share)
            for label, row in zip(self.labels, shares, strict=True)
            for taken, share in zip(self.labels, row, strict=True)
        ]
        return data_frame(rows, across=["predicted_degradation"])

    def to_frame(self) -> "pandas.DataFrame":
        """Accuracy over all images, and of each label, a row a metric.

        Intervals of 95 %: Wilson's over images, and those of `over_photographs` around the mean of
        the photographs.
        """
        rows: list[dict[str, Any]] = []
        for label in ("all", *self.labels):
            chosen = [n for n, t in enumerate(self.truth) if label in ("all", t)]
            row = {"degradation": label, "match": self.match, "image_count": len(chosen)}
            over_crops, over_them = row | {"interval": CROPS}, row | {"interval": PHOTOGRAPHS}
            for metric, exact in (("degradation_right", False), ("label_right", True)):
                right = self.right(exact)[chosen].double()
                low, high = wilson(int(right.sum()), len(chosen))
                share = measured(metric, float(right.mean()))
                rows.append(over_crops | share | {"ci95_low": low, "ci95_high": high})
                names = [self.photographs[n] for n in chosen]
                rows.append(over_them | measured(metric, *over_photographs(right, names)[:2]))
            margin = sum(self.margins[n] for n in chosen) / len(chosen)
            rows.append(over_crops | measured("mean_margin", margin))
        return data_frame(rows, across=["interval"])


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (JASA 22, 1927).

    Examples
    --------
    >>> tuple(round(bound, 3) for bound in wilson(9, 10))
    (0.596, 0.982)
    """
    z = 1.96
    share, correction = hits / count, z * z / count
    middle = (share + correction / 2) / (1 + correction)
    half = z / (1 + correction) * ((share * (1 - share) + correction / 4) / count) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def predict_labelled(
    signatures: Signatures, shares: Mapping[str, Tensor], photographs: Sequence[str], match: str
) -> PredictionTrial:
    """Predict images of known labels, {label: shares [N, F]}."""
    truth: list[str] = []
    predictions: list[Prediction] = []
    for label, rows in shares.items():
        truth += [label] * len(rows)
        predictions += signatures.predict(rows, match)
    names = tuple(p.label for p in predictions)
    margins = tuple(p.margin for p in predictions)
    photograph_names = tuple(photographs) * len(shares)
    return PredictionTrial(signatures.labels, tuple(truth), names, margins, photograph_names, match)


def check_photographs(photographs: Sequence[str]) -> None:
    """Refuse a single photograph: signatures of some are tested on others."""
    if len(set(photographs)) < 2:
        raise ValueError("one photograph; expected two or more, to learn from some and test others")


def leave_one_photograph_out(
    signatures: Signatures, photographs: Sequence[str], match: str
) -> PredictionTrial:
    """Predict each photograph's crops from signatures of the others.

    Parameters
    ----------
    signatures : Signatures
        Signatures of all crops, in the same order for every label.
    photographs : sequence of str
        The photograph of each crop.
    match : str
        As in `Signatures.matches`.

    Raises
    ------
    ValueError
        If there is only one photograph.
    """
    check_photographs(photographs)
    parts = []
    for left_out in dict.fromkeys(photographs):
        keep = [name != left_out for name in photographs]
        of_others = signatures.only(dict.fromkeys(signatures.labels, keep))
        rows = {
            label: example[~torch.tensor(keep)]
            for label, example in zip(signatures.labels, signatures.examples, strict=True)
        }
        parts.append(
            predict_labelled(
                of_others, rows, [name for name in photographs if name == left_out], match
            )
        )
    joined = {
        name: sum((getattr(part, name) for part in parts), ())
        for name in ("truth", "predicted", "margins", "photographs")
    }
    return PredictionTrial(signatures.labels, match=match, **joined)


def try_predictions(
    baseline: nn.Module,
    target: nn.Module,
    unseen: Crops,
    teaching_crops: Crops | None = None,
    *,
    fraction: float = 0.05,
    **options: Any,
) -> tuple[Signatures, list[PredictionTrial]]:
    """Predict crops of known degradations by every match.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    unseen : Crops
        The crops to predict; their degradations' names are the labels.
    teaching_crops : Crops, optional
        Crops of other photographs, under the same labels; None: each photograph is predicted from
        the others.
    fraction : float
        Share of the filters that make a signature's set.
    **options
        Of `own_output_scores`.

    Returns
    -------
    signatures : Signatures
        Of `teaching_crops`, or of all crops.
    prediction_trials : list of PredictionTrial
        One a match in `MATCHES`.

    Raises
    ------
    ValueError
        If there are no two labels, or without `teaching_crops` no two photographs.
    """
    if len(unseen.lq) < 2:
        raise ValueError(f"labels are {', '.join(unseen.lq)}; expected at least two to tell apart")
    if teaching_crops is None:
        check_photographs(unseen.photographs)
        signatures = learn(baseline, target, unseen, fraction=fraction, **options)
        names = unseen.photographs
        return signatures, [leave_one_photograph_out(signatures, names, m) for m in MATCHES]
    signatures = learn(baseline, target, teaching_crops, fraction=fraction, **options)
    shares = {
        label: own_output_scores(
            baseline, target, lq, **{"title": f"predicting {label}", **options}
        )
        for label, lq in unseen.lq.items()
    }
    return signatures, [
        predict_labelled(signatures, shares, unseen.photographs, m) for m in MATCHES
    ]
