"""Accuracy of every rule on trained pairs, and of the rules' own error estimates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast.analysis.evaluation import Crops, crops
from faigfast.attribution.one_call import attribute
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.integration.cautions import without_cautions
from faigfast.io.progress import progress_bar
from faigfast.result import Attribution
from faigfast.zoo.pairs import PAIRS, shipped_pair

SIZE = 48  # side of a crop's ground truth, in pixels
TOP_FRACTION = 0.01
BLUR, NOISE = 2.0, 0.1


@dataclass(frozen=True)
class RuleVariant:
    """A rule with its options, named as in `attribute`."""

    rule: str
    steps: int | None = None
    tol: float | None = None
    emulate: bool = False
    precision: str = "fp32"

    def __str__(self) -> str:
        steps = "" if self.steps is None else f" {self.steps}"
        tol = "" if self.tol is None else f", tol {self.tol:g}"
        return f"{self.rule}{steps}{tol}{' emulated' if self.emulate else ''}"


# Two rules without a common point.
REFERENCE = RuleVariant("graded", 320, precision="fp64")
CROSS_CHECK = RuleVariant("gauss-legendre", 320)
AUTHORS = RuleVariant("left", 100)
EMULATED = RuleVariant("left", 100, emulate=True)
STEPS = {
    "left": (20, 50, 100),
    "right": (100,),
    "midpoint": (5, 10, 14, 20, 40),
    "graded": (8, 10, 12, 14, 16, 20),
    "trapezoid": (10, 20),
    "gauss-legendre": (6, 10, 14, 20),
    "gauss-kronrod": (11, 15, 21),
}
TOLERANCES = {
    "graded": (5e-2, 2e-2, 1e-2, 5e-3),
    "midpoint": (5e-2, 2e-2, 1e-2, 5e-3),
    "trapezoid": (2e-2,),
    "left": (2e-2,),
}
RULE_VARIANTS = (
    *(RuleVariant(rule, steps) for rule, counts in STEPS.items() for steps in counts),
    *(RuleVariant(rule, tol=tol) for rule, bounds in TOLERANCES.items() for tol in bounds),
    EMULATED,
)


@dataclass(frozen=True, eq=False)
class RuleAccuracy:
    """Accuracy of one rule variant.

    Attributes
    ----------
    name : str
        The rule variant, and the other side of the comparison if it is not the reference.
    points : Tensor
        [D·N], points of the line for each image.
    errors : Tensor
        [D·N], relative L1 error of each image's scores.
    contrast : float
        Relative L1 error of the contrast, a mean over images.
    overlap : dict of str to float
        Share of the top 1 % of filters that both rank there, by degradation.
    completeness : float
        The worst image's error of completeness.
    estimates : Tensor
        [D·N], the rule's own estimates of its errors; NaN where it has none.
    """

    name: str
    points: Tensor
    errors: Tensor
    contrast: float
    overlap: dict[str, float]
    completeness: float
    estimates: Tensor


@dataclass(frozen=True, eq=False)
class PairAccuracy:
    """Accuracy of every rule variant on one pair.

    Attributes
    ----------
    pair : str
        Its name.
    title : str
        Architecture and number of filters.
    agreement : RuleAccuracy
        `CROSS_CHECK` against the reference: how well the reference has converged.
    rows : list of RuleAccuracy
        `RULE_VARIANTS` against the reference, and last the emulated rule against the rule itself.
    notes : list of str
        Every fallback and why.
    """

    pair: str
    title: str
    agreement: RuleAccuracy
    rows: list[RuleAccuracy]
    notes: list[str]


def measure_accuracy(
    pairs: Sequence[str] = PAIRS, *, size: int = SIZE, progress: bool = True
) -> tuple[tuple[str, ...], list[PairAccuracy]]:
    """Compare every rule variant with a converged rule on trained pairs.

    The images are the middle crops of the photographs kept out of training, each blurred and
    noisy once.

    Parameters
    ----------
    pairs : sequence of str
        Of `faigfast.zoo.pairs.PAIRS`.
    size : int
        Side of the ground truth in pixels, a multiple of the pairs' enlargement.
    progress : bool
        Show a progress bar.

    Returns
    -------
    names : tuple of str
        Names of the photographs.
    sections : list of PairAccuracy
        One a pair.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    TypeError, ValueError
        If a pair is unknown, there is none, or the size does not fit.
    """
    if isinstance(pairs, str):
        raise TypeError(f"pairs is {pairs!r}; expected a sequence of names")
    if not pairs:
        raise ValueError("pairs is empty; expected at least one name")
    networks = {name: shipped_pair(name) for name in pairs}
    images = photographs(KEPT_OUT)
    largest = min(min(image.shape[1:]) for image in images.values()) // 3
    if not 1 <= size <= largest:
        raise ValueError(f"size is {size}; expected 1 to {largest}, a third of a photograph")
    images = {name: _middle(image, 3 * size) for name, image in images.items()}
    with progress_bar(
        total=len(networks) * (len(RULE_VARIANTS) + 2), unit="rule", disable=not progress
    ) as bar:
        sections = [
            _section(name, pair, _degraded(images, size, pair[1]), bar)
            for name, pair in networks.items()
        ]
    return tuple(images), sections


def compare(name: str, result: Attribution, other: Attribution) -> RuleAccuracy:
    """Compute the errors of one attribution against another of the same images."""
    names = result.degradations
    scores, expected = (
        torch.cat([part.scores(n) for n in names]).double() for part in (result, other)
    )  # [D·N, F]
    contrast, expected_contrast = (
        part.contrast(names[0]).double() for part in (result, other)
    )  # [F]
    overlap = {}
    for n in names:
        top, expected_top = (
            set(part.top(n, TOP_FRACTION).indices.tolist()) for part in (result, other)
        )
        overlap[n] = len(top & expected_top) / len(expected_top)
    return RuleAccuracy(
        name=name,
        points=result.points.flatten(),
        errors=(scores - expected).abs().sum(1) / expected.abs().sum(1),
        contrast=float((contrast - expected_contrast).abs().sum() / expected_contrast.abs().sum()),
        overlap=overlap,
        completeness=float(result.completeness.max()),
        estimates=result.error.flatten(),
    )


def _middle(image: Tensor, side: int) -> Tensor:
    """Cut a square out of the middle of [C, H, W]."""
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def degradations_of(network: nn.Module) -> dict[str, Degradation]:
    """Blur and noise, at the scale of a network."""
    scale = network.scale
    assert isinstance(scale, int)
    return {
        "blur": Degradation(blur=BLUR, scale=scale),
        "noise": Degradation(noise=NOISE, scale=scale),
    }


def _degraded(images: dict[str, Tensor], size: int, network: nn.Module) -> Crops:
    """Degrade squares of three by three crops, and take the middle crop of each."""
    return crops(images, degradations_of(network), size).part(slice(4, None, 9))


def _section(name: str, pair: tuple[nn.Module, nn.Module], data: Crops, bar: tqdm) -> PairAccuracy:
    notes: dict[str, None] = {}

    def run(variant: RuleVariant) -> Attribution:
        bar.set_description(f"{name}, {variant}")
        batch = {"lq": data.lq, "gt": data.gt}
        result = attribute(*pair, batch, backend="torch", **asdict(variant))
        notes.update(dict.fromkeys(without_cautions(result.notes)))
        bar.update()
        return result

    reference = run(REFERENCE)
    agreement = compare(str(CROSS_CHECK), run(CROSS_CHECK), reference)
    results = {variant: run(variant) for variant in RULE_VARIANTS}
    rows = [compare(str(variant), result, reference) for variant, result in results.items()]
    emulated_name = f"{EMULATED}, against {AUTHORS}"
    rows.append(compare(emulated_name, results[EMULATED], results[AUTHORS]))
    title = f"{name}: {type(pair[1]).__name__}, {len(reference.index)} filters"
    return PairAccuracy(name, title, agreement, rows, list(notes))
