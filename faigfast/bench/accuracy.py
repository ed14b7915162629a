"""Accuracy of every rule on trained pairs, and of the rules' own error estimates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from faigfast.analysis.evaluation import Crops, crops
from faigfast.attribution.one_call import attribute
from faigfast.bench.accuracy_pairs import PUBLISHED, available, load
from faigfast.data.degradations import Degradation
from faigfast.data.photographs import KEPT_OUT, photographs
from faigfast.integration.cautions import without_cautions
from faigfast.io.progress import progress_bar
from faigfast.result import Attribution

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
        if not steps and not tol:
            return f"{self.rule}, default"
        return f"{self.rule}{steps}{tol}{' emulated' if self.emulate else ''}"


REFERENCE = RuleVariant("averaged", 160)
# Another kind of rule, without a common point.
CROSS_CHECK = RuleVariant("graded", 320)
# The reference runs in float32, whose rounding is measured with few points.
IN_FLOAT32, IN_FLOAT64 = RuleVariant("averaged", 6), RuleVariant("averaged", 6, precision="fp64")
DEFAULT = RuleVariant("averaged")
AUTHORS = RuleVariant("left", 100)
EMULATED = RuleVariant("left", 100, emulate=True)
# "right" mirrors "left" and has its errors.
STEPS = {
    "left": (50, 100),
    "midpoint": (10, 20, 40),
    "graded": (8, 12, 16, 20),
    "averaged": (6, 8, 10, 12, 15, 24),
    "trapezoid": (20,),
    "gauss-legendre": (6, 10, 20),
    "gauss-kronrod": (21,),
}
TOLERANCES = {
    "averaged": (2e-2, 1e-2, 5e-3),
    "graded": (2e-2, 1e-2, 5e-3),
    "midpoint": (1e-2,),
    "trapezoid": (2e-2,),
    "left": (2e-2,),
}
RULE_VARIANTS = (
    DEFAULT,
    *(RuleVariant(rule, steps) for rule, counts in STEPS.items() for steps in counts),
    *(RuleVariant(rule, tol=tol) for rule, bounds in TOLERANCES.items() for tol in bounds),
    EMULATED,
)
# Published networks are large.
PUBLISHED_CROSS_CHECK = RuleVariant("graded", 160)
PUBLISHED_VARIANTS = (
    DEFAULT,
    AUTHORS,
    RuleVariant("midpoint", 20),
    RuleVariant("graded", 16),
    *(RuleVariant("averaged", steps) for steps in (6, 12, 15, 24)),
    RuleVariant("averaged", tol=1e-2),
)
SLOW = ("swinir-32x2-x2", *PUBLISHED)
PHOTOGRAPHS_OF_SLOW = 2


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
        Architecture and numbers of filters and images.
    agreement : RuleAccuracy
        `CROSS_CHECK`, or `PUBLISHED_CROSS_CHECK`, against the reference: how well it has converged.
    rounding : float
        Relative L1 error of the scores in float32 against float64, a mean over images.
    rows : list of RuleAccuracy
        `RULE_VARIANTS`, or `PUBLISHED_VARIANTS` of a published pair, against the reference; after
        an emulated rule follows its comparison with the rule itself.
    notes : list of str
        Every fallback and why.
    """

    pair: str
    title: str
    agreement: RuleAccuracy
    rounding: float
    rows: list[RuleAccuracy]
    notes: list[str]


def measure_accuracy(
    pairs: Sequence[str] | None = None, *, size: int = SIZE, progress: bool = True
) -> tuple[tuple[str, ...], list[PairAccuracy]]:
    """Compare every rule variant with a converged rule on trained pairs.

    The images are the middle crops of the photographs kept out of training, each blurred and
    noisy once. `SLOW` pairs have the first `PHOTOGRAPHS_OF_SLOW` of them.

    Parameters
    ----------
    pairs : sequence of str, optional
        Shipped or published pairs; None: `faigfast.bench.accuracy_pairs.available()`.
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
        If scikit-image or the package of a published pair is not installed.
    TypeError, ValueError
        If a pair is unknown, there is none, or the size does not fit.
    """
    if isinstance(pairs, str):
        raise TypeError(f"pairs is {pairs!r}; expected a sequence of names")
    pairs = available() if pairs is None else pairs
    if not pairs:
        raise ValueError("pairs is empty; expected at least one name")
    networks = {name: load(name) for name in pairs}
    images = photographs(KEPT_OUT)
    largest = min(min(image.shape[1:]) for image in images.values()) // 3
    if not 1 <= size <= largest:
        raise ValueError(f"size is {size}; expected 1 to {largest}, a third of a photograph")
    images = {name: _middle(image, 3 * size) for name, image in images.items()}
    total = sum(len(_variants(name)) + 3 for name in networks)
    with progress_bar(total=total, unit="rule", disable=not progress) as bar:
        sections = []
        for name, pair in networks.items():
            count = PHOTOGRAPHS_OF_SLOW if name in SLOW else len(images)
            chosen = dict(list(images.items())[:count])
            sections.append(_section(name, pair, _degraded(chosen, size, pair[1]), bar))
    return tuple(images), sections


def _variants(name: str) -> tuple[RuleVariant, ...]:
    return PUBLISHED_VARIANTS if name in PUBLISHED else RULE_VARIANTS


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

    pad = PUBLISHED[name].pad if name in PUBLISHED else 0

    def run(variant: RuleVariant) -> Attribution:
        bar.set_description(f"{name}, {variant}")
        batch = {"lq": data.lq, "gt": data.gt}
        result = attribute(*pair, batch, pad=pad, **asdict(variant))
        about_accuracy = [n for n in result.notes if not n.startswith(("speed: ", "backend: "))]
        notes.update(dict.fromkeys(without_cautions(about_accuracy)))
        bar.update()
        return result

    reference = run(REFERENCE)
    check = PUBLISHED_CROSS_CHECK if name in PUBLISHED else CROSS_CHECK
    agreement = compare(str(check), run(check), reference)
    results = {variant: run(variant) for variant in _variants(name)}
    rounding = compare("", results[IN_FLOAT32], run(IN_FLOAT64)).errors.mean()
    rows = [compare(str(variant), result, reference) for variant, result in results.items()]
    if EMULATED in results:
        emulated_name = f"{EMULATED}, against {AUTHORS}"
        rows.append(compare(emulated_name, results[EMULATED], results[AUTHORS]))
    kind, images = type(pair[1]).__name__, len(reference.degradations) * len(data.gt)
    title = f"{name}: {kind}, {len(reference.index)} filters, {images} images"
    return PairAccuracy(name, title, agreement, float(rounding), rows, list(notes))
