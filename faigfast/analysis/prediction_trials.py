"""Trials of degradation prediction: how often known degradations are told right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from faigfast.analysis.contrasts import split_label
from faigfast.analysis.data_frames import frame
from faigfast.analysis.evaluation import Crops, over_photographs
from faigfast.analysis.prediction import MATCHES, Prediction, Signatures, learn, own_scores

if TYPE_CHECKING:
    import pandas

# Labels and recipes of the paper's degradations at three levels each, alone and together.
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
class Trial:
    """Predictions for images whose degradation is known.

    Parameters
    ----------
    labels : tuple of str
        All labels.
    truth, predicted : tuple of str
        Of every image.
    margins : tuple of float
        Of every image.
    photographs : tuple of str
        Of every image.
    match : str
        How signatures were matched.
    """

    labels: tuple[str, ...]
    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    margins: tuple[float, ...]
    photographs: tuple[str, ...]
    match: str

    def right(self, exact: bool = True) -> Tensor:
        """1 where the label, or without `exact` the degradation alone, is right, else 0: [N]."""
        pairs = zip(self.truth, self.predicted, strict=True)
        if exact:
            return torch.tensor([float(a == b) for a, b in pairs])
        return torch.tensor([float(split_label(a)[0] == split_label(b)[0]) for a, b in pairs])

    def confusion(self) -> Tensor:
        """Share of the images of a label (row) that were taken for each (column): [K, K]."""
        counts = torch.zeros(len(self.labels), len(self.labels), dtype=torch.float64)
        for a, b in zip(self.truth, self.predicted, strict=True):
            counts[self.labels.index(a), self.labels.index(b)] += 1
        return counts / counts.sum(1, keepdim=True).clamp(min=1)

    def confusion_frame(self) -> "pandas.DataFrame":
        """One row a label: which percentage of its images was taken for each."""
        shares = (100 * self.confusion()).tolist()
        return frame(
            [
                {"truth": label}
                | {f"taken for {t}, %": v for t, v in zip(self.labels, row, strict=True)}
                for label, row in zip(self.labels, shares, strict=True)
            ]
        )

    def frame(self) -> "pandas.DataFrame":
        """Accuracy over all images and of each label.

        With Wilson's 95 % intervals over images, and half of that over photographs, as
        `over_photographs` gives it.
        """
        rows = []
        for label in ("all", *self.labels):
            of = [n for n, t in enumerate(self.truth) if label in ("all", t)]
            row: dict[str, Any] = {"truth": label, "images": len(of), "match": self.match}
            for title, exact in (("degradation", False), ("and level", True)):
                hits = int(self.right(exact)[of].sum())
                low, high = wilson(hits, len(of))
                row |= {f"{title} right, %": 100 * hits / len(of)}
                row |= {f"{title} from": 100 * low, f"{title} to": 100 * high}
                places = [self.photographs[n] for n in of]
                half = over_photographs(self.right(exact)[of], places)[1]
                row[f"{title} ± photographs"] = 100 * half
            row["mean margin"] = sum(self.margins[n] for n in of) / len(of)
            rows.append(row)
        return frame(rows)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (JASA 22, 1927).

    Examples
    --------
    >>> tuple(round(end, 3) for end in wilson(9, 10))
    (0.596, 0.982)
    """
    z = 1.96
    share, spread = hits / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * ((share * (1 - share) + spread / 4) / count) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def trial(
    signatures: Signatures, shares: Mapping[str, Tensor], photographs: Sequence[str], match: str
) -> Trial:
    """Predict images of known labels, {label: [N, F]}, and keep what was right."""
    truth: list[str] = []
    found: list[Prediction] = []
    for label, rows in shares.items():
        truth += [label] * len(rows)
        found += signatures.predict(rows, match)
    names = tuple(p.label for p in found)
    margins = tuple(p.margin for p in found)
    places = tuple(photographs) * len(shares)
    return Trial(signatures.labels, tuple(truth), names, margins, places, match)


def check_photographs(photographs: Sequence[str]) -> None:
    """Refuse one photograph alone: what is learned is tried on others."""
    if len(set(photographs)) < 2:
        raise ValueError("one photograph; expected two or more, to learn from some and test others")


def leave_one_photograph_out(
    signatures: Signatures, photographs: Sequence[str], match: str
) -> Trial:
    """Predict each photograph's crops from signatures of the others.

    Parameters
    ----------
    signatures : Signatures
        Of all crops, in one order for every label.
    photographs : sequence of str
        The photograph of each crop.
    match : str
        As in `Signatures.matches`.

    Raises
    ------
    ValueError
        If there is one photograph alone.
    """
    check_photographs(photographs)
    parts = []
    for out in dict.fromkeys(photographs):
        keep = [name != out for name in photographs]
        left = signatures.without(dict.fromkeys(signatures.labels, keep))
        rows = {
            label: example[~torch.tensor(keep)]
            for label, example in zip(signatures.labels, signatures.examples, strict=True)
        }
        parts.append(trial(left, rows, [name for name in photographs if name == out], match))
    joined = {
        name: sum((getattr(part, name) for part in parts), ())
        for name in ("truth", "predicted", "margins", "photographs")
    }
    return Trial(signatures.labels, match=match, **joined)


def try_predictions(
    baseline: nn.Module,
    target: nn.Module,
    unseen: Crops,
    lessons: Crops | None = None,
    *,
    fraction: float = 0.05,
    **options: Any,
) -> tuple[Signatures, list[Trial]]:
    """Predict crops of known degradations in every way of matching.

    Parameters
    ----------
    baseline, target : nn.Module
        The pair.
    unseen : Crops
        What is predicted; its degradations' names are the labels.
    lessons : Crops, optional
        Of other photographs, under the same labels; None: each photograph is predicted from the
        others.
    fraction : float
        Share of the filters that make a signature's set.
    **options
        Of `own_scores`.

    Returns
    -------
    signatures : Signatures
        Of the lessons, or of all crops.
    trials : list of Trial
        One for each of `MATCHES`.

    Raises
    ------
    ValueError
        If there are no two labels, or without lessons no two photographs.
    """
    if len(unseen.lq) < 2:
        raise ValueError(f"labels are {', '.join(unseen.lq)}; expected at least two to tell apart")
    if lessons is None:
        check_photographs(unseen.photographs)
        signatures = learn(baseline, target, unseen, fraction=fraction, **options)
        names = unseen.photographs
        return signatures, [leave_one_photograph_out(signatures, names, m) for m in MATCHES]
    signatures = learn(baseline, target, lessons, fraction=fraction, **options)
    shares = {
        label: own_scores(baseline, target, lq, **{"title": f"predicting {label}", **options})
        for label, lq in unseen.lq.items()
    }
    return signatures, [trial(signatures, shares, unseen.photographs, m) for m in MATCHES]
